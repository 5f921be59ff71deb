"""`--redundant`: one reader per host, so that events that one host misses come from another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.config import PUBLIC_HOSTS, parse
from slurp.elastic.client import Elastic
from slurp.embedded.node import EmbeddedNode
from slurp.events.position import REWIND_EVENTS, Gap, Position
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.ack_tracker import BatchAck
from slurp.pipeline.batches import Batch
from slurp.pipeline.gaps import GapRecorder
from slurp.pipeline.progress import BatchOutcome, Counters
from slurp.pipeline.reader import Reader
from slurp.pipeline.reader_group import ReaderGroup
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import Clock
from tests.worker import Worker, assert_each_once, stats_documents

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


def at(cursor: int, seconds: float, host: str = "a") -> Position:
    return Position(host, cursor, NOW + int(seconds * SECOND))


def acknowledge(counters: Counters, reader: int, number: int, position: Position) -> None:
    batch = Batch(number, position.host, [b""] * 10, 0, position, reader=reader)
    counters.received(batch)
    time_us = position.time_us
    counters.acknowledged(
        batch, BatchOutcome(indexed=10), BatchAck(position, time_us, arrived_us=time_us, delays_us=(0,))
    )


# Counters and gaps


def test_each_reader_numbers_its_batches_independently() -> None:
    counters = Counters(2)
    acknowledge(counters, 1, 1, at(10, 1, "a"))
    acknowledge(counters, 2, 1, at(7, 3, "b"))
    acknowledge(counters, 2, 3, at(99, 9, "b"))
    assert [(number, position.cursor) for number, position, *_ in counters.checkpoints()] == [(1, 10), (2, 7)]
    acknowledge(counters, 2, 2, at(50, 5, "b"))
    assert [position.cursor for _, position, *_ in counters.checkpoints()] == [10, 99]
    assert counters.resume(2, at(9900, 9, "b"), host="b").cursor == 9900 + 1 - REWIND_EVENTS
    assert counters.snapshot().received == 40
    assert counters.snapshot().newest_us == NOW + 9 * SECOND


def test_another_reader_covers_a_period_that_it_has_read_without_a_gap() -> None:
    counters = Counters(2)
    counters.begin(1, at(1, 100), 0)
    counters.begin(2, at(1, 0), NOW)
    assert counters.covered_by_another(2, NOW, NOW + 100 * SECOND), (
        "earlier runs have stored all events before its start"
    )
    assert not counters.covered_by_another(2, NOW, NOW + 101 * SECOND)
    acknowledge(counters, 1, 1, at(10, 200))
    assert counters.covered_by_another(2, NOW, NOW + 200 * SECOND)
    counters.incomplete_until(1, NOW + 150 * SECOND)
    assert not counters.covered_by_another(2, NOW, NOW + 200 * SECOND), (
        "the other reader has a gap in this period"
    )
    assert counters.covered_by_another(2, NOW + 150 * SECOND, NOW + 200 * SECOND)
    assert not counters.covered_by_another(1, NOW - 1, NOW), "the other reader started live"


def test_a_batch_covers_the_period_up_to_its_newest_events_and_not_its_median() -> None:
    """After a rewind most events of a batch may be old."""
    counters = Counters(2)
    counters.begin(1, at(1, 0), 0)
    batch = Batch(1, "a", [b""] * 10, 0, at(10, 200), reader=1)
    counters.received(batch)
    ack = BatchAck(batch.position, NOW, arrived_us=NOW + 201 * SECOND, delays_us=(SECOND,) * 9)
    counters.acknowledged(batch, BatchOutcome(indexed=10), ack)
    assert counters.covered_by_another(2, NOW, NOW + 200 * SECOND)
    assert not counters.covered_by_another(2, NOW, NOW + 201 * SECOND)


def fake_reader(number: int, connected: bool = True, away: bool = False, silent: float = 0.0) -> Reader:
    return cast(
        Reader,
        SimpleNamespace(number=number, host=f"h{number}", connected=connected, away=away, silent_for=silent),
    )


def test_the_stats_line_marks_hosts_that_are_not_connected() -> None:
    readers = ReaderGroup([fake_reader(1), fake_reader(2, connected=False)])
    assert readers.host == "h1 + h2 (away)"
    assert readers.connected


def test_a_gap_that_another_host_covers_later_is_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    counters = Counters(2)
    for number in (1, 2):
        counters.begin(number, at(1, 0), 0)
    gaps = GapRecorder(cast(Elastic, FakeClient()), Subscription("ev"), (), counters)
    gap = Gap("b", NOW, NOW + 60 * SECOND)
    gaps.report(2, gap)
    gaps.write()
    assert "gap" not in caplog.text, "the other reader has not reached its end yet"
    acknowledge(counters, 1, 1, at(10, 61))
    gaps.write()
    assert "but another server has them" in caplog.text
    assert counters.snapshot().gaps == 0


def test_a_gap_that_no_other_host_covers_in_time_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters(2)
    for number in (1, 2):
        counters.begin(number, at(1, 0), 0)
    client = FakeClient()
    gaps = GapRecorder(cast(Elastic, client), Subscription("ev"), (), counters, wait_for_others=0.1)
    gaps.report(2, Gap("b", NOW, NOW + 60 * SECOND))
    time.sleep(0.2)
    gaps.write()
    assert "gap: b has no events" in caplog.text
    assert counters.snapshot().gaps == len(client.documents) == 1
    gaps.report(1, Gap("a", NOW, NOW + 60 * SECOND))
    gaps.write(final=True)
    assert counters.snapshot().gaps == len(client.documents) == 2, "the final write does not wait"


class FakeClient:
    """An Elasticsearch client that keeps the indexed documents."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self.indices = SimpleNamespace(get=lambda **_: {})

    @property
    def client(self) -> FakeClient:
        return self

    def options(self, **_: object) -> FakeClient:
        return self

    def index(self, document: Any, **_: object) -> None:
        self.documents.append(document)


