"""`--redundant`: a reader for each host at once, so that what one misses comes from another."""

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
from slurp.pipeline.batches import Batch
from slurp.pipeline.gaps import GapRecorder
from slurp.pipeline.progress import BatchAck, Counters, Outcome
from slurp.pipeline.reader import Reader
from slurp.pipeline.reader_group import ReaderGroup
from slurp.simulator.connection import Manners
from slurp.simulator.jetstream import Simulator
from tests.harness import Clock
from tests.worker import Worker, assert_each_once, stats_documents

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


def at(cursor: int, seconds: float, host: str = "a") -> Position:
    return Position(host, cursor, NOW + int(seconds * SECOND))


def answer(counters: Counters, reader: int, number: int, position: Position) -> None:
    batch = Batch(number, position.host, [b""] * 10, 0, position, reader=reader)
    counters.received(batch)
    time_us = position.time_us
    counters.acknowledged(
        batch, Outcome(indexed=10), BatchAck(position, time_us, arrived_us=time_us, delays_us=(0,))
    )


# Pure


def test_each_reader_numbers_for_itself() -> None:
    counters = Counters(2)
    answer(counters, 1, 1, at(10, 1, "a"))
    answer(counters, 2, 1, at(7, 3, "b"))
    answer(counters, 2, 3, at(99, 9, "b"))
    assert [(number, position.cursor) for number, position, *_ in counters.checkpoints()] == [(1, 10), (2, 7)]
    answer(counters, 2, 2, at(50, 5, "b"))
    assert [position.cursor for _, position, *_ in counters.checkpoints()] == [10, 99]
    assert counters.resume(2, at(9900, 9, "b"), host="b").cursor == 9900 + 1 - REWIND_EVENTS
    assert counters.snapshot().received == 40
    assert counters.snapshot().newest_us == NOW + 9 * SECOND


def test_another_reader_covers_what_it_has_without_a_hole() -> None:
    counters = Counters(2)
    counters.begin(1, at(1, 100), 0)
    counters.begin(2, at(1, 0), NOW)
    assert counters.covered_by_another(2, NOW, NOW + 100 * SECOND), "earlier runs have read up to its start"
    assert not counters.covered_by_another(2, NOW, NOW + 101 * SECOND)
    answer(counters, 1, 1, at(10, 200))
    assert counters.covered_by_another(2, NOW, NOW + 200 * SECOND)
    counters.incomplete_until(1, NOW + 150 * SECOND)
    assert not counters.covered_by_another(2, NOW, NOW + 200 * SECOND), "it has a gap of its own"
    assert counters.covered_by_another(2, NOW + 150 * SECOND, NOW + 200 * SECOND)
    assert not counters.covered_by_another(1, NOW - 1, NOW), "it started live"


def test_a_batch_covers_up_to_its_newest_events_not_to_its_median() -> None:
    """After a rewind most of a batch may be old."""
    counters = Counters(2)
    counters.begin(1, at(1, 0), 0)
    batch = Batch(1, "a", [b""] * 10, 0, at(10, 200), reader=1)
    counters.received(batch)
    answer = BatchAck(batch.position, NOW, arrived_us=NOW + 201 * SECOND, delays_us=(SECOND,) * 9)
    counters.acknowledged(batch, Outcome(indexed=10), answer)
    assert counters.covered_by_another(2, NOW, NOW + 200 * SECOND)
    assert not counters.covered_by_another(2, NOW, NOW + 201 * SECOND)


def stand_in(number: int, connected: bool = True, away: bool = False, silent: float = 0.0) -> Reader:
    return cast(
        Reader,
        SimpleNamespace(number=number, host=f"h{number}", connected=connected, away=away, silent_for=silent),
    )


def test_the_stats_line_names_who_is_away() -> None:
    readers = ReaderGroup([stand_in(1), stand_in(2, connected=False)])
    assert readers.host == "h1 + h2 (away)"
    assert readers.connected


def test_a_gap_waits_for_the_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    counters = Counters(2)
    for number in (1, 2):
        counters.begin(number, at(1, 0), 0)
    gaps = GapRecorder(cast(Elastic, Written()), Subscription("ev"), (), counters)
    gap = Gap("b", NOW, NOW + 60 * SECOND)
    gaps.report(2, gap)
    gaps.write()
    assert "gap" not in caplog.text, "the other one is not so far yet"
    answer(counters, 1, 1, at(10, 61))
    gaps.write()
    assert "but another server has them" in caplog.text
    assert counters.snapshot().gaps == 0


