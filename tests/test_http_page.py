"""The page: what strangers write is shown as text, and it is there whatever Elasticsearch does."""

from __future__ import annotations

import threading
import time

import pytest
from elasticsearch import Elasticsearch

from slurp.documents.display import Link, label, link, prose
from slurp.embedded.node import EmbeddedNode
from slurp.pipeline.progress import Outcome
from slurp.web.cache import Cache
from slurp.web.charts import chart, nice
from slurp.web.history import EVERY, MINUTES, History
from slurp.web.page import assets
from slurp.web.queries import Overview, PageQueries, Posts, SearchRequest
from tests.harness import InProcess, commit
from tests.proxy import Proxy
from tests.shown import EVIL, Shown, fill, fill_with_evil, linking, post
from tests.watched import NOWHERE, Watched


@pytest.fixture
def away() -> Shown:
    """Elasticsearch is not there."""
    watched = Watched(NOWHERE, "ws://jetstream.example")
    watched.reads()
    watched.probe.step()
    return Shown(watched, "none")


@pytest.fixture
def shown(es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str) -> Shown:
    watched = Watched(es_node.url, "ws://jetstream.example")
    watched.reads()
    watched.probe.step()
    return Shown(watched, fresh_index_prefix)


# Strangers


def test_what_strangers_write_is_shown_as_text(shown: Shown, indexer: InProcess, es: Elasticsearch) -> None:
    fill_with_evil(indexer, es)
    for page in (shown.read(), shown.read(q=EVIL), shown.read(tag=EVIL, lang=EVIL, domain=EVIL)):
        assert [script.get("src") for script in page.of("script")] == ["/page.js"]
        assert [image.get("src") for image in page.of("img")] == ["/icon.svg"]
        for tag, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
    page = shown.read()
    assert page.text.count(f"text{EVIL}") == 2
    for words in (f"@handle{EVIL}"[:50], f"#tag{EVIL}"[:39], f"app.evil.{EVIL}"[:70], f"domain{EVIL}"[:59]):
        assert words in page.text
    assert {p["lang"] for p in page.of("p") if "lang" in p} == {f"lang{EVIL}"[:19] + "…", "pt"}
    assert "{{7*7}}" in page.text
    assert "javascript:" not in shown.html()


def test_only_links_of_the_web_become_links(shown: Shown, indexer: InProcess, es: Elasticsearch) -> None:
    bad = [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "http://",
        "https://[",
        "//x.example",
    ]
    bad += [
        "https://a.example\\@b.example",
        "java\nscript:alert(1)",
        "https://a.example/\u202egpj.exe",
        "HTTPS ://x",
    ]
    good = "https://user:word@sub.example.com:8443/path?q=<b>&x='\""
    frames = [post(number, **linking(uri)) for number, uri in enumerate([*bad, good], start=1)]
    fill(indexer, es, *frames)
    page = shown.read()
    outer = [a for a in page.of("a") if not str(a["href"]).startswith(("/", "#"))]
    assert {a["rel"] for a in outer} == {"noopener noreferrer nofollow"}
    hrefs = {str(a["href"]) for a in outer}
    assert good in hrefs
    assert all(href.startswith("https://bsky.app/") for href in hrefs - {good})
    assert "example.com ↗" in page.text
    assert "user:word" not in page.text


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://www.news.example.co.uk/x", "example.co.uk"),
        ("http://192.0.2.1:80/", "192.0.2.1"),
        ("https://google.com@evil.example/", "evil.example"),
        ("https://xn--pple-43d.com", "xn--pple-43d.com"),
        ("https://аpple.com/", "xn--pple-43d.com"),
        ("HTTPS://EXAMPLE.COM", "example.com"),
    ],
)
def test_a_link_shows_its_domain(url: str, domain: str) -> None:
    assert link(url) == Link(url, domain)


@pytest.mark.parametrize(
    "url", [None, 1, "", "https://" + "a" * 3000, "ftp://x.example", "https:///x", "x", "https://.."]
)
def test_no_links(url: object) -> None:
    assert link(url) is None


def test_text_that_turns_its_direction_does_not_turn_ours() -> None:
    assert prose("user\u202egnp.exe") == "user\ufffdgnp.exe"
    assert prose("שלום\u200f!") == "שלום\u200f!"
    assert label("ab\u200fc\u2066d") == "ab\ufffdc\ufffdd"


