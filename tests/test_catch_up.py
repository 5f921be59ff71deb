"""`--catch-up`: a run that ends once all events that the servers have are indexed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count as numbers
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.position import Position
from slurp.events.removals import Removal
from slurp.jetstream.stream_range import newest_event
from slurp.pipeline.ack_tracker import BatchAck
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.catch_up import CatchUp
from slurp.pipeline.channel import Channel
from slurp.pipeline.progress import BatchOutcome, Counters
from slurp.pipeline.reader import Reader
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions
from tests.deleting_network import Network, id_of
from tests.harness import InProcess
from tests.tiers import slow_except
from tests.worker import Worker, documents, expected

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


def at(cursor: int | None, seconds: float = 0, host: str = "h1") -> Position:
    return Position(host, cursor, NOW + int(seconds * SECOND))


def fake_reader(number: int, connected: bool = True, away: bool = False, silent: float = 0.0) -> Reader:
    host = f"h{number}"
    return cast(
        Reader,
        SimpleNamespace(
            number=number,
            host=host,
            server=f"ws://{host}",
            connected=connected,
            away=away,
            silent_for=silent,
        ),
    )


class Trial:
    """Readers, their acknowledged positions, the newest events of their servers, and a clock."""

    def __init__(self, *readers: Reader) -> None:
        self.readers = readers or (fake_reader(1),)
        self.counters = Counters(len(self.readers), applies_removals=True)
        self.queue = BatchQueue(1000, 1000)
        self.now = 0.0
        self.newest: dict[str, Position | None] = {}
        self.requested_at: list[float] = []
        self._numbers = {reader.number: numbers(1) for reader in self.readers}
        channel = Channel(self.queue, self.counters)
        self._catch_up = CatchUp(self.readers, channel, 5.0, self._newest_event, clock=lambda: self.now)

    def acknowledge(self, position: Position, reader: int = 1, *removals: Removal) -> None:
        number = next(self._numbers[reader])
        batch = Batch(number, position.host, [b""], 0, position, reader=reader)
        self.counters.received(batch)
        ack = BatchAck(position, position.time_us, removals=removals)
        self.counters.acknowledged(batch, BatchOutcome(indexed=1), ack)

    def has_caught_up(self, seconds: float = 0.0) -> bool:
        """Advance the clock by `seconds`; return whether all readers have caught up then."""
        self.now += seconds
        return self._catch_up.step()

    def _newest_event(self, server: str) -> Position | None:
        self.requested_at.append(self.now)
        return self.newest.get(server)


def test_a_reader_has_caught_up_once_the_newest_event_is_acknowledged() -> None:
    trial = Trial()
    trial.newest["ws://h1"] = at(1000)
    trial.acknowledge(at(10))
    assert not trial.has_caught_up(2)
    trial.acknowledge(at(999))
    assert not trial.has_caught_up(1)
    trial.acknowledge(at(1001))
    assert trial.has_caught_up(1)
    assert trial.requested_at == [2.0]


def test_a_newest_event_that_is_reached_late_is_requested_again() -> None:
    trial = Trial()
    trial.newest["ws://h1"] = at(1000)
    trial.acknowledge(at(10))
    assert not trial.has_caught_up(2)
    trial.newest["ws://h1"] = at(2000)
    trial.acknowledge(at(1001))
    assert not trial.has_caught_up(20), "the server may have a thousand more events meanwhile"
    trial.acknowledge(at(2000))
    assert trial.has_caught_up(4)
    assert trial.requested_at == [2.0, 22.0]


@pytest.mark.parametrize("clock", [-6 * 3600, -6, 6, 6 * 3600])
def test_times_do_not_matter_when_the_server_sends_sequence_numbers(clock: float) -> None:
    trial = Trial()
    trial.newest["ws://h1"] = at(1000, clock)
    trial.acknowledge(at(10, clock))
    assert not trial.has_caught_up(2)
    trial.acknowledge(at(1000, -1e6))
    assert trial.has_caught_up(1)


def test_without_sequence_numbers_the_median_times_are_compared() -> None:
    trial = Trial()
    trial.newest["ws://h1"] = at(None, 60)
    trial.acknowledge(at(None, 0))
    assert not trial.has_caught_up(2)
    trial.acknowledge(at(None, 59))
    assert not trial.has_caught_up(1)
    trial.acknowledge(at(None, 61))
    assert trial.has_caught_up(1)


def test_sequence_numbers_from_before_a_wipe_do_not_count() -> None:
    """The store was wiped, numbers restart at 1, and none of the new events is acknowledged yet."""
    trial = Trial()
    trial.acknowledge(at(1_000_000))
    trial.newest["ws://h1"] = at(5, 100)
    assert not trial.has_caught_up(2)
    # A lower number counts once the median of the times is clearly later.
    trial.acknowledge(at(6, 100))
    trial.acknowledge(at(7, 100))
    assert trial.has_caught_up(1)


def test_a_newest_event_that_is_never_reached_is_discarded_after_a_minute() -> None:
    trial = Trial()
    trial.newest["ws://h1"] = at(1_000_000)
    trial.acknowledge(at(10))
    assert not trial.has_caught_up(2)
    trial.newest["ws://h1"] = at(5, 100)  # the server was wiped
    trial.acknowledge(at(6, 100))
    assert not trial.has_caught_up(30)
    assert not trial.has_caught_up(31)
    trial.acknowledge(at(7, 100))
    assert trial.has_caught_up(1)


def test_the_newest_event_is_requested_every_ten_seconds_at_most() -> None:
    trial = Trial()
    for _ in range(600):
        trial.has_caught_up(0.1)
    assert 5 <= len(trial.requested_at) <= 7, "every ten seconds while the server does not answer"


def test_a_silent_reader_has_caught_up_once_nothing_is_in_flight() -> None:
    trial = Trial(fake_reader(1, silent=6))
    batch = Batch(1, "h1", [b""], 1, at(1))
    trial.queue.reserve(batch, 0)
    assert not trial.has_caught_up(2)
    trial.queue.release(batch)
    assert trial.has_caught_up()
    assert not trial.requested_at


def test_a_hold_of_the_checkpoint_delays_the_end() -> None:
    trial = Trial(fake_reader(1, silent=6))
    hold = trial.counters.hold(1)
    assert not trial.has_caught_up(2)
    trial.counters.release(hold)
    assert trial.has_caught_up()


@pytest.mark.parametrize(
    ("second", "caught_up"),
    [
        pytest.param(fake_reader(2), False, id="behind"),
        pytest.param(fake_reader(2, silent=6), True, id="silent for long"),
        pytest.param(fake_reader(2, silent=4), False, id="silent for a moment"),
        pytest.param(fake_reader(2, connected=False, away=True), True, id="unreachable"),
        pytest.param(fake_reader(2, connected=False), False, id="about to connect"),
    ],
)
def test_all_connected_readers_must_have_caught_up(second: Reader, caught_up: bool) -> None:
    trial = Trial(fake_reader(1), second)
    trial.newest = {"ws://h1": at(7), "ws://h2": at(7, host="h2")}
    trial.has_caught_up(2)
    trial.acknowledge(at(8), reader=1)
    assert trial.has_caught_up(1) is caught_up


def test_a_run_without_a_connected_reader_has_not_caught_up() -> None:
    assert not Trial(fake_reader(1, connected=False, away=True)).has_caught_up(2)


def test_deletions_that_are_acknowledged_by_then_must_be_applied() -> None:
    trial = Trial()
    trial.newest = {"ws://h1": at(7)}
    trial.has_caught_up(2)
    trial.acknowledge(at(7), 1, Removal("at://did:plc:a/b/c", "3k", "deleted"))
    assert not trial.has_caught_up(1)
    [deletion] = trial.counters.take_removals()
    # One that arrives later does not delay the end.
    trial.acknowledge(at(8), 1, Removal("at://did:plc:a/b/d", "3l", "deleted"))
    assert not trial.has_caught_up(100)
    trial.counters.applied(deletion)
    assert trial.has_caught_up(1)


# On real servers


@pytest.mark.parametrize("protocols", ["v1", "v2", "both"])
def test_a_server_sends_its_newest_event(protocols: str) -> None:
    with Simulator(port=0, seed=1, protocols=protocols) as jetstream:
        jetstream.generate(1000).run_at(500)
        found = newest_event(jetstream.url)
    assert found is not None
    assert found.cursor is not None
    assert 1000 < found.cursor < len(jetstream.frames) + 1
    assert found.host == jetstream.url.removeprefix("ws://")


def test_the_newest_event_without_a_sequence_number_has_the_current_time() -> None:
    with Simulator(
        port=0, seed=1, network=NetworkOptions(cursors=False, backdated=0.2), protocols="v1"
    ) as jetstream:
        jetstream.run_at(500)
        found = newest_event(jetstream.url)
    assert found is not None
    assert found.cursor is None
    assert abs(found.time_us / 1e6 - time.time()) < 60, "a back-dated event would be hours off"


def test_a_server_that_sends_nothing_has_no_newest_event(jetstream: Simulator) -> None:
    assert newest_event(jetstream.url, timeout=0.3) is None
    assert newest_event("ws://127.0.0.1:1", timeout=0.3) is None


@pytest.fixture(params=slow_except([-6.0, 0.0, 6.0], 6.0), ids=["slow clock", "right clock", "fast clock"])
def skewed(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A server whose clock is off by some seconds, and that back-dates one event in 150."""
    with Simulator(
        port=0, seed=1, network=NetworkOptions(backdated=1 / 150), clock=lambda: time.time() + request.param
    ) as jetstream:
        yield jetstream