def test_a_gap_that_nobody_covers_is_told(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters(2)
    for number in (1, 2):
        counters.begin(number, at(1, 0), 0)
    node = Written()
    gaps = GapRecorder(cast(Elastic, node), Subscription("ev"), (), counters, wait_for_others=0.1)
    gaps.report(2, Gap("b", NOW, NOW + 60 * SECOND))
    time.sleep(0.2)
    gaps.write()
    assert "gap: b has no events" in caplog.text
    assert counters.snapshot().gaps == len(node.documents) == 1
    gaps.report(1, Gap("a", NOW, NOW + 60 * SECOND))
    gaps.write(final=True)
    assert counters.snapshot().gaps == len(node.documents) == 2, "at the end nobody waits"


class Written:
    """A client that keeps what is written."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self.indices = SimpleNamespace(get=lambda **_: {})

    @property
    def client(self) -> Written:
        return self

    def options(self, **_: object) -> Written:
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
def test_it_takes_two_hosts(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(options, {})
    assert "--redundant needs --jetstream at least twice" in capsys.readouterr().err
    assert parse(["--redundant", "--jetstream", "ws://a,ws://b"], {}).redundant


def test_by_default_it_reads_the_two_public_servers_with_v2() -> None:
    assert parse(["--redundant"], {}).jetstream == PUBLIC_HOSTS
    assert len(PUBLIC_HOSTS) == 2


# The real program


Start = Callable[..., Worker]


@pytest.fixture
def start(es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path) -> Start:
    def begin(servers: list[str], *options: str) -> Worker:
        return Worker(
            *("--redundant", *(word for url in servers for word in ("--jetstream", url))),
            *("--es", es_node.url, "--index", fresh_index_prefix, "--no-kibana"),
            *("--stats-interval", "1s", "--flush", "200ms"),
            *options,
            home=tmp_path,
        )

    return begin


def checkpoints(es: Elasticsearch, index: str) -> dict[str, dict[str, Any]]:
    es.indices.refresh(index="skeetslurper-state")
    query = {"bool": {"filter": [{"term": {"index": index}}, {"term": {"type": "checkpoint"}}]}}
    hits = es.search(index="skeetslurper-state", query=query)["hits"]["hits"]
    return {hit["_source"]["host"]: hit["_source"] for hit in hits}


def host(simulator: Simulator) -> str:
    return simulator.url.removeprefix("ws://")


def share(events: list[bytes], simulator: Simulator, keep: Callable[[int], bool]) -> None:
    """Publish a part of a network on a server, with numbers of its own."""
    chosen = [orjson.loads(frame) for number, frame in enumerate(events) if keep(number)]
    simulator.publish({name: event[name] for name in event if name != "cursor"} for event in chosen)


def test_what_one_host_misses_comes_from_the_other(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    network = jetstream.generate(3000).frames
    with Simulator(port=0) as one, Simulator(port=0) as two:
        share(network, one, lambda number: number % 3 != 0)
        share(network, two, lambda number: number % 7 != 1)
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

        # Each goes on where it was, and reads two blocks again, which is all of it.
        with start([one.url, two.url], "--catch-up") as worker:
            assert worker.exit_code() == 0
            assert worker.counted()["received"] == both


def test_a_dead_host_holds_nobody_up(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(1000)
    with start(["ws://127.0.0.1:1", jetstream.url], "--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    blamed = {line.split(": ")[0].split()[-1] for line in worker.lines if "; reconnecting in" in line}
    assert blamed == {"127.0.0.1:1"}
    assert "failing over" not in worker.log
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_kill_9_with_two_readers_loses_nothing(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with Simulator(port=0) as one, Simulator(port=0) as two:
        over = threading.Event()

        def feed() -> None:
            while not over.wait(0.05):
                portion = jetstream.generate(150, span=0.05).frames[-150:]
                share(portion, one, lambda number: number % 3 != 0)
                share(portion, two, lambda number: number % 3 != 1)

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        for delay in (0.5, 1.5, 0.1):
            with start([one.url, two.url], "--since", "0") as worker:
                worker.wait_for("reader-1 +connected to")
                worker.wait_for("reader-2 +connected to")
                time.sleep(delay)
                worker.kill()
        over.set()
        feeder.join()
        with start([one.url, two.url], "--since", "0", "--catch-up") as worker:
            assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_a_host_that_joins_later_starts_where_the_first_was(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """From one host to two: the second has no checkpoint, and goes by time."""
    with Simulator(port=0) as one, Simulator(port=0) as two:
        network = jetstream.generate(1000).frames
        share(network, one, lambda number: True)
        with start([one.url, "ws://127.0.0.1:1"], "--since", "0", "--catch-up") as worker:
            assert worker.exit_code() == 0
        more = jetstream.generate(1000, span=1).frames[1000:]
        share(more, one, lambda number: number % 2 == 0)
        share(more, two, lambda number: number % 2 == 1)
        with start([one.url, two.url], "--catch-up") as worker:
            worker.wait_for(r"connected to .*, reading from cursor \d{16}")
            assert worker.exit_code() == 0
            assert "gap" not in worker.log.replace("gaps", "")
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_a_gap_of_one_host_that_another_has_is_no_gap(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    clock = Clock()
    short = Simulator(port=0, seed=1, clock=clock, manners=Manners(lookback=900))
    with short, Simulator(port=0) as long:
        clock.ago = 7200
        share(short.generate(1000, span=1).frames, long, lambda number: True)
        with start([short.url, long.url], "--since", "0", "--catch-up") as worker:
            assert worker.exit_code() == 0
        clock.ago = 0
        share(short.generate(7000, span=7000).frames[1000:], long, lambda number: True)
        with start([short.url, long.url], "--catch-up") as worker:
            assert worker.exit_code() == 0
        assert "but another server has them" in worker.log
        assert "gap: " not in worker.log
    assert_each_once(es, fresh_index_prefix, short.frames)
