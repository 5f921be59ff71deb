"""A clock that is wrong by days deletes nothing, expires nothing and is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.features import Features
from slurp.elastic.lifecycle import Retention, remembered
from slurp.embedded.node import EmbeddedNode
from slurp.events.times import day_of
from slurp.pipeline.stream_clock import StreamClock
from slurp.simulator.jetstream import Simulator
from tests.harness import InProcess
from tests.test_http_worker import Asked
from tests.test_lifecycle import elastic, index, left, make  # noqa: F401 - fixtures
from tests.test_worker_faults import SETTABLE
from tests.watched import Watched
from tests.worker import PROGRAM, Worker, count, wait_for_documents

DAY = 86_400
NOW = 1_795_000_000.0


class World:
    """A clock, a monotonic clock and a stream that are moved by hand."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.now, self.ahead, self.ticks, self.stream = NOW, ahead, 100.0, 0.0
        self.clock = StreamClock(lambda: int(self.stream * 1e6), lambda: self.now + self.ahead, self.tick)

    def tick(self) -> float:
        return self.ticks

    def passes(self, seconds: float, speed: float = 1.0) -> str:
        """Time passes, and the stream moves `speed` times as fast. Returns what is wrong at the end."""
        said = self.clock.check()
        for _ in range(10):
            self.now += seconds / 10
            self.ticks += seconds / 10
            self.stream += seconds / 10 * speed
            said = self.clock.check()
        return said


def test_nothing_is_known_before_there_are_events() -> None:
    world = World()
    assert world.clock.earliest() is None
    assert world.clock.probable() == NOW
    world.stream = NOW - 5
    assert world.clock.earliest() == NOW - 5


@pytest.mark.parametrize("days", [31, -31])
def test_the_earlier_of_clock_and_stream_counts(days: int) -> None:
    world = World(ahead=days * DAY)
    world.stream = NOW
    assert world.clock.earliest() == pytest.approx(NOW + min(0, days * DAY))
    assert world.clock.probable() == pytest.approx(NOW), "the stream is believed"


def test_what_has_passed_since_the_last_event_counts() -> None:
    """Behind a filter nothing may come for days, which is no reason to keep others for longer."""
    world = World()
    world.stream = NOW
    world.passes(5 * DAY, speed=0)
    assert world.clock.earliest() == pytest.approx(NOW + 5 * DAY)
    world.stream -= 40 * DAY  # a replay
    assert world.clock.earliest() == pytest.approx(NOW + 5 * DAY)


def test_a_checkpoint_tells_before_the_first_event() -> None:
    world = World(ahead=31 * DAY)
    world.clock.saw(int((NOW - 3600) * 1e6))
    assert world.clock.earliest() == pytest.approx(NOW - 3600)


@pytest.mark.parametrize(("days", "word"), [(31, "ahead of"), (-31, "behind")])
def test_a_clock_that_is_days_off_is_told(days: int, word: str) -> None:
    world = World(ahead=days * DAY)
    world.stream = NOW
    assert world.passes(60) == "", "not measured yet"
    assert f"the clock of this machine is 31d {word} the events that arrive (" in world.passes(300)
    world.ahead = 0
    assert world.passes(10) == ""


def test_a_stream_that_is_a_day_behind_is_told_by_the_clock() -> None:
    world = World()
    assert not world.clock.is_behind(), "nothing is known"
    world.stream = NOW
    assert not world.clock.is_behind()
    world.now += DAY  # asleep: the monotonic clock stands still
    assert world.clock.is_behind()
    world.clock.saw(int(world.now * 1e6))
    assert not world.clock.is_behind()


def test_hours_are_no_reason_to_say_anything() -> None:
    world = World(ahead=20 * 3600)
    world.stream = NOW
    assert world.passes(3600) == ""


@pytest.mark.parametrize("speed", [0.0, 5.0])
def test_neither_a_replay_nor_silence_makes_the_clock_a_wrong_one(speed: float) -> None:
    world = World()
    world.stream = NOW - 20 * DAY
    assert world.passes(DAY, speed) == ""


