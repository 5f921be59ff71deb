"""The page: untrusted texts are displayed as text, and it works during outages of Elasticsearch."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.documents.display import Link, clean_label, clean_text, safe_link
from slurp.elastic.templates import ACTORS_INDEX, TRENDS_INDEX
from slurp.embedded.node import EmbeddedNode
from slurp.pipeline.progress import BatchOutcome
from slurp.web.cache import Cache
from slurp.web.charts import chart, round_up
from slurp.web.history import INTERVAL, MINUTES, History
from slurp.web.page import static_files
from slurp.web.queries import Overview, PageQueries, Posts, SearchRequest
from slurp.web.totals import Totals
from tests.harness import InProcess, commit
from tests.idle_worker import NOWHERE, IdleWorker
from tests.proxy import Proxy
from tests.rendered_page import EVIL, RenderedPage, fill, fill_with_evil, linking, post


@pytest.fixture
def offline_page() -> RenderedPage:
    """The page while Elasticsearch is down."""
    worker = IdleWorker(NOWHERE, "ws://jetstream.example")
    worker.finish_startup()
    worker.probe.step()
    return RenderedPage(worker, "none")


@pytest.fixture
def page(es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str) -> RenderedPage:
    worker = IdleWorker(es_node.url, "ws://jetstream.example")
    worker.finish_startup()
    worker.probe.step()
    return RenderedPage(worker, fresh_index_prefix)


# Untrusted content


def test_untrusted_texts_are_displayed_as_text(
    page: RenderedPage, indexer: InProcess, es: Elasticsearch
) -> None:
    fill_with_evil(indexer, es)
    for parsed in (page.parsed(), page.parsed(q=EVIL), page.parsed(tag=EVIL, lang=EVIL, domain=EVIL)):
        assert [script.get("src") for script in parsed.of("script")] == ["page.js"]
        assert [image.get("src") for image in parsed.of("img")] == ["icon.svg"]
        for tag, attributes in parsed.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
    parsed = page.parsed()
    assert parsed.text.count(f"text{EVIL}") == 2
    names = (f"name{EVIL}"[:39], f"@handle{EVIL}"[:50], f"row{EVIL}")
    for text in (*names, f"#tag{EVIL}"[:39], f"app.evil.{EVIL}"[:70], f"domain{EVIL}"[:59]):
        assert text in parsed.text
    assert {p["lang"] for p in parsed.of("p") if "lang" in p} == {f"lang{EVIL}"[:19] + "…", "pt"}
    assert "{{7*7}}" in parsed.text
    assert "javascript:" not in page.html()


def test_only_http_urls_become_links(page: RenderedPage, indexer: InProcess, es: Elasticsearch) -> None:
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
    parsed = page.parsed()
    inner = ("?", ".", "#", "metrics", "healthz", "readyz")
    outer = [a for a in parsed.of("a") if not str(a["href"]).startswith(inner)]
    assert {a["rel"] for a in outer} == {"noopener noreferrer nofollow"}
    hrefs = {str(a["href"]) for a in outer}
    assert good in hrefs
    assert all(href.startswith("https://bsky.app/") for href in hrefs - {good})
    assert "example.com ↗" in parsed.text
    assert "user:word" not in parsed.text


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
def test_a_link_displays_its_domain(url: str, domain: str) -> None:
    assert safe_link(url) == Link(url, domain)


@pytest.mark.parametrize(
    "url", [None, 1, "", "https://" + "a" * 3000, "ftp://x.example", "https:///x", "x", "https://.."]
)
def test_other_urls_are_no_links(url: object) -> None:
    assert safe_link(url) is None


def test_bidi_controls_do_not_affect_the_page() -> None:
    assert clean_text("user\u202egnp.exe") == "user\ufffdgnp.exe"
    assert clean_text("שלום\u200f!") == "שלום\u200f!"
    assert clean_label("ab\u200fc\u2066d") == "ab\ufffdc\ufffdd"


def test_invisible_characters_are_replaced_and_lines_are_kept() -> None:
    assert clean_text("a\x00b\x1b[31mc\ud800d\u2028e") == "a\ufffdb\ufffd[31mc\ufffdd\ufffde"
    assert clean_text("one\r\ntwo\n\n\n\n \n three\t4 ") == "one\ntwo\n\nthree 4"
    assert clean_label("one\ntwo") == "one two"
    assert clean_text("👩‍🚀 é") == "👩‍🚀 é"
    assert clean_text("x" * 1000) == "x" * 599 + "…"


# Elasticsearch


def test_the_page_displays_counts_and_posts(
    page: RenderedPage, indexer: InProcess, es: Elasticsearch
) -> None:
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
    overview = page.queries.overview()
    assert isinstance(overview, Overview)
    assert overview.events == 7
    assert [(bar.name, bar.count) for bar in overview.collections] == [("likes", 5), ("posts", 2)]
    assert {(bar.name, bar.note) for bar in overview.languages} == {("Portuguese", "pt"), ("English", "en")}
    assert [(bar.name, bar.count) for bar in overview.tags] == [("#café", 2)]
    assert [(bar.name, bar.count) for bar in overview.domains] == [("example.org", 1)]
    parsed = page.parsed()
    for text in (
        "likes app.bsky.feed.like",
        "bom dia",
        "good night",
        "Portuguese",
        "#Café",
        "example.org ↗",
    ):
        assert text in " ".join(parsed.text.split()), text
    (paragraph,) = [p for p in parsed.of("p") if p.get("lang") == "pt-BR"]
    assert paragraph["dir"] == "auto"
    # The link of a hashtag finds all its spellings.
    assert {"href": "?tag=caf%C3%A9#posts"} in parsed.of("a")
    found = page.queries.posts(SearchRequest(tag="café"))
    assert isinstance(found, Posts)
    assert found.total == 2


def test_search_results_have_counts_of_what_exists(
    page: RenderedPage, indexer: InProcess, es: Elasticsearch
) -> None:
    found = post(1, "a rare word")
    uri = f"at://{orjson.loads(found)['did']}/app.bsky.feed.post/{orjson.loads(found)['commit']['rkey']}"
    about = {"subject": {"uri": uri, "cid": "z"}}
    like, repost = ({"$type": f"app.bsky.feed.{name}", **about} for name in ("like", "repost"))
    reply = post(2, "me too", reply={"root": {"uri": uri, "cid": "z"}, "parent": {"uri": uri, "cid": "z"}})
    likes = [commit(number, like, collection="app.bsky.feed.like") for number in range(3, 6)]
    fill(indexer, es, found, reply, *likes, commit(6, repost, collection="app.bsky.feed.repost"))
    [hit, *_] = es.search(index=f"{indexer.index}-*", query={"term": {"subject.uri": uri}})["hits"]["hits"]
    es.update(index=hit["_index"], id=hit["_id"], doc={"hidden": True}, refresh=True)
    result = page.queries.posts(SearchRequest(query="rare"))
    assert isinstance(result, Posts)
    [one] = result.posts
    # One of them is hidden.
    counts = {count.name: count.count for count in one.counts}
    assert counts in ({"likes": 2, "repost": 1, "reply": 1}, {"likes": 3, "reply": 1})
    text = " ".join(page.parsed(q="rare").text.split())
    assert all(f"{number} {name}" in text for name, number in counts.items())
    # The latest posts are too new for counts.
    assert " likes" not in " ".join(page.parsed().text.split()).split("Latest posts")[1]


def test_the_page_draws_posts_per_hour_and_people_per_day(page: RenderedPage, es: Elasticsearch) -> None:
    assert "Posts per hour" not in page.html()
    now = int(time.time())
    hour, day = now // 3600 * 3600, now // 86_400 * 86_400
    # The running hour and day are not complete; an hour is missing.
    rows = [("hour", "posts", hour - 3600 * ago, 100 + ago) for ago in (0, 1, 2, 4, 5, 30)]
    rows += [("day", "active_people", day - 86_400 * ago, 1000 + ago) for ago in (0, 1, 2, 3, 40)]
    rows += [("hour", "likes", hour - 3600, 9999), ("day", "posts", day - 86_400, 9999)]
    for number, (interval, key, start, count) in enumerate(rows):
        row = {"index": page.queries.index, "interval": interval, "measure": "totals", "key": key}
        at = datetime.fromtimestamp(start, UTC).isoformat()
        es.index(
            index=TRENDS_INDEX,
            id=f"{page.queries.index}-{number}",
            document={**row, "count": count, "@timestamp": at},
        )
    es.indices.refresh(index=TRENDS_INDEX)
    page.queries.cache = Cache()
    found = page.queries.totals()
    assert isinstance(found, Totals)
    assert found.posts.values[-5:] == [105, 104, None, 102, 101]
    assert set(found.posts.values[:-5]) == {None} and len(found.posts.values) == 24
    assert found.people.values[-3:] == [1003, 1002, 1001] and len(found.people.values) == 30
    assert now - found.posts.ago[-1] == pytest.approx(hour - 3600, abs=60)
    text = page.html()
    assert "Posts per hour over the last 24 hours: maximum 105" in text
    assert "Active people per day over the last 30 days: maximum 1,003" in text


def test_all_links_of_the_page_are_relative(
    page: RenderedPage, indexer: InProcess, es: Elasticsearch
) -> None:
    """A reverse proxy may serve it below a path."""
    fill(indexer, es, post(1, tags=["a"], langs=["en"], **linking("https://www.example.org/a")))
    for parsed in (page.parsed(), page.parsed(q="good")):
        for _, attributes in parsed.tags:
            for name in ("href", "src", "action"):
                assert not str(attributes.get(name, "")).startswith("/"), attributes
    script = static_files()["/page.js"].body.decode()
    assert 'fetch("/' not in script and "fetch(location.href" in script


def test_updated_posts_are_listed_and_deletions_are_not(
    page: RenderedPage, indexer: InProcess, es: Elasticsearch
) -> None:
    gone = post(1).replace(b'"operation":"create"', b'"operation":"delete"')
    fill(indexer, es, gone, post(2, "edited").replace(b'"operation":"create"', b'"operation":"update"'))
    posts = page.queries.posts(SearchRequest())
    assert isinstance(posts, Posts)
    assert [one.text for one in posts.posts] == ["edited"]


@pytest.mark.parametrize(
    ("query", "expected"),
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
def test_search_operators(
    page: RenderedPage, indexer: InProcess, es: Elasticsearch, query: str, expected: set[str]
) -> None:
    fill(indexer, es, post(1, "coffee and cats"), post(2, "coffee and dogs"), post(3, "tea"))
    posts = page.queries.posts(SearchRequest.from_parameters({"q": query}))
    assert isinstance(posts, Posts), posts
    assert {one.text for one in posts.posts} == expected
    assert posts.total == len(expected)
    assert "for “" in page.html(q=query) or not query.strip()


def test_search_parameters_are_bounded() -> None:
    assert SearchRequest.from_parameters({"q": " " + "x" * 1000, "tag": "\ud800"}) == SearchRequest(
        "x" * 200, "?"
    )
    assert not SearchRequest.from_parameters({"q": "  ", "else": "x"})


def test_without_elasticsearch_the_page_displays_the_state_of_the_worker(offline_page: RenderedPage) -> None:
    offline_page.worker.batch(10)(BatchOutcome(indexed=7, quarantined=3))
    offline_page.worker.batch(1234)
    began = time.monotonic()
    text = " ".join(offline_page.parsed(q="coffee").text.split())
    assert time.monotonic() - began < 1
    assert "not ready" in text
    assert "No events are being indexed" in text
    assert "Elasticsearch: down for 0.0s: " in text
    assert "1,234 events are in flight and are not lost" in text
    assert "keeps events for about 36 hours" in text
    assert "quarantined 3" in text
    assert text.count("Elasticsearch is down: ") == 3
    assert text.count("Connection refused") == 4


def test_without_an_index_the_page_says_that_no_events_are_indexed(page: RenderedPage) -> None:
    assert page.parsed().text.count("no events indexed yet") == 2


def test_a_hanging_elasticsearch_does_not_delay_the_page(
    es_node: EmbeddedNode, page: RenderedPage, fresh_index_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurp.web.queries._REQUEST_TIMEOUT", 0.5)
    with Proxy(es_node.port) as proxy:
        hanging = RenderedPage(IdleWorker(f"http://localhost:{proxy.port}"), fresh_index_prefix)
        hanging.worker.probe.step()
        proxy.hold_answers(b"_search")
        began = time.monotonic()
        text = hanging.parsed().text
        assert time.monotonic() - began < 3
    assert text.count("search failed: no response in time") == 3


# Number of queries


def test_many_tabs_cause_no_more_queries_than_one(
    page: RenderedPage, indexer: InProcess, es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(indexer, es, post(1))
    searches: list[object] = []
    search = PageQueries._search

    def counted(self: PageQueries, index: str | None = None, **arguments: object) -> object:
        searches.append(arguments)
        return search(self, index, **arguments)

    monkeypatch.setattr(PageQueries, "_search", counted)
    threads = [threading.Thread(target=page.html) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Overview, trends, totals, posts, and the names of their authors.
    assert len(searches) == 5


def test_the_cache_recomputes_expired_entries_and_is_bounded() -> None:
    now = 0.0
    cache = Cache(max_entries=2, clock=lambda: now)
    computed: list[str] = []

    def get(key: str) -> str:
        def compute() -> str:
            computed.append(key)
            return key.upper()

        return cache.get(key, 5, compute)

    assert [get("a"), get("a"), get("b"), get("a"), get("c"), get("b")] == ["A", "A", "B", "A", "C", "B"]
    assert computed == ["a", "b", "c", "b"]
    now = 5.0
    get("b")
    assert computed[-1] == "b"


def test_a_failed_computation_is_repeated() -> None:
    cache = Cache()
    with pytest.raises(ZeroDivisionError):
        cache.get("a", 5, lambda: 1 / 0)
    assert cache.get("a", 5, lambda: 1.0) == 1.0


# Charts


def test_rates_are_averages_of_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, now = IdleWorker(), 1000.0
    monkeypatch.setattr(watched.status.counters, "_monotonic", lambda: now)
    history = History(watched.status, lambda: now)
    for _ in range(20):
        history.step()
        now += INTERVAL / 2
        history.step()
        now += INTERVAL / 2
        watched.batch(200)(BatchOutcome(indexed=200))
    history.step()
    points = history.points()
    assert len(points) == 20
    assert [point.received for point in points] == [100] * 20
    assert (points[-1].ago, points[0].ago) == (0, 38)
    now += MINUTES * 60 - 10
    assert len(history.points()) == 6


def test_the_lag_of_a_point_is_the_maximum_since_the_previous_one(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, now, lags = IdleWorker(), 1000.0, iter([None, 5.0, 1.0, 2.0, 3.0, None, None, None])
    monkeypatch.setattr(watched.status.counters, "_monotonic", lambda: now)
    monkeypatch.setattr("slurp.monitoring.worker_status.WorkerStatus.lag", property(lambda self: next(lags)))
    history = History(watched.status, lambda: now)
    for _ in range(8):
        history.step()
        now += INTERVAL / 2
    assert [point.lag for point in history.points()] == [5.0, 3.0, None]


def test_a_line_is_interrupted_at_unknown_values() -> None:
    found = chart([40, 30, 20, 10, 0], [[None, 1, 2, None, 3]], 40, 1)
    assert found.top == 5
    assert found.lines == ("M150.0,80.0L300.0,60.0",)
    assert chart([], [[]], 40, 1).lines == ("",)


@pytest.mark.parametrize(
    ("value", "top"), [(0.3, 0.5), (1, 1), (1.1, 2), (2.2, 2.5), (410, 500), (5001, 10_000)]
)
def test_scales_end_at_round_numbers(value: float, top: float) -> None:
    assert round_up(value) == pytest.approx(top)


def test_the_static_files_have_their_types() -> None:
    found = static_files()
    assert {path: answer.content_type.split(";")[0] for path, answer in found.items()} == {
        "/page.css": "text/css",
        "/page.js": "text/javascript",
        "/icon.svg": "image/svg+xml",
    }
    assert b"prefers-color-scheme: dark" in found["/page.css"].body


@pytest.mark.parametrize(
    "changed",
    [
        {"event": None},
        {"event": [{"ingested": 7}]},
        {"event": {"ingested": 7}},
        {"media": None},
        {"media": [{"kinds": ["image"]}]},
        {"reply": {"parent": [{"uri": "at://x/y/z"}]}},
        {"did": ["did:plc:a", "did:plc:b"], "text": ["one", "two"], "langs": 7, "tags": 7, "links": 7},
    ],
)
def test_a_document_that_an_ingest_pipeline_has_changed_does_not_break_the_page(
    page: RenderedPage, indexer: InProcess, es: Elasticsearch, changed: dict[str, object]
) -> None:
    fill(indexer, es, post(1, "a rare word"))
    [hit] = es.search(index=f"{indexer.index}-*", query={"match": {"text": "rare"}})["hits"]["hits"]
    es.index(index=indexer.today, document={**hit["_source"], "text": "another rare word", **changed})
    es.index(index=ACTORS_INDEX, document={"did": ["did:plc:a", "did:plc:b"]}, refresh=True)
    es.indices.refresh(index=f"{indexer.index}-*")
    for text in (page.html(), page.html(q="rare")):
        assert "a rare word" in text
