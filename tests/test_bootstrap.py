"""A server that was set up just now announces all records as new: they are marked, live creates never are."""

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
from slurp.jetstream.bootstrap import BootstrapDetector, mark
from slurp.kibana.objects import scope
from slurp.kibana.panels import View
from slurp.simulator import wire_v2
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions
from slurp.web.queries import Overview
from tests.bootstrapping import DAY_US, announced
from tests.conftest import SHARED
from tests.harness import InProcess, commit
from tests.shown import Shown, fill
from tests.watched import Watched
from tests.worker import Worker, documents, expected

NOW_US = 1_795_000_000_000_000
ARCHIVE = SHARED / "archive" / "frames.jsonl.gz"
# Up to this sequence number the archive's rows are a bootstrap.
ARCHIVE_BOOTSTRAP = 4396

Frames = list[bytes]


def numbered(events: Iterable[dict[str, Any]], first: int = 1) -> Frames:
    return [orjson.dumps(event | {"cursor": number}) for number, event in enumerate(events, first)]


def live(count: int, **options: Any) -> Frames:
    simulator = Simulator(port=0, **{"seed": 1, "clock": lambda: NOW_US / 1e6, **options})
    return simulator.generate(count, span=600).frames


def as_v2(frames: Frames) -> Frames:
    return [wire_v2.frame(event, event["cursor"]) for event in map(orjson.loads, frames)]


def generated(wire: str) -> tuple[Frames, Frames]:
    """A bootstrap of about 5,500 rows, and the live events after it."""
    before = numbered(announced(300, NOW_US))
    after = [orjson.dumps(orjson.loads(f) | {"cursor": 10_000 + n}) for n, f in enumerate(live(5000))]
    return (as_v2(before), as_v2(after)) if wire == "v2" else (before, after)


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
    """The cursors of the creates that are marked when `frames` come in batches of `size`."""
    detector = detector or BootstrapDetector()
    found = set()
    for begin in range(0, len(frames), size):
        batch = frames[begin : begin + size]
        shared = detector.look_through(batch, "h")
        for frame in batch:
            event = parse(frame)
            if shared is not None:
                mark(event, shared)
            if event.get("commit", {}).get("bootstrap"):
                found.add(event["cursor"])
    return found


def cursors(frames: Iterable[bytes]) -> set[int]:
    return {parse(frame)["cursor"] for frame in frames}


@pytest.mark.parametrize("size", [37, 500, 2000])
@pytest.mark.parametrize("source", SOURCES)
def test_rows_of_a_bootstrap_are_marked_and_live_creates_are_not(
    source: Callable[[], tuple[Frames, Frames]], size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before, after = source()
    found = marked(before + after, size)
    late = cursors(before[2500:])
    assert len(found & late) > 0.85 * len(late)
    # The rules for single rows are wrong for one live create in ten, in the batch in which it ends.
    assert len(found & cursors(after)) <= 10 + size // 10
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "INFO"], "once each"
    assert "h was set up recently and announces existing records" in told[0][1]
    assert "h no longer announces existing records" in told[1][1]


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
                pytest.param(lambda: recorded()[1] * 3, id="archive, again and again"),
            ]
            if ARCHIVE.is_file()
            else []
        ),
    ],
)
def test_a_live_stream_is_no_bootstrap(frames: Callable[[], Frames]) -> None:
    for size in (200, 2000):
        assert not marked(frames(), size)


def test_a_server_that_catches_up_after_days_is_no_bootstrap() -> None:
    """All revs are old, but deletes and account events come as well."""
    late = [orjson.loads(frame) for frame in live(30_000)]
    for event in late:
        event["time_us"] += 3 * DAY_US
    assert not marked([orjson.dumps(event) for event in late])


def test_one_account_that_imports_its_records_is_no_bootstrap() -> None:
    """Nor are a few, whose rkeys are of long ago."""
    for accounts in (1, 4):
        assert not marked(numbered(announced(accounts, NOW_US, rows=(5000, 5000))))


def test_resyncs_are_no_bootstrap() -> None:
    frames = numbered(announced(300, NOW_US))
    known = {(event["did"], event["commit"]["rev"]): 0 for event in map(parse, frames)}
    detector = BootstrapDetector()
    for begin in range(0, len(frames), 500):
        assert detector.look_through(frames[begin : begin + 500], "h", known) is None


def test_another_host_is_judged_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    detector, frames = BootstrapDetector(), numbered(announced(300, NOW_US))
    assert marked(frames, detector=detector)
    assert detector.look_through(live(500), "another") is None
    assert caplog.records[-1].getMessage().startswith("h no longer announces")


def test_it_costs_little_where_nothing_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def counted(frame: bytes) -> dict[str, Any]:
        parsed.append(frame)
        return parse(frame)

    monkeypatch.setattr("slurp.jetstream.bootstrap.parse", counted)
    marked(live(16_000), size=123)
    assert len(parsed) == 1000


