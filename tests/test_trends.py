"""Trends on a real node: what is counted, late events, deletions, and who computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.actors.appview import Post
from slurp.actors.names import Name
from slurp.deletions.versions import RatePause, Versions
from slurp.elastic.trend_rows import TrendRows
from slurp.embedded.node import EmbeddedNode
from slurp.events import tid
from slurp.events.times import isoformat
from slurp.simulator.jetstream import Simulator
from slurp.trends.__main__ import main as command
from slurp.trends.computing import Trends
from slurp.trends.intervals import HOUR_US, Interval
from slurp.trends.task import TrendsTask
from tests.deleting_network import DID, OTHER, Network, deleting, settle
from tests.harness import InProcess, until
from tests.worker import Worker

pytestmark = pytest.mark.usefixtures("restored_root_logger")

TRENDS = "skeetslurper-trends"
LIKE, REPOST, FOLLOW = "app.bsky.feed.like", "app.bsky.feed.repost", "app.bsky.graph.follow"
POST = "app.bsky.feed.post"


class KnownNames:
    """Names and posts that an AppView knows."""

    def __init__(self) -> None:
        self.known = {DID: Name("alice.example", "Alice"), OTHER: Name("bob.example", None)}
        self.texts: dict[str, Post] = {}

    def names(self, dids: Iterable[str]) -> Mapping[str, Name]:
        return {did: self.known[did] for did in dids if did in self.known}

    def posts(self, uris: Iterable[str]) -> Mapping[str, Post]:
        return {uri: self.texts[uri] for uri in uris if uri in self.texts}


class Clocks:
    """Unix time, and the monotonic clock, of a task."""

    def __init__(self, now_us: int) -> None:
        self.now = now_us / 1e6
        self.monotonic = 1.0


class Trial:
    """The task on the index of a test."""

    def __init__(self, indexer: InProcess, newest_us: int) -> None:
        self.newest_us = newest_us
        self.clocks = Clocks(newest_us)
        self.names = KnownNames()
        self._indexer = indexer
        self.task = self.another()

    def another(self) -> TrendsTask:
        """Return the task of another worker."""
        elastic, index = self._indexer.elastic, self._indexer.index
        versions = Versions(elastic, index, RatePause(100_000, self._indexer.shutdown.stop))
        return TrendsTask(
            elastic,
            index,
            Trends(elastic, index, versions, self.names),
            lambda: self.newest_us,
            clock=lambda: self.clocks.now,
            monotonic=lambda: self.clocks.monotonic,
        )

    def step(self, seconds: float = 301.0) -> bool:
        """Let time pass, then compute what is due."""
        self.clocks.now += seconds
        self.clocks.monotonic += seconds
        client = self._indexer.elastic.client
        client.indices.refresh(index=f"{self._indexer.index}-*")
        return self.task.step()

    def rows(self, measure: str, interval: str = "hour") -> list[dict[str, Any]]:
        """Return the rows of a list in the order of their ranks, those of later hours last."""
        client = self._indexer.elastic.client
        client.indices.refresh(index=TRENDS)
        conditions = {"index": self._indexer.index, "measure": measure, "interval": interval}
        hits = client.search(
            index=TRENDS,
            query={"bool": {"filter": [{"term": {name: value}} for name, value in conditions.items()]}},
            sort=["@timestamp", "rank"],
            size=1000,
        )["hits"]["hits"]
        return [hit["_source"] for hit in hits]

    def counts(self, measure: str, interval: str = "hour") -> dict[str, int]:
        """Return the counts of all rows of a list by key."""
        found: Counter[str] = Counter()
        for row in self.rows(measure, interval):
            found[row["key"]] += row["count"]
        return dict(found)


@pytest.fixture
def network() -> Network:
    # In the middle of an hour, so that a few minutes are in the same one.
    network = Network()
    network.now_us -= network.now_us % HOUR_US + HOUR_US // 2
    return network


@pytest.fixture
def trial(indexer: InProcess, network: Network) -> Trial:
    return Trial(indexer, network.now_us)


def record(network: Network, collection: str, did: str, **values: Any) -> bytes:
    """Return the frame of a new record."""
    event = orjson.loads(network.commit("create", did=did))
    commit = event["commit"]
    commit |= {"collection": collection, "rkey": tid.from_micros(network.now_us)}
    commit["record"] = {"$type": collection, "createdAt": "2026-11-28T00:00:00Z", **values}
    return orjson.dumps(event)


def uri_of(frame: bytes) -> str:
    event = orjson.loads(frame)
    return f"at://{event['did']}/{event['commit']['collection']}/{event['commit']['rkey']}"


def like(network: Network, did: str, uri: str, collection: str = LIKE) -> bytes:
    return record(network, collection, did, subject={"uri": uri, "cid": "bafyrei"})


def person(number: int) -> str:
    return f"did:plc:{number:024}"


def test_lists_have_texts_names_links_and_ranks(indexer: InProcess, network: Network, trial: Trial) -> None:
    first = record(network, POST, DID, text="Hello\n  world" + "!" * 400, langs=["en"])
    second = record(network, POST, OTHER, text="second #Cats", langs=["pt-BR"])
    frames = [first, second, *(like(network, person(number), uri_of(first)) for number in range(3))]
    frames += [like(network, DID, uri_of(second)), like(network, person(1), uri_of(first), REPOST)]
    frames += [record(network, FOLLOW, person(number), subject=OTHER) for number in range(2)]
    indexer.feed(frames)
    assert trial.step()
    liked = trial.rows("posts_by_likes")
    assert [(row["key"], row["count"], row["rank"]) for row in liked] == [
        (uri_of(first), 3, 1),
        (uri_of(second), 1, 2),
    ]
    assert liked[0]["text"].startswith("Hello world!!!") and len(liked[0]["text"]) == 300
    assert liked[0]["handle"] == "alice.example" and liked[0]["display_name"] == "Alice"
    assert liked[0]["url"] == f"https://bsky.app/profile/{DID}/post/{uri_of(first).rsplit('/', 1)[1]}"
    assert liked[1]["handle"] == "bob.example" and "display_name" not in liked[1]
    assert trial.counts("posts_by_reposts") == {uri_of(first): 1}
    assert trial.counts("people_by_likes") == {DID: 3, OTHER: 1}
    assert [(row["did"], row["handle"]) for row in trial.rows("people_by_followers")] == [
        (OTHER, "bob.example")
    ]
    assert trial.counts("people_by_posts") == {DID: 1, OTHER: 1}
    assert trial.counts("languages") == {"en": 1, "pt": 1}
    totals = trial.counts("totals")
    assert totals["events"] == 9 and totals["posts"] == 2 and totals["likes"] == 4
    assert totals["authors"] == 2 and totals["active_people"] == 5
    assert trial.counts("collections")[f"{LIKE} create"] == 4
    assert trial.counts("posts_by_likes", "day") == trial.counts("posts_by_likes")


def test_a_post_that_is_not_stored_has_its_text_from_the_appview(
    indexer: InProcess, network: Network, trial: Trial
) -> None:
    old = f"at://{DID}/{POST}/3aaaaaaaaaaaa"
    trial.names.texts[old] = Post(old, "long ago", ("porn",))
    indexer.feed([like(network, OTHER, old)])
    trial.step()
    [row] = trial.rows("posts_by_likes")
    assert (row["text"], row["labels"]) == ("long ago", ["porn"])


def test_lists_by_people_count_accounts(indexer: InProcess, network: Network, trial: Trial) -> None:
    def post(did: str, tag: str) -> bytes:
        return record(network, POST, did, text="x", tags=[tag])

    indexer.feed(
        [*(post(DID, "Spam") for _ in range(9)), *(post(person(number), "cats") for number in range(3))]
    )
    trial.step()
    rows = trial.rows("tags")
    assert [(row["key"], row["people"], row["count"]) for row in rows] == [("cats", 3, 3), ("spam", 1, 9)]


def test_applications_are_grouped_by_the_owner_of_their_names(
    indexer: InProcess, network: Network, trial: Trial
) -> None:
    names = ["sh.tangled.repo", "sh.tangled.feed.star", "fm.teal.alpha.feed.play"]
    indexer.feed([record(network, name, person(number)) for number in range(2) for name in names])
    trial.step()
    assert {row["key"]: (row["people"], row["count"]) for row in trial.rows("apps")} == {
        "tangled.sh": (2, 4),
        "teal.fm": (2, 2),
    }


def test_late_events_of_a_past_hour_are_counted(indexer: InProcess, network: Network, trial: Trial) -> None:
    post = record(network, POST, DID, text="x")
    indexer.feed([post, *(like(network, person(number), uri_of(post)) for number in range(3))])
    trial.step()
    assert trial.counts("posts_by_likes") == {uri_of(post): 3}
    late = [like(network, person(number), uri_of(post)) for number in range(3, 5)]
    trial.newest_us += 5 * HOUR_US
    trial.step()
    indexer.feed(late)
    trial.step()
    assert trial.counts("posts_by_likes") == {uri_of(post): 5}
    trial.step(3700)
    assert trial.counts("posts_by_likes", "day") == {uri_of(post): 5}


def test_nothing_is_computed_without_new_events(indexer: InProcess, network: Network, trial: Trial) -> None:
    indexer.feed([record(network, POST, DID, text="x")])
    trial.step()
    [before] = trial.rows("people_by_posts")
    trial.step()
    trial.step(4000)
    [after] = trial.rows("people_by_posts")
    assert after == before


def test_values_that_left_a_list_are_removed(indexer: InProcess, network: Network, trial: Trial) -> None:
    posts = [record(network, POST, DID, text=str(number)) for number in range(101)]
    likes = [like(network, OTHER, uri_of(post)) for post in posts[:100]]
    indexer.feed([*posts, *likes])
    trial.step()
    assert len(trial.rows("posts_by_likes")) == 100
    indexer.feed([like(network, person(number), uri_of(posts[100])) for number in range(2)])
    trial.step()
    rows = trial.rows("posts_by_likes")
    assert len(rows) == 100 and rows[0]["key"] == uri_of(posts[100])
    assert {row["rank"] for row in rows} == set(range(1, 101))


def test_a_day_that_is_deleted_leaves_its_trends(
    indexer: InProcess, es: Elasticsearch, network: Network, trial: Trial
) -> None:
    post = record(network, POST, DID, text="x")
    indexer.feed([post, like(network, OTHER, uri_of(post))])
    trial.step()
    es.indices.delete(index=",".join(es.indices.get(index=f"{indexer.index}-*")))
    trial.step()
    hour = Interval.hour_of(network.now_us)
    trial.step(1000)
    assert trial.task.rebuild(hour.start_us, hour.end_us) == 0
    assert trial.counts("posts_by_likes") == trial.counts("posts_by_likes", "day") == {uri_of(post): 1}


def test_one_worker_computes_at_a_time(indexer: InProcess, network: Network, trial: Trial) -> None:
    indexer.feed([record(network, POST, DID, text="x")])
    other = trial.another()
    assert trial.task._lease.acquire() is not None
    assert other.step() is False
    assert trial.rows("people_by_posts") == []
    # The first one was killed; its lease ends.
    trial.clocks.now += 301
    trial.clocks.monotonic += 301
    indexer.elastic.client.indices.refresh(index=f"{indexer.index}-*")
    assert other.step() is True
    assert len(trial.rows("people_by_posts")) == 1


def test_a_rebuild_computes_past_hours_again(
    indexer: InProcess, es: Elasticsearch, network: Network, trial: Trial, capfd: pytest.CaptureFixture[str]
) -> None:
    network.now_us -= 3 * HOUR_US
    post = record(network, POST, DID, text="x")
    indexer.feed([post, like(network, OTHER, uri_of(post))])
    es.indices.refresh(index=f"{indexer.index}-*")
    start = isoformat(network.now_us)[:13]
    options = ["--es", indexer.config.es[0], "--index", indexer.index, "--appview", "off"]
    for _ in range(2):
        assert command(["rebuild", "--from", start, *options]) == 0
        log = capfd.readouterr().err
        assert "hours and days were computed" in log
        assert trial.counts("posts_by_likes") == {uri_of(post): 1}
        assert trial.counts("posts_by_likes", "day") == {uri_of(post): 1}
    # A worker goes on where the command has ended.
    assert trial.task._lease.acquire() is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rebuild"], "the following arguments are required: --from"),
        (["rebuild", "--from", "yesterday"], "--from: not a time: 'yesterday' (use 2026-11-01"),
        (["rebuild", "--from", "2026-11-02", "--to", "2026-11-01"], "--from must be before --to"),
        (["build", "--from", "2026-11-02"], "invalid choice: 'build'"),
    ],
)
def test_wrong_usage_of_the_command(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        command(arguments)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


def test_a_deleted_post_leaves_exactly_the_rows_that_show_it(
    indexer: InProcess, network: Network, trial: Trial
) -> None:
    gone, kept = (record(network, POST, DID, text=text) for text in ("gone", "kept"))
    replies = [
        record(
            network,
            POST,
            OTHER,
            text="re",
            reply={"root": {"uri": uri_of(gone)}, "parent": {"uri": uri_of(gone)}},
        )
    ]
    frames = [gone, kept, *replies, like(network, OTHER, uri_of(gone)), like(network, OTHER, uri_of(kept))]
    indexer.feed(frames)
    trial.step()
    before = all_rows(indexer)
    indexer.feed([deletion_of(network, gone)])
    settle(indexer)
    after = all_rows(indexer)
    assert after == [row for row in before if row.get("uri") != uri_of(gone)]
    assert len(after) == len(before) - 4  # likes and replies, of the hour and of the day
    assert "gone" not in str(after)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_deletion_while_an_hour_is_computed_removes_the_row(
    indexer: InProcess, network: Network, trial: Trial, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, author = record(network, POST, DID, text="gone"), record(network, POST, OTHER, text="taken down")
    indexer.feed(
        [gone, author, like(network, person(1), uri_of(gone)), like(network, person(1), uri_of(author))]
    )
    real = TrendRows.write

    def write(self: TrendRows, rows: Sequence[Mapping[str, Any]], generation: int) -> None:
        if moment == "after":
            real(self, rows, generation)
        monkeypatch.setattr(TrendRows, "write", real)
        indexer.feed([deletion_of(network, gone), network.account(False, "takendown", OTHER)])
        settle(indexer)
        if moment == "before":
            real(self, rows, generation)

    monkeypatch.setattr(TrendRows, "write", write)
    trial.step()
    assert "gone" not in str(all_rows(indexer))
    rows = trial.rows("posts_by_likes")
    assert {row["key"]: row.get("hidden") for row in rows} == {uri_of(author): True}


def test_rows_of_an_account_are_hidden_shown_and_removed(
    indexer: InProcess, network: Network, trial: Trial
) -> None:
    indexer = deleting(indexer, "--deletions-delay", "1h")
    post = record(network, POST, DID, text="mine")
    indexer.feed([post, like(network, OTHER, uri_of(post))])
    trial.step()

    def hidden() -> set[bool]:
        return {row.get("hidden") is True for row in all_rows(indexer) if row.get("did") == DID}

    assert hidden() == {False}
    indexer.read_until_us = network.now_us
    indexer.feed([network.account(False, "deleted")])
    settle(indexer)
    assert hidden() == {True}
    indexer.feed([network.account(True)])
    settle(indexer)
    assert hidden() == {False}
    indexer.feed([network.account(False, "deleted")])
    settle(indexer)
    indexer.read_until_us = network.now_us + 2 * HOUR_US
    settle(indexer)
    assert hidden() == set()
    assert DID not in str(all_rows(indexer))
    indexer.feed([like(network, person(3), uri_of(post))])
    trial.step()
    assert DID not in str(all_rows(indexer))


def deletion_of(network: Network, frame: bytes) -> bytes:
    event = orjson.loads(frame)
    return network.commit("delete", event["commit"]["rkey"], event["did"])


def all_rows(indexer: InProcess) -> list[dict[str, Any]]:
    """Return all rows of an index, in a fixed order."""
    client = indexer.elastic.client
    client.indices.refresh(index=TRENDS)
    hits = client.search(index=TRENDS, query={"term": {"index": indexer.index}}, size=10_000)["hits"]["hits"]
    return [hit["_source"] for hit in sorted(hits, key=lambda hit: str(hit["_id"]))]


@pytest.mark.slow
def test_a_worker_removes_the_rows_of_a_deleted_post_within_two_minutes(
    es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    network = Network()
    posts = [network.commit("create", rkey, text="a unique word") for rkey in ("gone", "kept")]
    gone, kept = map(uri_of, posts)
    likes = [like(network, person(number), uri) for number in range(3) for uri in (gone, kept)]

    def rows() -> set[str]:
        es.indices.refresh(index=TRENDS, ignore_unavailable=True)
        terms = [{"term": {"index": fresh_index_prefix}}, {"term": {"text": "a unique word"}}]
        query = {"bool": {"filter": terms}}
        hits = es.search(index=TRENDS, query=query, size=100, ignore_unavailable=True)["hits"]["hits"]
        return {hit["_source"]["uri"] for hit in hits}

    with (
        Simulator(port=0) as jetstream,
        Worker(
            *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix),
            *("--no-kibana", "--since", "0"),
            home=tmp_path,
        ) as worker,
    ):
        jetstream.publish([*posts, *likes])
        until(lambda: rows() == {gone, kept}, 240)
        jetstream.publish([network.commit("delete", "gone")])
        until(lambda: rows() == {kept}, 120)
        assert worker.stop() == 0
