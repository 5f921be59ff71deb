"""`--catch-up`: a run that ends once everything up to now is indexed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count as numbers
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.position import Position
from slurp.jetstream.stream_range import newest_event
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.catch_up import CatchUp
from slurp.pipeline.channel import Channel
from slurp.pipeline.progress import BatchAck, Counters, Outcome
from slurp.pipeline.reader import Reader
from slurp.simulator.jetstream import Simulator
from tests.tiers import slow_except
from tests.worker import Worker, documents, expected

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


def at(cursor: int | None, seconds: float = 0, host: str = "h1") -> Position:
    return Position(host, cursor, NOW + int(seconds * SECOND))


def stand_in(number: int, connected: bool = True, away: bool = False, silent: float = 0.0) -> Reader:
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


class Stage:
    """Readers, what is acknowledged of theirs, the newest events of their servers, and a clock."""

    def __init__(self, *readers: Reader) -> None:
        self.readers = readers or (stand_in(1),)
        self.counters = Counters(len(self.readers))
        self.queue = BatchQueue(1000, 1000)
        self.now = 0.0
        self.tips: dict[str, Position | None] = {}
        self.asked: list[float] = []
        self._numbers = {reader.number: numbers(1) for reader in self.readers}
        channel = Channel(self.queue, self.counters)
        self._catch_up = CatchUp(self.readers, channel, 5.0, self._ask, clock=lambda: self.now)

    def acknowledge(self, position: Position, reader: int = 1) -> None:
        number = next(self._numbers[reader])
        batch = Batch(number, position.host, [b""], 0, position, reader=reader)
        self.counters.received(batch)
        self.counters.acknowledged(batch, Outcome(indexed=1), BatchAck(position, position.time_us))

    def has_caught_up(self, seconds: float = 0.0) -> bool:
        """After so many more seconds."""
        self.now += seconds
        return self._catch_up.step()

    def _ask(self, server: str) -> Position | None:
        self.asked.append(self.now)
        return self.tips.get(server)


def test_it_has_caught_up_once_the_newest_event_is_acknowledged() -> None:
    stage = Stage()
    stage.tips["ws://h1"] = at(1000)
    stage.acknowledge(at(10))
    assert not stage.has_caught_up(2)
    stage.acknowledge(at(999))
    assert not stage.has_caught_up(1)
    stage.acknowledge(at(1001))
    assert stage.has_caught_up(1)
    assert stage.asked == [2.0]


def test_an_answer_of_long_ago_is_asked_for_again() -> None:
    stage = Stage()
    stage.tips["ws://h1"] = at(1000)
    stage.acknowledge(at(10))
    assert not stage.has_caught_up(2)
    stage.tips["ws://h1"] = at(2000)
    stage.acknowledge(at(1001))
    assert not stage.has_caught_up(20), "a thousand more have come meanwhile"
    stage.acknowledge(at(2000))
    assert stage.has_caught_up(4)
    assert stage.asked == [2.0, 22.0]


@pytest.mark.parametrize("clock", [-6 * 3600, -6, 6, 6 * 3600])
def test_times_do_not_count_where_there_are_sequence_numbers(clock: float) -> None:
    stage = Stage()
    stage.tips["ws://h1"] = at(1000, clock)
    stage.acknowledge(at(10, clock))
    assert not stage.has_caught_up(2)
    stage.acknowledge(at(1000, -1e6))
    assert stage.has_caught_up(1)


def test_without_sequence_numbers_medians_of_times_count() -> None:
    stage = Stage()
    stage.tips["ws://h1"] = at(None, 60)
    stage.acknowledge(at(None, 0))
    assert not stage.has_caught_up(2)
    stage.acknowledge(at(None, 59))
    assert not stage.has_caught_up(1)
    stage.acknowledge(at(None, 61))
    assert stage.has_caught_up(1)


def test_numbers_of_another_life_of_the_server_do_not_count() -> None:
    """Its store was wiped, it counts from 1, and nothing of that is acknowledged yet."""
    stage = Stage()
    stage.acknowledge(at(1_000_000))
    stage.tips["ws://h1"] = at(5, 100)
    assert not stage.has_caught_up(2)
    # A lower number counts once the median of the times is clearly later.
    stage.acknowledge(at(6, 100))
    stage.acknowledge(at(7, 100))
    assert stage.has_caught_up(1)


def test_a_number_that_is_never_reached_is_given_up() -> None:
    stage = Stage()
    stage.tips["ws://h1"] = at(1_000_000)
    stage.acknowledge(at(10))
    assert not stage.has_caught_up(2)
    stage.tips["ws://h1"] = at(5, 100)  # wiped meanwhile
    stage.acknowledge(at(6, 100))
    assert not stage.has_caught_up(30)
    assert not stage.has_caught_up(31)
    stage.acknowledge(at(7, 100))
    assert stage.has_caught_up(1)


def test_a_server_is_not_asked_too_often() -> None:
    stage = Stage()
    for _ in range(600):
        stage.has_caught_up(0.1)
    assert 5 <= len(stage.asked) <= 7, "every ten seconds while it does not answer"


def test_silence_is_enough_when_nothing_is_in_flight() -> None:
    stage = Stage(stand_in(1, silent=6))
    batch = Batch(1, "h1", [b""], 1, at(1))
    stage.queue.reserve(batch, 0)
    assert not stage.has_caught_up(2)
    stage.queue.release(batch)
    assert stage.has_caught_up()
    assert not stage.asked


def test_an_open_gap_is_waited_for() -> None:
    stage = Stage(stand_in(1, silent=6))
    hold = stage.counters.hold(1)
    assert not stage.has_caught_up(2)
    stage.counters.release(hold)
    assert stage.has_caught_up()


@pytest.mark.parametrize(
    ("second", "caught_up"),
    [
        pytest.param(stand_in(2), False, id="it is behind"),
        pytest.param(stand_in(2, silent=6), True, id="it has nothing more"),
        pytest.param(stand_in(2, silent=4), False, id="it may have more"),
        pytest.param(stand_in(2, connected=False, away=True), True, id="nobody waits for the dead"),
        pytest.param(stand_in(2, connected=False), False, id="it is about to connect"),
    ],
)
def test_all_that_are_connected_must_have_caught_up(second: Reader, caught_up: bool) -> None:
    stage = Stage(stand_in(1), second)
    stage.tips = {"ws://h1": at(7), "ws://h2": at(7, host="h2")}
    stage.has_caught_up(2)
    stage.acknowledge(at(8), reader=1)
    assert stage.has_caught_up(1) is caught_up


def test_nobody_is_no_reader() -> None:
    assert not Stage(stand_in(1, connected=False, away=True)).has_caught_up(2)


# Real parts


@pytest.mark.parametrize("protocols", ["v1", "v2", "both"])
def test_the_newest_event_of_a_server(protocols: str) -> None:
    with Simulator(port=0, seed=1, protocols=protocols) as jetstream:
        jetstream.generate(1000).run_at(500)
        found = newest_event(jetstream.url)
    assert found is not None
    assert found.cursor is not None
    assert 1000 < found.cursor < len(jetstream.frames) + 1
    assert found.host == jetstream.url.removeprefix("ws://")


def test_the_newest_time_of_a_server_without_numbers() -> None:
    with Simulator(port=0, seed=1, cursors=False, backdated=0.2, protocols="v1") as jetstream:
        jetstream.run_at(500)
        found = newest_event(jetstream.url)
    assert found is not None
    assert found.cursor is None
    assert abs(found.time_us / 1e6 - time.time()) < 60, "hours where one of them counts"


def test_a_server_that_sends_nothing_has_no_newest_event(jetstream: Simulator) -> None:
    assert newest_event(jetstream.url, timeout=0.3) is None
    assert newest_event("ws://127.0.0.1:1", timeout=0.3) is None


@pytest.fixture(params=slow_except([-6.0, 0.0, 6.0], 6.0), ids=["slow clock", "right clock", "fast clock"])
def live(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A busy server whose clock is so many seconds ahead of ours, with a back-dated event in 150."""
    with Simulator(port=0, seed=1, backdated=1 / 150, clock=lambda: time.time() + request.param) as jetstream:
        yield jetstream


def test_it_ends_beside_a_live_stream(
    live: Simulator, es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    live.generate(5000, span=600).run_at(200)
    options = ("--jetstream", live.url, "--es", es_node.url, "--index", fresh_index_prefix, "--no-kibana")
    with Worker(*options, "--since", "0", "--catch-up", home=tmp_path) as worker:
        worker.wait_for("connected to")
        before = list(live.frames)
        assert worker.exit_code(timeout=45) == 0
        assert "caught up" in worker.log
    assert expected(before).keys() <= documents(es, fresh_index_prefix).keys()
