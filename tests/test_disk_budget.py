"""`--max-disk`: which days are deleted, in which order, and which never are."""

from __future__ import annotations

import base64
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch, helpers

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import date_of
from slurp.elastic.disk_state import DiskState
from slurp.elastic.lifecycle import ANNOUNCEMENT_PERIOD
from slurp.elastic.setup import Setup
from slurp.elastic.templates import STATE_INDEX
from slurp.embedded.node import EmbeddedNode
from slurp.events.times import day_of
from slurp.lexicons import committed
from slurp.logs import Secrets
from slurp.pipeline.batches import BatchQueue
from slurp.pipeline.channel import Channel
from slurp.pipeline.disk_budget import BudgetClock, DiskBudget
from slurp.pipeline.progress import Counters
from slurp.pipeline.stream_clock import StreamClock
from tests.harness import until
from tests.idle_worker import IdleWorker
from tests.test_retention import Clock, remaining

MB = 10**6


def fill(es: Elasticsearch, index: str, *days: int, megabytes: float = 2) -> list[str]:
    """Create daily indices of about this size with incompressible content; return their names."""
    rng = random.Random(1)
    names = [f"{index}-{day_of(day)}" for day in days]
    for name in names:
        # The codec best_compression would shorten base64 by a quarter.
        es.indices.create(index=name, settings={"codec": "default"})
        texts = (base64.b64encode(rng.randbytes(37_500)).decode() for _ in range(round(megabytes * 20)))
        helpers.bulk(es, ({"_index": name, "noise": text} for text in texts))
        es.indices.flush(index=name, force=True)
        wait_for_size(es, name, megabytes * 0.9 * MB)
    return names


def wait_for_size(es: Elasticsearch, name: str, size: float) -> None:
    """Wait until the statistics show that an index has this many bytes.

    Elasticsearch caches sizes for 500 ms, and another client may just have read them.
    """

    def has_size() -> bool:
        total = es.indices.stats(index=name, metric="store,translog")["_all"]["total"]
        return bool(total["store"]["size_in_bytes"] + total["translog"]["size_in_bytes"] >= size)

    until(has_size)


class Trial:
    """A budget on a real node, with a clock that the test moves."""

    def __init__(self, es_node: EmbeddedNode, index: str) -> None:
        config = parse(["--es", es_node.url, "--index", index, "--max-disk", "100MB"], {})
        self.elastic = Elastic(config, Secrets(()))
        work = Setup(config, committed())
        work.run(self.elastic.client)
        self.index = index
        self.clock = Clock()
        self.ticks = 1000.0
        self.today = self.clock.day
        self.channel = Channel(BatchQueue(100, 10_000), Counters())
        self._put_templates = work.put_templates

    def days(self) -> DailyIndices:
        """Return the daily indices as a worker that starts now sees them."""
        days = DailyIndices(self.elastic, self.index, None, self._put_templates)
        days.disk_state.load()
        return days

    def budget(
        self,
        megabytes: float | None,
        *,
        saved: bool = True,
        clock: Callable[[], float | None] | None = None,
    ) -> DiskBudget:
        """Return the budget of a worker; `saved` when an earlier run had the same one."""
        limit = None if megabytes is None else round(megabytes * MB)
        days = self.days()
        if saved and limit is not None:
            days.disk_state.save_budget(limit)
        clocks = BudgetClock(earliest=clock or self.clock, monotonic=lambda: self.ticks)
        return DiskBudget(self.elastic, days, limit, self.channel, clocks)

    def step(self, budget: DiskBudget, seconds: float = 60.0) -> None:
        """Advance the clock, and measure, delete and pause as the worker does."""
        self.ticks += seconds
        assert budget.step()

    def lowest(self) -> str | None:
        """Return the saved lowest day."""
        found = self.elastic.client.get(index=STATE_INDEX, id=f"disk:{self.index}")["_source"]
        day: str | None = found.get("lowest_day")
        return day