def test_what_cant_be_seen_is_seen_and_lines_are_kept() -> None:
    assert prose("a\x00b\x1b[31mc\ud800d\u2028e") == "a\ufffdb\ufffd[31mc\ufffdd\ufffde"
    assert prose("one\r\ntwo\n\n\n\n \n three\t4 ") == "one\ntwo\n\nthree 4"
    assert label("one\ntwo") == "one two"
    assert prose("👩‍🚀 é") == "👩‍🚀 é"
    assert prose("x" * 1000) == "x" * 599 + "…"


# Elasticsearch


def test_it_shows_what_happens(shown: Shown, indexer: InProcess, es: Elasticsearch) -> None:
    like = {
        "$type": "app.bsky.feed.like",
        "subject": {"uri": "at://did:plc:x/app.bsky.feed.post/y", "cid": "z"},
    }
    fill(
        *(indexer, es),
        post(1, "bom dia", langs=["pt-BR"], tags=["Café"], **linking("https://www.example.org/a")),
        post(2, "good night", langs=["en"], tags=["café"]),
        *(commit(number, like, collection="app.bsky.feed.like") for number in range(3, 8)),
    )
    overview = shown.questions.overview()
    assert isinstance(overview, Overview)
    assert overview.events == 7
    assert [(bar.name, bar.count) for bar in overview.collections] == [("likes", 5), ("posts", 2)]
    assert {(bar.name, bar.note) for bar in overview.languages} == {("Portuguese", "pt"), ("English", "en")}
    assert [(bar.name, bar.count) for bar in overview.tags] == [("#café", 2)]
    assert [(bar.name, bar.count) for bar in overview.domains] == [("example.org", 1)]
    page = shown.read()
    for words in (
        "likes app.bsky.feed.like",
        "bom dia",
        "good night",
        "Portuguese",
        "#Café",
        "example.org ↗",
    ):
        assert words in " ".join(page.text.split()), words
    (text,) = [p for p in page.of("p") if p.get("lang") == "pt-BR"]
    assert text["dir"] == "auto"
    # The address of a tag finds it, however it is spelled.
    assert {"href": "/?tag=caf%C3%A9#posts"} in page.of("a")
    found = shown.questions.posts(SearchRequest(tag="café"))
    assert isinstance(found, Posts)
    assert found.found == 2


def test_deleted_and_announced_posts_are_not_new(shown: Shown, indexer: InProcess, es: Elasticsearch) -> None:
    gone = post(1).replace(b'"operation":"create"', b'"operation":"delete"')
    fill(indexer, es, gone, post(2, "edited").replace(b'"operation":"create"', b'"operation":"update"'))
    posts = shown.questions.posts(SearchRequest())
    assert isinstance(posts, Posts)
    assert posts.posts == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("coffee", {"coffee and cats", "coffee and dogs"}),
        ("COFFEE cats", {"coffee and cats"}),
        ("cats | dogs", {"coffee and cats", "coffee and dogs"}),
        ('"and dogs"', {"coffee and dogs"}),
        ("coffee -cats", {"coffee and dogs"}),
        ("coff*", set()),
        ("did:x OR *:*", set()),
        ('"', set()),
        ("(((((", set()),
        ("\\", set()),
        ("\ud800 \x00", set()),
        ("coffee " * 28, {"coffee and cats", "coffee and dogs"}),
    ],
)
def test_the_search(shown: Shown, indexer: InProcess, es: Elasticsearch, words: str, found: set[str]) -> None:
    fill(indexer, es, post(1, "coffee and cats"), post(2, "coffee and dogs"), post(3, "tea"))
    posts = shown.questions.posts(SearchRequest.of({"q": words}))
    assert isinstance(posts, Posts), posts
    assert {one.text for one in posts.posts} == found
    assert posts.found == len(found)
    assert "for “" in shown.html(q=words) or not words.strip()


def test_a_wish_is_bounded() -> None:
    assert SearchRequest.of({"q": " " + "x" * 1000, "tag": "\ud800"}) == SearchRequest("x" * 200, "?")
    assert not SearchRequest.of({"q": "  ", "else": "x"})


def test_without_elasticsearch_it_shows_what_the_worker_knows(away: Shown) -> None:
    away.watched.batch(10)(Outcome(indexed=7, quarantined=3))
    away.watched.batch(1234)
    began = time.monotonic()
    text = " ".join(away.read(q="coffee").text.split())
    assert time.monotonic() - began < 1
    assert "not ready" in text
    assert "Nothing is indexed at the moment" in text
    assert "Elasticsearch: down for 0.0s: " in text
    assert "1,234 events wait" in text
    assert "quarantined 3" in text
    assert text.count("Elasticsearch is down: ") == 2
    assert text.count("Connection refused") == 3


