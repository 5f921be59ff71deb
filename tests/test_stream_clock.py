"""The stream clock: a clock that is wrong by days deletes and expires nothing, and is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import Clocks
from slurp.elastic.lifecycle import Retention, RetentionOptions, enforced_retention
from slurp.embedded.node import EmbeddedNode
from slurp.events.times import day_of
from slurp.pipeline.stream_clock import StreamClock
from slurp.simulator.jetstream import Simulator
from tests.harness import InProcess
from tests.idle_worker import IdleWorker
from tests.test_http_worker import HttpClient
from tests.test_retention import create_days, elastic, index, remaining  # noqa: F401 - fixtures
from tests.test_worker_faults import SETTABLE
from tests.worker import PROGRAM, Worker, count, wait_for_documents

DAY = 86_400
NOW = 1_795_000_000.0


class Trial:
    """A `StreamClock` on clocks and a stream that the test moves. The clock is `ahead` by some seconds."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.now, self.ahead, self.ticks, self.stream = NOW, ahead, 100.0, 0.0
        self.clock = StreamClock(lambda: int(self.stream * 1e6), lambda: self.now + self.ahead, self.tick)
        self.clocks = Clocks(self.clock.probable, self.clock.earliest, self.tick)

    def tick(self) -> float:
        return self.ticks

    def advance(self, seconds: float, speed: float = 1.0) -> str:
        """Let time pass in ten steps, in the stream `speed` times as fast; return the last error or ''."""
        error = self.clock.check()
        for _ in range(10):
            self.now += seconds / 10
            self.ticks += seconds / 10
            self.stream += seconds / 10 * speed
            error = self.clock.check()
        return error


def test_there_is_no_earliest_time_before_the_first_event() -> None:
    trial = Trial()
    assert trial.clock.earliest() is None
    assert trial.clock.probable() == NOW
    trial.stream = NOW - 5
    assert trial.clock.earliest() == NOW - 5


@pytest.mark.parametrize("days", [31, -31])
def test_the_earliest_time_is_the_earlier_of_clock_and_stream(days: int) -> None:
    trial = Trial(ahead=days * DAY)
    trial.stream = NOW
    assert trial.clock.earliest() == pytest.approx(NOW + min(0, days * DAY))
    assert trial.clock.probable() == pytest.approx(NOW), "the stream wins if they differ by more than a day"


def test_time_since_the_last_event_is_added_to_the_stream() -> None:
    """A filtered stream may be silent for days, and old days must still be deleted."""
    trial = Trial()
    trial.stream = NOW
    trial.advance(5 * DAY, speed=0)
    assert trial.clock.earliest() == pytest.approx(NOW + 5 * DAY)
    trial.stream -= 40 * DAY  # a replay
    assert trial.clock.earliest() == pytest.approx(NOW + 5 * DAY)


def test_the_time_of_a_checkpoint_counts_before_the_first_event() -> None:
    trial = Trial(ahead=31 * DAY)
    trial.clock.saw(int((NOW - 3600) * 1e6))
    assert trial.clock.earliest() == pytest.approx(NOW - 3600)


@pytest.mark.parametrize(("days", "word"), [(31, "ahead of"), (-31, "behind")])
def test_a_clock_that_is_off_by_days_is_reported(days: int, word: str) -> None:
    trial = Trial(ahead=days * DAY)
    trial.stream = NOW
    assert trial.advance(60) == "", "not measured yet"
    assert f"the clock of this machine is 31d {word} the events that arrive (" in trial.advance(300)
    trial.ahead = 0
    assert trial.advance(10) == ""


def test_a_stream_that_is_a_day_behind_the_clock_is_detected() -> None:
    trial = Trial()
    assert not trial.clock.is_behind(), "there is no event yet"
    trial.stream = NOW
    assert not trial.clock.is_behind()
    trial.now += DAY  # the machine was asleep: the monotonic clock does not advance
    assert trial.clock.is_behind()
    trial.clock.saw(int(trial.now * 1e6))
    assert not trial.clock.is_behind()


