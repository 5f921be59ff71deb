"""Records that a newly set up server announces are marked; creates of live streams are not."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.documents.fast_path import FastPath
from slurp.embedded.node import EmbeddedNode
from slurp.events import tid
from slurp.events.frames import parse
from slurp.jetstream.bootstrap import BootstrapDetector, mark_bootstrap
from slurp.kibana.objects import scope
from slurp.kibana.panels import ACTIVITY, View
from slurp.simulator import protocol_v2
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions
from slurp.web.queries import Overview
from tests.bootstrapping import DAY_US, announced
from tests.conftest import SHARED
from tests.harness import InProcess, commit
from tests.idle_worker import IdleWorker
from tests.rendered_page import RenderedPage, fill
from tests.tiers import slow_except
from tests.worker import Worker, documents, expected

NOW_US = 1_795_000_000_000_000
ARCHIVE = SHARED / "archive" / "frames.jsonl.gz"
# The archive's events up to this sequence number are a bootstrap.
ARCHIVE_BOOTSTRAP = 4396

Frames = list[bytes]


def numbered(events: Iterable[dict[str, Any]], first: int = 1) -> Frames:
    return [orjson.dumps(event | {"cursor": number}) for number, event in enumerate(events, first)]


def live(count: int, **options: Any) -> Frames:
    simulator = Simulator(port=0, **{"seed": 1, "clock": lambda: NOW_US / 1e6, **options})
    return simulator.generate(count, span=600).frames


def as_v2(frames: Frames) -> Frames:
    return [protocol_v2.frame(event, event["cursor"]) for event in map(orjson.loads, frames)]


def generated(protocol: str) -> tuple[Frames, Frames]:
    """Return a bootstrap of about 5,500 creates, and the live events after it."""
    before = numbered(announced(300, NOW_US))
    after = [orjson.dumps(orjson.loads(f) | {"cursor": 10_000 + n}) for n, f in enumerate(live(5000))]
    return (as_v2(before), as_v2(after)) if protocol == "v2" else (before, after)


def recorded() -> tuple[Frames, Frames]:
    frames = gzip.decompress(ARCHIVE.read_bytes()).splitlines()
    return (
        [frame for frame in frames if parse(frame)["cursor"] <= ARCHIVE_BOOTSTRAP],
        [frame for frame in frames if parse(frame)["cursor"] > ARCHIVE_BOOTSTRAP],
    )


SOURCES = [
    pytest.param(lambda: generated("v1"), id="v1"),
    pytest.param(lambda: generated("v2"), id="v2"),
    *([pytest.param(recorded, id="archive")] if ARCHIVE.is_file() else []),
]


def marked(frames: Sequence[bytes], size: int = 500, detector: BootstrapDetector | None = None) -> set[int]:
    """Return the cursors of the creates that are marked if `frames` arrive in batches of `size`."""
    detector = detector or BootstrapDetector()
    found = set()
    for begin in range(0, len(frames), size):
        batch = frames[begin : begin + size]
        shared = detector.observe(batch, "h")
        for frame in batch:
            event = parse(frame)
            if shared is not None:
                mark_bootstrap(event, shared)
            if event.get("commit", {}).get("bootstrap"):
                found.add(event["cursor"])
    return found


def cursors(frames: Iterable[bytes]) -> set[int]:
    return {parse(frame)["cursor"] for frame in frames}


@pytest.mark.parametrize("size", [37, 500, 2000])
@pytest.mark.parametrize("source", SOURCES)
def test_creates_of_a_bootstrap_are_marked_and_live_creates_are_not(
    source: Callable[[], tuple[Frames, Frames]], size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before, after = source()
    found = marked(before + after, size)
    late = cursors(before[2500:])
    assert len(found & late) > 0.85 * len(late)
    # In the batch in which the bootstrap ends, the rules are wrong for one live create in ten.
    assert len(found & cursors(after)) <= 10 + size // 10
    logged = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in logged] == ["WARNING", "INFO"], "logged once each"
    assert "h was set up recently and announces existing records" in logged[0][1]
    assert "h no longer announces existing records" in logged[1][1]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(lambda: live(30_000), id="live"),
        pytest.param(lambda: live(30_000, seed=2, network=NetworkOptions(odd_revs=0.2)), id="odd revs"),
        pytest.param(
            lambda: live(30_000, seed=3, network=NetworkOptions(backdated=0.9)), id="imported times"
        ),
        *(
            [
                pytest.param(lambda: recorded()[1], id="archive"),
                pytest.param(lambda: recorded()[1] * 3, id="archive, three times"),
            ]
            if ARCHIVE.is_file()
            else []
        ),
    ],
)
def test_a_live_stream_is_not_a_bootstrap(frames: Callable[[], Frames]) -> None:
    for size in (200, 2000):
        assert not marked(frames(), size)


def test_a_server_that_catches_up_after_days_is_not_a_bootstrap() -> None:
    """All revs are old, but there are deletes and account events."""
    late = [orjson.loads(frame) for frame in live(30_000)]
    for event in late:
        event["time_us"] += 3 * DAY_US
    assert not marked([orjson.dumps(event) for event in late])


def test_imports_of_up_to_four_accounts_are_not_a_bootstrap() -> None:
    for accounts in (1, 4):
        assert not marked(numbered(announced(accounts, NOW_US, rows=(5000, 5000))))


def test_resyncs_are_not_a_bootstrap() -> None:
    frames = numbered(announced(300, NOW_US))
    known = {(event["did"], event["commit"]["rev"]): 0 for event in map(parse, frames)}
    detector = BootstrapDetector()
    for begin in range(0, len(frames), 500):
        assert detector.observe(frames[begin : begin + 500], "h", known) is None


def test_another_host_is_judged_independently(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    detector, frames = BootstrapDetector(), numbered(announced(300, NOW_US))
    assert marked(frames, detector=detector)
    assert detector.observe(live(500), "another") is None
    assert caplog.records[-1].getMessage().startswith("h no longer announces")


def test_one_event_in_sixteen_is_parsed_outside_a_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def counted(frame: bytes) -> dict[str, Any]:
        parsed.append(frame)
        return parse(frame)

    monkeypatch.setattr("slurp.jetstream.bootstrap.parse", counted)
    marked(live(16_000), size=123)
    assert len(parsed) == 1000


def test_invalid_frames_do_not_prevent_detection() -> None:
    garbage = [b"", b"\xff", b"null", b'{"did":7}', b"[]"]
    frames = numbered(announced(300, NOW_US))
    for index in range(0, len(frames), 10):
        frames[index] = garbage[index % len(garbage)]
    detector = BootstrapDetector()
    active = [detector.observe(frames[n : n + 500], "h") is not None for n in range(0, len(frames), 500)]
    assert active[-1]


@pytest.mark.parametrize(
    ("rev", "rkey", "is_marked"),
    [
        pytest.param(-3600, "self", False, id="recent"),
        pytest.param(-25 * 3600, "self", True, id="old rev"),
        pytest.param(-3600, -24 * 3600, False, id="rkey of the previous day"),
        pytest.param(-3600, -26 * 3600, True, id="rkey older than the rev"),
        pytest.param(-3600, -NOW_US // 1_000_000, False, id="rkey of 1970 is not a TID"),
    ],
)
def test_a_create_is_marked_if_its_rev_or_rkey_is_old(rev: int, rkey: int | str, is_marked: bool) -> None:
    name = rkey if isinstance(rkey, str) else tid.from_micros(NOW_US + rkey * 1_000_000)
    event: dict[str, Any] = {
        "did": "did:plc:a",
        "time_us": NOW_US,
        "kind": "commit",
        "commit": {"rev": tid.from_micros(NOW_US + rev * 1_000_000), "operation": "create", "rkey": name},
    }
    mark_bootstrap(event, frozenset())
    assert bool(event["commit"].get("bootstrap")) is is_marked
    mark_bootstrap(event, frozenset({("did:plc:a", event["commit"]["rev"])}))
    assert event["commit"]["bootstrap"] is True, "its rev is shared"
    for change in ({"operation": "delete"}, {"resync": True}):
        other = event | {"commit": {**event["commit"], **change, "bootstrap": None}}
        mark_bootstrap(other, frozenset())
        assert not other["commit"]["bootstrap"]


# Against a node


@pytest.mark.parametrize("protocol", slow_except(["v1", "v2"], "v2"))
def test_a_bootstrap_is_indexed_and_excluded_from_the_dashboards(
    es_node: EmbeddedNode,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    protocol: str,
) -> None:
    jetstream.publish(announced(250, int(time.time() * 1e6)))
    rows = expected(jetstream.frames).keys()
    jetstream.generate(2000, span=1)
    options = (
        "--jetstream",
        jetstream.url,
        "--es",
        es_node.url,
        "--index",
        fresh_index_prefix,
        "--no-kibana",
    )
    more = ("--since", "0", "--catch-up", "--batch", "500", "--protocol", protocol)
    with Worker(*options, *more, home=tmp_path) as worker:
        assert worker.exit_code() == 0
        assert worker.log.count("announces existing records") == 2, "at its beginning and at its end"
    found = documents(es, fresh_index_prefix)
    assert found.keys() == expected(jetstream.frames).keys(), "all are stored"
    kept = {doc_id for doc_id, source in found.items() if source.get("commit", {}).get("bootstrap")}
    assert len(kept) > 0.5 * len(rows)
    assert len(kept - rows) <= 60
    query = scope(View.EVENTS, ACTIVITY, fresh_index_prefix).query
    assert es.count(index=f"{fresh_index_prefix}-*", query=query)["count"] == len(found) - len(kept)


def test_events_of_the_fast_path_are_marked_as_well(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str, jetstream: Simulator
) -> None:
    """The fast path itself does not mark events; three of four events use it."""
    jetstream.generate(100, span=1)
    (like, *_) = [
        event
        for event in map(orjson.loads, jetstream.frames)
        if event.get("commit", {}).get("collection") == "app.bsky.feed.like"
        and event["commit"]["operation"] == "create"
    ]
    shared = frozenset({(like["did"], like["commit"]["rev"])})
    frame = orjson.dumps(like)
    assert FastPath().render(frame, "h", 0) is not None
    indexer.feed([frame], bootstrap=shared)
    (document,) = documents(es, fresh_index_prefix).values()
    assert document["commit"]["bootstrap"] is True


def test_the_lag_during_a_bootstrap_follows_the_servers_time(indexer: InProcess) -> None:
    """The revs, the times of the last change of a repository, are up to a day old."""
    events = announced(50, int(time.time() * 1e6))
    indexer.feed(numbered(events), bootstrap=frozenset())
    newest_us = indexer.counters.snapshot().newest_us
    assert newest_us is not None
    assert abs(newest_us / 1e6 - time.time()) < 60


def test_the_page_excludes_a_bootstrap(
    es_node: EmbeddedNode, indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    watched = IdleWorker(es_node.url, "ws://jetstream.example")
    watched.finish_startup()
    watched.probe.step()
    page = RenderedPage(watched, fresh_index_prefix)
    old = commit(1, {"$type": "app.bsky.feed.post", "text": "an old post"}, rkey="3k2aaaaaaaaaa")
    indexer.feed([old], bootstrap=frozenset())
    fill(indexer, es, commit(2, {"$type": "app.bsky.feed.post", "text": "a new post"}))
    overview = page.queries.overview()
    assert isinstance(overview, Overview)
    text = page.parsed().text
    assert "a new post" in text
    assert "an old post" not in text