@pytest.fixture
def trial(
    es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Trial:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Trial(es_node, fresh_index_prefix)


# Days that are deleted


def test_the_oldest_days_are_deleted_until_the_rest_fits_with_space_for_merges(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    today = trial.today
    _, second, third, last = fill(es, trial.index, today - 3, today - 2, today - 1, today)
    budget = trial.budget(8)
    trial.step(budget)
    assert remaining(es, trial.index) == {second, third, last}, (
        "three days of 2 MB fit, with a tenth for merges"
    )
    assert trial.lowest() == date_of(today - 2)
    assert budget.used is not None
    assert 6 * MB < budget.used < 7 * MB
    [message] = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("deleted ")
    ]
    assert message.startswith(
        f"deleted {trial.index}-{day_of(today - 3)} (2 MB): the daily indices use 8 MB, "
    )
    assert message.endswith(
        f"more than --max-disk 8 MB; events before {date_of(today - 2)} expire from now on"
    )
    trial.step(budget)
    assert remaining(es, trial.index) == {second, third, last}


def test_the_size_of_the_translog_counts(trial: Trial, es: Elasticsearch) -> None:
    name = f"{trial.index}-{day_of(trial.today)}"
    es.indices.create(index=name, settings={"refresh_interval": "-1"})
    es.index(index=name, document={"noise": "x" * 3_000_000})
    budget = trial.budget(100)
    trial.step(budget)
    assert budget.used is not None
    assert budget.used > 3 * MB


def test_only_indices_with_our_mark_count_and_are_deleted(trial: Trial, es: Elasticsearch) -> None:
    [marked] = fill(es, trial.index, trial.today - 1, megabytes=1)
    fill(es, f"{trial.index}-x", trial.today - 9)
    unmarked = f"{trial.index}-{day_of(trial.today - 9)}"
    es.indices.put_index_template(name=f"{trial.index}z", index_patterns=[unmarked], priority=900)
    fill(es, trial.index, trial.today - 9)
    budget = trial.budget(3)
    trial.step(budget)
    assert remaining(es, trial.index) == {marked, unmarked, f"{trial.index}-x-{day_of(trial.today - 9)}"}
    assert budget.used is not None
    assert budget.used < 2 * MB


def test_the_day_is_saved_before_its_index_is_deleted(
    trial: Trial, es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = fill(es, trial.index, trial.today - 1, trial.today)
    saves: list[tuple[int, set[str]]] = []
    save = DiskState.save

    def recorded_save(lowest: DiskState, day: int) -> None:
        save(lowest, day)
        saves.append((day, remaining(es, trial.index)))

    monkeypatch.setattr(DiskState, "save", recorded_save)
    trial.step(trial.budget(4))
    assert saves == [(trial.today, {first, second})]
    assert remaining(es, trial.index) == {second}


def test_an_index_that_a_kill_left_is_deleted_by_the_next_run(trial: Trial, es: Elasticsearch) -> None:
    _, second = fill(es, trial.index, trial.today - 1, trial.today)
    trial.days().disk_state.save(trial.today)
    budget = trial.budget(100)
    assert budget.lowest_day == trial.today
    trial.step(budget)
    assert remaining(es, trial.index) == {second}


def test_the_saved_lowest_day_never_decreases(trial: Trial, es: Elasticsearch) -> None:
    first, second = trial.days().disk_state, trial.days().disk_state
    first.save(200)
    second.save(100)
    assert trial.lowest() == date_of(200)
    second.load()
    assert second.oldest_day == 200
    es.delete(index=STATE_INDEX, id=f"disk:{trial.index}")
    second.load()
    assert trial.lowest() == date_of(200), "a running worker saves it again"


def test_the_highest_of_concurrent_saves_is_kept(trial: Trial) -> None:
    lowest = [trial.days().disk_state for _ in range(4)]
    threads = [threading.Thread(target=one.save, args=(100 + number,)) for number, one in enumerate(lowest)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trial.lowest() == date_of(103)


def test_a_worker_without_a_budget_loads_the_lowest_day_of_another_worker(
    trial: Trial, es: Elasticsearch
) -> None:
    first, _ = fill(es, trial.index, trial.today - 1, trial.today)
    other = trial.budget(None)
    trial.step(other)
    assert other.lowest_day is None
    trial.step(trial.budget(4))
    trial.step(other)
    assert other.lowest_day == trial.today
    assert first not in remaining(es, trial.index)
    assert not trial.channel.queue.paused


# Days that are not deleted


def test_deletions_for_a_new_or_smaller_budget_are_announced_ten_minutes_before(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(es, trial.index, trial.today - 1, trial.today)
    for before in ("off", "100 MB"):
        caplog.clear()
        budget = trial.budget(4, saved=False)
        trial.step(budget)
        message = f"--max-disk changed from {before} to 4 MB: in 10 minutes the oldest of 2 day(s)"
        assert message in caplog.text
        trial.step(budget, ANNOUNCEMENT_PERIOD - 1)
        assert len(remaining(es, trial.index)) == 2
        assert not trial.channel.queue.paused
        trial.days().disk_state.save_budget(100 * MB)
    trial.step(budget, 60)
    assert len(remaining(es, trial.index)) == 1
    assert trial.days().disk_state.budget == 4 * MB


def test_nothing_is_deleted_while_the_current_time_is_unknown(trial: Trial, es: Elasticsearch) -> None:
    fill(es, trial.index, trial.today - 2, trial.today - 1)
    budget = trial.budget(3, clock=lambda: None)
    trial.step(budget)
    assert len(remaining(es, trial.index)) == 2
    assert not trial.channel.queue.paused


def test_a_clock_a_month_ahead_does_not_delete_today(trial: Trial, es: Elasticsearch) -> None:
    _, today = fill(es, trial.index, trial.today - 1, trial.today)
    stream_us = int(trial.clock.now * 1e6)
    wrong = StreamClock(lambda: stream_us, lambda: trial.clock.now + 30 * 86_400, lambda: trial.ticks)
    trial.step(trial.budget(2, clock=wrong.earliest))
    assert remaining(es, trial.index) == {today}
    assert trial.channel.queue.paused


def test_future_days_count_and_are_not_deleted(trial: Trial, es: Elasticsearch) -> None:
    names = fill(es, trial.index, trial.today, trial.today + 1, trial.today + 300)
    budget = trial.budget(6)
    trial.step(budget)
    assert remaining(es, trial.index) == {*names}
    assert budget.error.startswith(f"reading is paused: {names[0]} and later days use 6 MB, ")


def test_reading_pauses_until_midnight_with_one_error_when_today_exceeds_the_budget(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    [name] = fill(es, trial.index, trial.today)
    watched = IdleWorker()
    watched.status.starting = ""
    budget = watched.status.disk = trial.budget(2)
    for _ in range(5):
        trial.step(budget)
    assert trial.channel.queue.paused
    assert remaining(es, trial.index) == {name}
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    # Elasticsearch may be merging: then the index uses more for a moment.
    used = rf"{name} uses \d MB, with space for merges more than --max-disk 2 MB"
    assert re.match(used, errors[0]), errors[0]
    assert "resumes after midnight (UTC)" in errors[0]
    assert watched.health.unready() == [budget.error]
    assert "reading_paused 1.0" in metrics(watched)
    trial.clock.now += 86_400
    trial.step(budget)
    assert not trial.channel.queue.paused
    assert not remaining(es, trial.index)
    assert not watched.health.unready()
    assert trial.lowest() == date_of(trial.today + 1)


def test_a_newer_time_from_a_server_lets_the_day_before_be_deleted_instead_of_pausing(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine was off since the day before, when the budget was nearly used up."""
    [yesterday] = fill(es, trial.index, trial.today - 1)
    now = trial.clock.now
    earliest = [now - 86_400]
    updated_at: list[float] = []

    def update() -> bool:
        updated_at.append(trial.ticks)
        earliest[0] = now
        return True

    budget = trial.budget(2, clock=lambda: earliest[0])
    budget._update_clock = update
    trial.step(budget)
    assert not remaining(es, trial.index)
    assert not trial.channel.queue.paused
    assert f"{yesterday} uses" not in caplog.text
    assert len(updated_at) == 1


def test_a_server_is_queried_for_the_time_once_per_minute(trial: Trial, es: Elasticsearch) -> None:
    fill(es, trial.index, trial.today)
    updated_at: list[float] = []
    budget = trial.budget(2)

    def update() -> bool:
        updated_at.append(trial.ticks)
        return False

    budget._update_clock = update
    for _ in range(13):
        trial.step(budget, 5)
    assert len(updated_at) == 2


def metrics(watched: IdleWorker) -> str:
    return watched.metrics.render("")[0].decode()


def test_disk_usage_budget_and_lowest_day_are_metrics(trial: Trial, es: Elasticsearch) -> None:
    fill(es, trial.index, trial.today - 1, trial.today)
    watched = IdleWorker()
    assert "skeetslurper_disk" not in metrics(watched)
    budget = watched.status.disk = trial.budget(4)
    assert "skeetslurper_disk_bytes" not in metrics(watched)
    trial.step(budget)
    text = metrics(watched)
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["skeetslurper_disk_limit_bytes"]) == 4 * MB
    assert float(values["skeetslurper_disk_bytes"]) == budget.used
    assert float(values["skeetslurper_reading_paused"]) == 0
    assert float(values["skeetslurper_lowest_day_seconds"]) == trial.today * 86_400


# Options and templates


@pytest.mark.parametrize(("text", "size"), [("50GB", 50 * 10**9), ("100MB", 100 * MB), ("off", 0)])
def test_the_option_accepts_sizes_and_off(text: str, size: int) -> None:
    assert parse(["--max-disk", text], {"HOME": "/x"}).max_disk == size
    assert parse([], {"HOME": "/x"}).max_disk is None


@pytest.mark.parametrize("text", ["300", "99MB", "many"])
def test_invalid_and_too_small_budgets_are_rejected(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--max-disk", text], {"HOME": "/x"})
    assert "--max-disk" in capsys.readouterr().err


def test_translog_and_segments_of_a_day_are_small_parts_of_the_budget(
    trial: Trial, es: Elasticsearch
) -> None:
    [name] = fill(es, trial.index, trial.today, megabytes=0.1)
    index: dict[str, Any] = es.indices.get_settings(index=name)[name]["settings"]["index"]
    assert index["translog"]["flush_threshold_size"] == "5000000b"
    assert index["merge"]["policy"]["max_merged_segment"] == "5000000b"
    assert index["store"]["stats_refresh_interval"] == "500ms"