def test_a_worker_with_a_wrong_clock_is_not_ready() -> None:
    watched = Watched()
    watched.reads()
    before = watched.health.unready()
    watched.status.clock_error = "the clock of this machine is 31d ahead of the events that arrive"
    assert watched.health.unready() == [*before, watched.status.clock_error]


# Days


def no_templates(client: Elasticsearch) -> None:
    pass


def test_an_event_expires_by_the_earlier_of_clock_and_stream(elastic: Elastic) -> None:  # noqa: F811
    world = World(ahead=31 * DAY)
    today = int(NOW) // DAY

    def expired(age: int, seen_us: int | None = None) -> bool:
        days = DailyIndices(elastic, "ev", 30, no_templates, world.clock.probable, world.clock.earliest)
        return days.is_expired(today - age, seen_us)

    # The first batch of a first run: nothing is known but what is in it.
    assert not expired(2, int(NOW * 1e6))
    assert expired(31, int(NOW * 1e6))
    assert expired(2), "nothing at all is known but the clock"
    world.stream = NOW
    assert not expired(2)
    assert expired(31)


def test_tomorrow_is_made_where_the_stream_is(
    elastic: Elastic,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(ahead=31 * DAY)
    world.stream = NOW // DAY * DAY - 60
    made: list[int] = []
    monkeypatch.setattr(DailyIndices, "ensure", lambda self, day: made.append(day))
    DailyIndices(
        elastic, "ev", 30, no_templates, world.clock.probable, world.clock.earliest
    ).ensure_tomorrow()
    assert made == [int(NOW) // DAY]


def test_retention_deletes_nothing_before_the_stream_is_known_and_then_by_it(
    es: Elasticsearch,
    elastic: Elastic,  # noqa: F811
    index: str,  # noqa: F811
) -> None:
    today = int(NOW) // DAY
    gone, *kept = make(es, index, today - 31, today - 30, today - 1, today)
    world = World(ahead=31 * DAY)
    retention = Retention(elastic, index, 30, Features(), world.clock.earliest, world.tick)
    assert not retention.step()
    assert len(left(es, index)) == 4
    assert remembered(es, index) is None, "the first look is still to come"
    world.stream = NOW
    assert retention.step()
    assert left(es, index) == {*kept}
    assert gone not in kept


# The real program


# After the clock is settable: what is imported before keeps the real one.
MEASURES_QUICKLY = """from slurp import streamclock
streamclock._MEASURE = 2.0
from skeetslurper import main
"""


def test_a_clock_a_month_ahead_deletes_no_day_and_expires_no_event(
    es_node: EmbeddedNode,
    es: Elasticsearch,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
    indexer: InProcess,
) -> None:
    offset, program = tmp_path / "offset", tmp_path / "settable.py"
    source = SETTABLE.replace("from skeetslurper import main\n", MEASURES_QUICKLY)
    program.write_text(source.format(root=PROGRAM.parent))
    offset.write_text(str(31 * DAY))
    today = indexer.day
    make(es, fresh_index_prefix, today - 40, today - 10, today - 1)
    past = f"{fresh_index_prefix}-{day_of(today - 40)}"
    jetstream.run_at(500)
    options = (
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix, "--no-kibana"),
        *("--retention", "30d", "--stats-interval", "1s", "--flush", "200ms", "--http", "127.0.0.1:0"),
    )
    with Worker(*options, home=tmp_path, program=program, env={"OFFSET": str(offset)}) as worker:
        worker.wait_for(f"deleted {past}, past the retention of 30 days")
        wait_for_documents(es, fresh_index_prefix, 1000)
        worker.wait_for(r"WARNING .*the clock of this machine is 31d ahead of the events that arrive \(")
        status, body = Asked(worker).get("/readyz")
        assert status == 503
        assert "the clock of this machine is 31d ahead" in body
        offset.with_suffix(".new").write_text("0")
        offset.with_suffix(".new").replace(offset)
        worker.wait_for("the clock agrees with the stream again")
        jetstream.pause()
        assert worker.stop() == 0
        counted = worker.counted()
    assert counted["expired"] == 0
    assert counted["received"] == counted["indexed"] == count(es, fresh_index_prefix)
    names = left(es, fresh_index_prefix)
    assert {f"{fresh_index_prefix}-{day_of(today - age)}" for age in (10, 1)} <= names
    assert past not in names