def test_before_there_is_an_index(shown: Shown) -> None:
    assert shown.read().text.count("nothing is indexed yet") == 2


def test_an_elasticsearch_that_hangs_holds_nobody_up(
    es_node: EmbeddedNode, shown: Shown, fresh_index_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurp.web.queries._WITHIN", 0.5)
    with Proxy(es_node.port) as proxy:
        hanging = Shown(Watched(f"http://localhost:{proxy.port}"), fresh_index_prefix)
        hanging.watched.probe.step()
        proxy.hold_answers(b"_search")
        began = time.monotonic()
        text = hanging.read().text
        assert time.monotonic() - began < 3
    assert text.count("Elasticsearch can't answer: no response in time") == 2


# What it costs


def test_many_tabs_ask_no_more_than_one(
    shown: Shown, indexer: InProcess, es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(indexer, es, post(1))
    asked: list[object] = []
    search = PageQueries._search

    def counted(self: PageQueries, **what: object) -> object:
        asked.append(what)
        return search(self, **what)

    monkeypatch.setattr(PageQueries, "_search", counted)
    threads = [threading.Thread(target=shown.html) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Overview, posts, and the handles of their authors.
    assert len(asked) == 3


def test_the_cache_makes_anew_what_is_old_and_keeps_few() -> None:
    now = 0.0
    cache = Cache(most=2, clock=lambda: now)
    made: list[str] = []

    def get(key: str) -> str:
        def make() -> str:
            made.append(key)
            return key.upper()

        return cache.get(key, 5, make)

    assert [get("a"), get("a"), get("b"), get("a"), get("c"), get("b")] == ["A", "A", "B", "A", "C", "B"]
    assert made == ["a", "b", "c", "b"]
    now = 5.0
    get("b")
    assert made[-1] == "b"


def test_an_answer_that_could_not_be_made_is_made_the_next_time() -> None:
    cache = Cache()
    with pytest.raises(ZeroDivisionError):
        cache.get("a", 5, lambda: 1 / 0)
    assert cache.get("a", 5, lambda: 1.0) == 1.0


# Lines


def test_rates_are_of_the_last_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, now = Watched(), 1000.0
    monkeypatch.setattr("slurp.pipeline.progress.time.monotonic", lambda: now)
    history = History(watched.status, lambda: now)
    for _ in range(20):
        history.step()
        now += EVERY / 2
        history.step()
        now += EVERY / 2
        watched.batch(200)(Outcome(indexed=200))
    history.step()
    points = history.points()
    assert len(points) == 20
    assert [point.received for point in points] == [100] * 20
    assert (points[-1].ago, points[0].ago) == (0, 38)
    now += MINUTES * 60 - 10
    assert len(history.points()) == 6


def test_the_lag_is_the_worst_of_all_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, now, lags = Watched(), 1000.0, iter([None, 5.0, 1.0, 2.0, 3.0, None, None, None])
    monkeypatch.setattr("slurp.pipeline.progress.time.monotonic", lambda: now)
    monkeypatch.setattr("slurp.monitoring.worker_status.WorkerStatus.lag", property(lambda self: next(lags)))
    history = History(watched.status, lambda: now)
    for _ in range(8):
        history.step()
        now += EVERY / 2
    assert [point.lag for point in history.points()] == [5.0, 3.0, None]


def test_a_line_is_broken_where_nothing_is_known() -> None:
    found = chart([40, 30, 20, 10, 0], [[None, 1, 2, None, 3]], 40, 1)
    assert found.top == 5
    assert found.lines == ("M150.0,80.0L300.0,60.0",)
    assert chart([], [[]], 40, 1).lines == ("",)


@pytest.mark.parametrize(
    ("value", "top"), [(0.3, 0.5), (1, 1), (1.1, 2), (2.2, 2.5), (410, 500), (5001, 10_000)]
)
def test_scales_end_at_round_numbers(value: float, top: float) -> None:
    assert nice(value) == pytest.approx(top)


def test_the_files_beside_the_page() -> None:
    found = assets()
    assert {path: answer.content_type.split(";")[0] for path, answer in found.items()} == {
        "/page.css": "text/css",
        "/page.js": "text/javascript",
        "/icon.svg": "image/svg+xml",
    }
    assert b"prefers-color-scheme: dark" in found["/page.css"].body