def test_a_clock_that_is_off_by_hours_is_not_reported() -> None:
    trial = Trial(ahead=20 * 3600)
    trial.stream = NOW
    assert trial.advance(3600) == ""


@pytest.mark.parametrize("speed", [0.0, 5.0])
def test_neither_a_replay_nor_silence_is_taken_for_a_wrong_clock(speed: float) -> None:
    trial = Trial()
    trial.stream = NOW - 20 * DAY
    assert trial.advance(DAY, speed) == ""


def test_a_worker_with_a_wrong_clock_is_not_ready() -> None:
    watched = IdleWorker()
    watched.finish_startup()
    before = watched.health.unready()
    watched.status.clock_error = "the clock of this machine is 31d ahead of the events that arrive"
    assert watched.health.unready() == [*before, watched.status.clock_error]


# Expiry and retention


def no_templates(client: Elasticsearch) -> None:
    pass


def test_an_event_expires_by_the_earlier_of_clock_and_stream(elastic: Elastic) -> None:  # noqa: F811
    trial = Trial(ahead=31 * DAY)
    today = int(NOW) // DAY

    def expired(age: int, seen_us: int | None = None) -> bool:
        days = DailyIndices(elastic, "ev", 30, no_templates, trial.clocks)
        return days.is_expired(today - age, seen_us)

    # The first batch of a first run: only its own events give a bound.
    assert not expired(2, int(NOW * 1e6))
    assert expired(31, int(NOW * 1e6))
    assert expired(2), "without any event the clock decides"
    trial.stream = NOW
    assert not expired(2)
    assert expired(31)


def test_the_index_for_tomorrow_follows_the_day_of_the_stream(
    elastic: Elastic,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = Trial(ahead=31 * DAY)
    trial.stream = NOW // DAY * DAY - 60
    created: list[int] = []
    monkeypatch.setattr(DailyIndices, "ensure", lambda self, day: created.append(day))
    DailyIndices(elastic, "ev", 30, no_templates, trial.clocks).ensure_tomorrow()
    assert created == [int(NOW) // DAY]


def test_retention_deletes_nothing_before_the_first_event_and_then_by_the_stream(
    es: Elasticsearch,
    elastic: Elastic,  # noqa: F811
    index: str,  # noqa: F811
) -> None:
    today = int(NOW) // DAY
    deleted, *kept = create_days(es, index, today - 31, today - 30, today - 1, today)
    trial = Trial(ahead=31 * DAY)
    retention = Retention(elastic, RetentionOptions(index, 30), trial.clocks)
    assert not retention.step()
    assert len(remaining(es, index)) == 4
    assert enforced_retention(es, index) is None, "retention has not run yet"
    trial.stream = NOW
    assert retention.step()
    assert remaining(es, index) == {*kept}
    assert deleted not in kept


# The real program


# Imported after the clock is replaced: modules imported before would keep the real one.
SHORT_MEASUREMENT = """from slurp.pipeline import stream_clock
stream_clock._MEASURE = 2.0
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
    source = SETTABLE.replace("from skeetslurper import main\n", SHORT_MEASUREMENT)
    program.write_text(source.format(root=PROGRAM.parent))
    offset.write_text(str(31 * DAY))
    today = indexer.day
    create_days(es, fresh_index_prefix, today - 40, today - 10, today - 1)
    expired_day = f"{fresh_index_prefix}-{day_of(today - 40)}"
    jetstream.run_at(500)
    options = (
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix, "--no-kibana"),
        *("--retention", "30d", "--stats-interval", "1s", "--flush", "200ms", "--http", "127.0.0.1:0"),
    )
    with Worker(*options, home=tmp_path, program=program, env={"OFFSET": str(offset)}) as worker:
        worker.wait_for(f"deleted {expired_day}, past the retention of 30 days")
        wait_for_documents(es, fresh_index_prefix, 1000)
        worker.wait_for(r"WARNING .*the clock of this machine is 31d ahead of the events that arrive \(")
        status, body = HttpClient(worker).get("/readyz")
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
    names = remaining(es, fresh_index_prefix)
    assert {f"{fresh_index_prefix}-{day_of(today - age)}" for age in (10, 1)} <= names
    assert expired_day not in names