def test_garbage_does_not_matter() -> None:
    garbage = [b"", b"\xff", b"null", b'{"did":7}', b"[]"]
    frames = numbered(announced(300, NOW_US))
    for place in range(0, len(frames), 10):
        frames[place] = garbage[place % len(garbage)]
    detector = BootstrapDetector()
    held = [detector.look_through(frames[n : n + 500], "h") is not None for n in range(0, len(frames), 500)]
    assert held[-1]


@pytest.mark.parametrize(
    ("rev", "rkey", "is_marked"),
    [
        pytest.param(-3600, "self", False, id="recent"),
        pytest.param(-25 * 3600, "self", True, id="old rev"),
        pytest.param(-3600, -24 * 3600, False, id="rkey of the day before"),
        pytest.param(-3600, -26 * 3600, True, id="rkey older than the rev"),
        pytest.param(-3600, -NOW_US // 1_000_000, False, id="rkey of 1970 is no time"),
    ],
)
def test_a_single_create(rev: int, rkey: int | str, is_marked: bool) -> None:
    name = rkey if isinstance(rkey, str) else tid.from_micros(NOW_US + rkey * 1_000_000)
    event: dict[str, Any] = {
        "did": "did:plc:a",
        "time_us": NOW_US,
        "kind": "commit",
        "commit": {"rev": tid.from_micros(NOW_US + rev * 1_000_000), "operation": "create", "rkey": name},
    }
    mark(event, frozenset())
    assert bool(event["commit"].get("bootstrap")) is is_marked
    mark(event, frozenset({("did:plc:a", event["commit"]["rev"])}))
    assert event["commit"]["bootstrap"] is True, "many share its rev"
    for change in ({"operation": "delete"}, {"resync": True}):
        other = event | {"commit": {**event["commit"], **change, "bootstrap": None}}
        mark(other, frozenset())
        assert not other["commit"]["bootstrap"]


# Real parts


@pytest.mark.parametrize("wire", ["v1", "v2"])
def test_a_bootstrap_is_indexed_and_not_counted(
    es_node: EmbeddedNode,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    wire: str,
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
    more = ("--since", "0", "--catch-up", "--batch", "500", "--protocol", wire)
    with Worker(*options, *more, home=tmp_path) as worker:
        assert worker.exit_code() == 0
        assert worker.log.count("announces existing records") == 2, "where it begins and where it ends"
    found = documents(es, fresh_index_prefix)
    assert found.keys() == expected(jetstream.frames).keys(), "each is stored"
    kept = {doc_id for doc_id, source in found.items() if source.get("commit", {}).get("bootstrap")}
    assert len(kept) > 0.5 * len(rows)
    assert len(kept - rows) <= 60
    query = scope(View.EVENTS, fresh_index_prefix).query
    assert es.count(index=f"{fresh_index_prefix}-*", query=query)["count"] == len(found) - len(kept)


def test_the_short_way_marks_as_well(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str, jetstream: Simulator
) -> None:
    """Three events of four take it, and have no mark there."""
    jetstream.generate(100, span=1)
    (like, *_) = [
        event
        for event in map(orjson.loads, jetstream.frames)
        if event.get("commit", {}).get("collection") == "app.bsky.feed.like"
        and event["commit"]["operation"] == "create"
    ]
    shared = frozenset({(like["did"], like["commit"]["rev"])})
    frame = orjson.dumps(like)
    assert FastPath().make(frame, "h", 0) is not None
    indexer.feed([frame], bootstrap=shared)
    (document,) = documents(es, fresh_index_prefix).values()
    assert document["commit"]["bootstrap"] is True


def test_the_lag_is_that_of_the_server_meanwhile(indexer: InProcess) -> None:
    """A rev is when the repository last changed, up to a day ago."""
    events = announced(50, int(time.time() * 1e6))
    indexer.feed(numbered(events), bootstrap=frozenset())
    newest_us = indexer.counters.snapshot().newest_us
    assert newest_us is not None
    assert abs(newest_us / 1e6 - time.time()) < 60


def test_the_page_leaves_it_out(
    es_node: EmbeddedNode, indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    watched = Watched(es_node.url, "ws://jetstream.example")
    watched.reads()
    watched.probe.step()
    shown = Shown(watched, fresh_index_prefix)
    old = commit(1, {"$type": "app.bsky.feed.post", "text": "an old post"}, rkey="3k2aaaaaaaaaa")
    indexer.feed([old], bootstrap=frozenset())
    fill(indexer, es, commit(2, {"$type": "app.bsky.feed.post", "text": "a new post"}))
    overview = shown.questions.overview()
    assert isinstance(overview, Overview)
    page = shown.read()
    assert "a new post" in page.text
    assert "an old post" not in page.text