@pytest.mark.parametrize(
    "options",
    [
        ("--redundant", "--jetstream", "ws://a"),
        ("--redundant", "--jetstream", "ws://a", "--jetstream", "wss://a"),
    ],
)
def test_two_different_hosts_are_required(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(options, {})
    assert "--redundant requires two or more --jetstream with different hosts" in capsys.readouterr().err
    assert parse(["--redundant", "--jetstream", "ws://a,ws://b"], {}).redundant


def test_the_default_hosts_are_the_two_public_ones_with_v2() -> None:
    assert parse(["--redundant"], {}).jetstream == PUBLIC_HOSTS
    assert len(PUBLIC_HOSTS) == 2


# The real program


Start = Callable[..., Worker]


@pytest.fixture
def start(es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path) -> Start:
    def start_worker(servers: list[str], *options: str) -> Worker:
        return Worker(
            *("--redundant", *(word for url in servers for word in ("--jetstream", url))),
            *("--es", es_node.url, "--index", fresh_index_prefix, "--no-kibana"),
            *("--stats-interval", "1s", "--flush", "200ms"),
            *options,
            home=tmp_path,
        )

    return start_worker


def checkpoints(es: Elasticsearch, index: str) -> dict[str, dict[str, Any]]:
    es.indices.refresh(index="skeetslurper-state")
    query = {"bool": {"filter": [{"term": {"index": index}}, {"term": {"type": "checkpoint"}}]}}
    hits = es.search(index="skeetslurper-state", query=query)["hits"]["hits"]
    return {hit["_source"]["host"]: hit["_source"] for hit in hits}


def host(simulator: Simulator) -> str:
    return simulator.url.removeprefix("ws://")


def publish_some(events: list[bytes], simulator: Simulator, keep: Callable[[int], bool]) -> None:
    """Publish some of the events on another server, with its own sequence numbers."""
    kept = [orjson.loads(frame) for number, frame in enumerate(events) if keep(number)]
    simulator.publish({name: event[name] for name in event if name != "cursor"} for event in kept)


def test_events_that_one_host_misses_come_from_the_other(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    network = jetstream.generate(3000).frames
    with Simulator(port=0) as one, Simulator(port=0) as two:
        publish_some(network, one, lambda number: number % 3 != 0)
        publish_some(network, two, lambda number: number % 7 != 1)
        with start([one.url, two.url], "--since", "0", "--catch-up") as worker:
            assert worker.exit_code() == 0
            counted = worker.counted()
        both = len(one.frames) + len(two.frames)
        only = sum(number % 3 == 0 and number % 7 == 1 for number in range(3000))
        wanted = [frame for number, frame in enumerate(network) if number % 3 or number % 7 != 1]
        assert counted["received"] == both
        assert (counted["indexed"], counted["duplicates"]) == (3000 - only, both - 3000 + only)
        assert_each_once(es, fresh_index_prefix, wanted)
        saved = checkpoints(es, fresh_index_prefix)
        assert {name: one["cursor"] for name, one in saved.items()} == {
            host(one): len(one.frames),
            host(two): len(two.frames),
        }
        assert all(one["clean"] for one in saved.values())
        assert set(stats_documents(es, fresh_index_prefix)[-1]["host"]) == saved.keys()

        # Each reader resumes two blocks before its checkpoint, which is the start of these streams.
        with start([one.url, two.url], "--catch-up") as worker:
            assert worker.exit_code() == 0
            assert worker.counted()["received"] == both


def test_an_unreachable_host_does_not_delay_the_other_reader(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(1000)
    with start(["ws://127.0.0.1:1", jetstream.url], "--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    failed_hosts = {line.split(": ")[0].split()[-1] for line in worker.lines if "; reconnecting in" in line}
    assert failed_hosts == {"127.0.0.1:1"}
    assert "failing over" not in worker.log
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_kill_9_with_two_readers_loses_no_event(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with Simulator(port=0) as one, Simulator(port=0) as two:
        stop = threading.Event()

        def feed() -> None:
            while not stop.wait(0.05):
                newest = jetstream.generate(150, span=0.05).frames[-150:]
                publish_some(newest, one, lambda number: number % 3 != 0)
                publish_some(newest, two, lambda number: number % 3 != 1)

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        for delay in (0.5, 1.5, 0.1):
            with start([one.url, two.url], "--since", "0") as worker:
                worker.wait_for("reader-1 +connected to")
                worker.wait_for("reader-2 +connected to")
                time.sleep(delay)
                worker.kill()
        stop.set()
        feeder.join()
        with start([one.url, two.url], "--since", "0", "--catch-up") as worker:
            assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_a_host_added_later_starts_at_the_time_of_the_checkpoint_of_the_first(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """From one host to two: the second has no checkpoint, so its cursor is a time."""
    with Simulator(port=0) as one, Simulator(port=0) as two:
        network = jetstream.generate(1000).frames
        publish_some(network, one, lambda number: True)
        with start([one.url, "ws://127.0.0.1:1"], "--since", "0", "--catch-up") as worker:
            assert worker.exit_code() == 0
        more = jetstream.generate(1000, span=1).frames[1000:]
        publish_some(more, one, lambda number: number % 2 == 0)
        publish_some(more, two, lambda number: number % 2 == 1)
        with start([one.url, two.url], "--catch-up") as worker:
            worker.wait_for(r"connected to .*, reading from cursor \d{16}")
            assert worker.exit_code() == 0
            assert "gap" not in worker.log.replace("gaps", "")
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_missing_events_of_one_host_that_another_has_are_not_a_gap(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    clock = Clock()
    short = Simulator(port=0, seed=1, clock=clock, server=ServerOptions(lookback=900))
    with short, Simulator(port=0) as long:
        clock.ago = 7200
        publish_some(short.generate(1000, span=1).frames, long, lambda number: True)
        with start([short.url, long.url], "--since", "0", "--catch-up") as worker:
            assert worker.exit_code() == 0
        clock.ago = 0
        publish_some(short.generate(7000, span=7000).frames[1000:], long, lambda number: True)
        with start([short.url, long.url], "--catch-up") as worker:
            assert worker.exit_code() == 0
        assert "but another server has them" in worker.log
        assert "gap: " not in worker.log
    assert_each_once(es, fresh_index_prefix, short.frames)