def test_a_worker_ends_beside_a_live_stream_whatever_the_clock_of_the_server(
    skewed: Simulator, es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    skewed.generate(5000, span=600).run_at(200)
    options = ("--jetstream", skewed.url, "--es", es_node.url, "--index", fresh_index_prefix, "--no-kibana")
    with Worker(*options, "--since", "0", "--catch-up", home=tmp_path) as worker:
        worker.wait_for("connected to")
        before = list(skewed.frames)
        assert worker.exit_code(timeout=45) == 0
        assert "caught up" in worker.log
    assert expected(before).keys() <= documents(es, fresh_index_prefix).keys()


@pytest.mark.slow
def test_a_worker_ends_once_the_deletions_are_applied(
    indexer: InProcess, jetstream: Simulator, tmp_path: Path
) -> None:
    network, es = Network(), indexer.elastic.client
    post = network.commit("create", at=network.now_us - 86_400 * SECOND)
    indexer.feed([post])
    [day] = es.indices.get(index=f"{indexer.index}-*")
    es.indices.put_settings(index=day, settings={"index.blocks.write": True})
    jetstream.publish([orjson.loads(network.commit("delete"))])
    options = ("--jetstream", jetstream.url, "--es", indexer.config.es[0], "--index", indexer.index)
    with Worker(*options, "--no-kibana", "--since", "0", "--catch-up", home=tmp_path) as worker:
        worker.wait_for("deletions cannot be applied: .*cluster_block")
        time.sleep(10)
        assert "caught up" not in worker.log
        es.indices.put_settings(index=day, settings={"index.blocks.write": None})
        assert worker.exit_code(timeout=90) == 0
    assert documents(es, indexer.index)[id_of(post)]["redacted"]["reason"] == "deleted"
