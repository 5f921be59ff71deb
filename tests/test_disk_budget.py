"""`--max-disk`: what is deleted, in which order, and what must never be."""

from __future__ import annotations

import base64
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch, helpers

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.lifecycle import THINK_AGAIN
from slurp.elastic.lowest_day import LowestDay, date_of
from slurp.elastic.setup import Setup
from slurp.elastic.templates import STATE_INDEX
from slurp.embedded.node import EmbeddedNode
from slurp.events.times import day_of
from slurp.lexicons import committed
from slurp.logs import Secrets
from slurp.pipeline.batches import BatchQueue
from slurp.pipeline.channel import Channel
from slurp.pipeline.dead_letters import DeadLetter, DeadLetterFile
from slurp.pipeline.disk_budget import BudgetClock, DiskBudget
from slurp.pipeline.progress import Counters
from slurp.pipeline.stream_clock import StreamClock
from slurp.simulator.jetstream import Simulator
from tests import disk_week
from tests.harness import InProcess
from tests.test_http_worker import Asked
from tests.test_lifecycle import Clock, left
from tests.watched import Watched
from tests.worker import Worker, count, wait_for_documents

MB = 10**6


def fill(es: Elasticsearch, index: str, *days: int, megabytes: float = 2) -> list[str]:
    """Make day indices of that size. What is in them can't be compressed."""
    dice = random.Random(1)
    names = [f"{index}-{day_of(day)}" for day in days]
    for name in names:
        es.indices.create(index=name)
        texts = (base64.b64encode(dice.randbytes(37_500)).decode() for _ in range(round(megabytes * 20)))
        helpers.bulk(es, ({"_index": name, "noise": text} for text in texts))
        es.indices.flush(index=name, force=True)
    return names


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
        days = DailyIndices(self.elastic, self.index, None, self._put_templates)
        days.lowest.load()
        return days

    def budget(
        self,
        megabytes: float | None,
        *,
        settled: bool = True,
        clock: Callable[[], float | None] | None = None,
    ) -> DiskBudget:
        """A worker's; `settled` when an earlier run had the same budget."""
        limit = None if megabytes is None else round(megabytes * MB)
        days = self.days()
        if settled and limit is not None:
            days.lowest.save_budget(limit)
        clocks = BudgetClock(clock or self.clock, lambda: self.ticks)
        return DiskBudget(self.elastic, days, limit, self.channel, clocks)

    def look(self, budget: DiskBudget, seconds: float = 60.0) -> None:
        """The next look, after so many seconds."""
        self.ticks += seconds
        assert budget.step()

    def lowest(self) -> str | None:
        """The saved day."""
        found = self.elastic.client.get(index=STATE_INDEX, id=f"disk:{self.index}")["_source"]
        day: str | None = found.get("lowest_day")
        return day


@pytest.fixture
def trial(
    es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Trial:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Trial(es_node, fresh_index_prefix)


# What is deleted


def test_the_oldest_days_go_until_the_others_fit_with_room_for_merges(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    today = trial.today
    _, second, third, last = fill(es, trial.index, today - 3, today - 2, today - 1, today)
    budget = trial.budget(8)
    trial.look(budget)
    assert left(es, trial.index) == {second, third, last}, "three of 2 MB, and a tenth for merges"
    assert trial.lowest() == date_of(today - 2)
    assert budget.used is not None
    assert 6 * MB < budget.used < 7 * MB
    [told] = [record.getMessage() for record in caplog.records if record.getMessage().startswith("deleted ")]
    assert told.startswith(f"deleted {trial.index}-{day_of(today - 3)} (2 MB): the daily indices use 8 MB, ")
    assert told.endswith(f"more than --max-disk 8 MB; events before {date_of(today - 2)} expire from now on")
    trial.look(budget)
    assert left(es, trial.index) == {second, third, last}


def test_a_translog_counts(trial: Trial, es: Elasticsearch) -> None:
    name = f"{trial.index}-{day_of(trial.today)}"
    es.indices.create(index=name, settings={"refresh_interval": "-1"})
    es.index(index=name, document={"noise": "x" * 3_000_000})
    budget = trial.budget(100)
    trial.look(budget)
    assert budget.used is not None
    assert budget.used > 3 * MB


def test_only_our_own_days_count(trial: Trial, es: Elasticsearch) -> None:
    [mine] = fill(es, trial.index, trial.today - 1, megabytes=1)
    fill(es, f"{trial.index}-x", trial.today - 9)
    unmarked = f"{trial.index}-{day_of(trial.today - 9)}"
    es.indices.put_index_template(name=f"{trial.index}z", index_patterns=[unmarked], priority=900)
    fill(es, trial.index, trial.today - 9)
    budget = trial.budget(3)
    trial.look(budget)
    assert left(es, trial.index) == {mine, unmarked, f"{trial.index}-x-{day_of(trial.today - 9)}"}
    assert budget.used is not None
    assert budget.used < 2 * MB


def test_the_day_is_saved_before_its_index_is_deleted(
    trial: Trial, es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = fill(es, trial.index, trial.today - 1, trial.today)
    seen: list[tuple[int, set[str]]] = []
    save = LowestDay.save

    def watched(lowest: LowestDay, day: int) -> None:
        save(lowest, day)
        seen.append((day, left(es, trial.index)))

    monkeypatch.setattr(LowestDay, "save", watched)
    trial.look(trial.budget(4))
    assert seen == [(trial.today, {first, second})]
    assert left(es, trial.index) == {second}


def test_what_a_kill_between_the_two_left_is_deleted_by_the_next_run(trial: Trial, es: Elasticsearch) -> None:
    _, second = fill(es, trial.index, trial.today - 1, trial.today)
    trial.days().lowest.save(trial.today)
    budget = trial.budget(100)
    assert budget.lowest_day == trial.today
    trial.look(budget)
    assert left(es, trial.index) == {second}


def test_the_lowest_day_is_never_lowered(trial: Trial, es: Elasticsearch) -> None:
    mine, other = trial.days().lowest, trial.days().lowest
    mine.save(200)
    other.save(100)
    assert trial.lowest() == date_of(200)
    other.load()
    assert other.day == 200
    es.delete(index=STATE_INDEX, id=f"disk:{trial.index}")
    other.load()
    assert trial.lowest() == date_of(200), "saved again by whoever runs"


def test_workers_that_save_at_once_end_with_the_highest(trial: Trial) -> None:
    lowest = [trial.days().lowest for _ in range(4)]
    threads = [threading.Thread(target=one.save, args=(100 + number,)) for number, one in enumerate(lowest)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trial.lowest() == date_of(103)


def test_a_worker_without_a_budget_learns_of_days_that_another_has_deleted(
    trial: Trial, es: Elasticsearch
) -> None:
    first, _ = fill(es, trial.index, trial.today - 1, trial.today)
    other = trial.budget(None)
    trial.look(other)
    assert other.lowest_day is None
    trial.look(trial.budget(4))
    trial.look(other)
    assert other.lowest_day == trial.today
    assert first not in left(es, trial.index)
    assert not trial.channel.queue.paused


# What is not


def test_a_new_or_smaller_budget_is_announced_ten_minutes_before(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(es, trial.index, trial.today - 1, trial.today)
    for before in ("off", "100 MB"):
        caplog.clear()
        budget = trial.budget(4, settled=False)
        trial.look(budget)
        message = f"--max-disk changed from {before} to 4 MB: in 10 minutes the oldest of 2 day(s)"
        assert message in caplog.text
        trial.look(budget, THINK_AGAIN - 1)
        assert len(left(es, trial.index)) == 2
        assert not trial.channel.queue.paused
        trial.days().lowest.save_budget(100 * MB)
    trial.look(budget, 60)
    assert len(left(es, trial.index)) == 1
    assert trial.days().lowest.budget == 4 * MB


def test_nothing_is_deleted_while_it_is_not_known_how_late_it_is(trial: Trial, es: Elasticsearch) -> None:
    fill(es, trial.index, trial.today - 2, trial.today - 1)
    budget = trial.budget(3, clock=lambda: None)
    trial.look(budget)
    assert len(left(es, trial.index)) == 2
    assert not trial.channel.queue.paused


def test_a_clock_that_is_a_month_ahead_deletes_nothing_of_today(trial: Trial, es: Elasticsearch) -> None:
    _, today = fill(es, trial.index, trial.today - 1, trial.today)
    stream_us = int(trial.clock.now * 1e6)
    wrong = StreamClock(lambda: stream_us, lambda: trial.clock.now + 30 * 86_400, lambda: trial.ticks)
    trial.look(trial.budget(2, clock=wrong.earliest))
    assert left(es, trial.index) == {today}
    assert trial.channel.queue.paused


def test_days_of_the_future_count_and_stay(trial: Trial, es: Elasticsearch) -> None:
    names = fill(es, trial.index, trial.today, trial.today + 1, trial.today + 300)
    budget = trial.budget(6)
    trial.look(budget)
    assert left(es, trial.index) == {*names}
    assert budget.error.startswith(f"reading is paused: {names[0]} and later days use 6 MB, ")


def test_today_alone_pauses_reading_until_midnight_with_one_error(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    [name] = fill(es, trial.index, trial.today)
    watched = Watched()
    watched.status.starting = ""
    budget = watched.status.disk = trial.budget(2)
    for _ in range(5):
        trial.look(budget)
    assert trial.channel.queue.paused
    assert left(es, trial.index) == {name}
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].startswith(f"{name} uses 2 MB, with space for merges more than --max-disk 2 MB")
    assert "resumes after midnight (UTC)" in errors[0]
    assert watched.health.unready() == [budget.error]
    assert "reading_paused 1.0" in metrics(watched)
    trial.clock.now += 86_400
    trial.look(budget)
    assert not trial.channel.queue.paused
    assert not left(es, trial.index)
    assert not watched.health.unready()
    assert trial.lowest() == date_of(trial.today + 1)


def test_a_stream_that_is_a_day_behind_does_not_pause_when_a_server_says_what_time_it_is(
    trial: Trial, es: Elasticsearch, caplog: pytest.LogCaptureFixture
) -> None:
    """A laptop that was off since yesterday, when the budget was nearly used."""
    [yesterday] = fill(es, trial.index, trial.today - 1)
    now = trial.clock.now
    known = [now - 86_400]
    asked: list[float] = []

    def learn() -> bool:
        asked.append(trial.ticks)
        known[0] = now
        return True

    budget = trial.budget(2, clock=lambda: known[0])
    budget._update_clock = learn
    trial.look(budget)
    assert not left(es, trial.index)
    assert not trial.channel.queue.paused
    assert f"{yesterday} takes" not in caplog.text
    assert len(asked) == 1


def test_a_server_is_asked_for_the_time_once_a_minute(trial: Trial, es: Elasticsearch) -> None:
    fill(es, trial.index, trial.today)
    asked: list[float] = []
    budget = trial.budget(2)

    def learn() -> bool:
        asked.append(trial.ticks)
        return False

    budget._update_clock = learn
    for _ in range(13):
        trial.look(budget, 5)
    assert len(asked) == 2


def metrics(watched: Watched) -> str:
    return watched.metrics.render("")[0].decode()


def test_size_budget_and_lowest_day_are_metrics(trial: Trial, es: Elasticsearch) -> None:
    fill(es, trial.index, trial.today - 1, trial.today)
    watched = Watched()
    assert "skeetslurper_disk" not in metrics(watched)
    budget = watched.status.disk = trial.budget(4)
    assert "skeetslurper_disk_bytes" not in metrics(watched)
    trial.look(budget)
    text = metrics(watched)
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["skeetslurper_disk_limit_bytes"]) == 4 * MB
    assert float(values["skeetslurper_disk_bytes"]) == budget.used
    assert float(values["skeetslurper_reading_paused"]) == 0
    assert float(values["skeetslurper_lowest_day_seconds"]) == trial.today * 86_400


# Events of deleted days


def test_events_of_deleted_days_expire_and_do_not_bring_the_index_back(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    indexer.days.lowest.save(indexer.day)
    counted = indexer.feed([*indexer.posts(20, days_ago=1), *indexer.posts(10, first=50)])
    assert (counted.expired, counted.indexed) == (20, 10)
    assert counted.adds_up
    assert left(es, fresh_index_prefix) == {indexer.today}


def test_events_in_flight_expire_when_their_day_is_deleted(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    yesterday = indexer.days.name(indexer.day - 1)
    indexer.feed(indexer.posts(1, days_ago=1))
    es.indices.close(index=yesterday)

    def cut() -> None:
        indexer.days.lowest.save(indexer.day)
        es.indices.delete(index=yesterday)

    counted = indexer.feed_through_outage(indexer.posts(20, first=1, days_ago=1), cut)
    assert (counted.expired, counted.indexed, counted.in_flight) == (20, 1, 0)
    assert not left(es, fresh_index_prefix)


def test_a_replay_of_dead_letters_does_not_bring_a_deleted_day_back(
    indexer: InProcess, es: Elasticsearch, es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.jsonl"
    with DeadLetterFile(path) as file:
        file.write([DeadLetter(frame, "once") for frame in indexer.posts(5, days_ago=1)], "host")
    indexer.days.lowest.save(indexer.day)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "slurp.deadletter", "replay", str(path)),
            *("--es", es_node.url, "--index", fresh_index_prefix),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        timeout=60,
    )
    assert done.returncode == 1
    assert "expired 5" in done.stderr
    assert "5 of days past --retention, or deleted for --max-disk, were not sent" in done.stderr
    assert not left(es, fresh_index_prefix)


# The real program


def test_a_worker_pauses_while_today_is_too_large_and_reads_on_with_a_larger_budget(
    trial: Trial, es_node: EmbeddedNode, es: Elasticsearch, jetstream: Simulator, tmp_path: Path
) -> None:
    [today] = fill(es, trial.index, trial.today, megabytes=95)
    there = count(es, trial.index)
    jetstream.generate(20_000, span=10)
    options = (
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", trial.index, "--no-kibana"),
        *("--stats-interval", "1s", "--flush", "100ms", "--http", "127.0.0.1:0", "--since", "0"),
        *("--batch", "100", "--buffer", "400", "--buffer-bytes", "200KB"),
    )
    with Worker(*options, "--max-disk", "100MB", home=tmp_path) as worker:
        worker.wait_for(f"ERROR +disk .*{today} takes .* more than --max-disk 100 MB; reading is paused")
        text = Asked(worker).wait("/readyz", 503, "reading is paused")
        assert f"{today} takes" in text
        worker.wait_for(r"in flight 0 \| .* \| disk \d+ MB of 100 MB")
        assert worker.counted()["received"] < 20_000
        assert worker.stop() == 0
    with Worker(*options, "--max-disk", "300MB", home=tmp_path) as worker:
        wait_for_documents(es, trial.index, there + 20_000)
        assert worker.stop() == 0
    assert left(es, trial.index) == {today}


def test_a_short_week_at_full_speed_stays_below_its_budget_and_a_replay_brings_no_day_back(
    tmp_path: Path,
) -> None:
    report = disk_week.run(tmp_path, budget=100 * MB, events=150_000, kills=1)
    print("\n".join(report.lines()))
    assert not report.failures
    assert report.days_kept < report.days_published
    assert report.expired


# Options and templates


@pytest.mark.parametrize(("text", "size"), [("50GB", 50 * 10**9), ("100MB", 100 * MB), ("off", 0)])
def test_sizes_of_the_option(text: str, size: int) -> None:
    assert parse(["--max-disk", text], {"HOME": "/x"}).max_disk == size
    assert parse([], {"HOME": "/x"}).max_disk is None


@pytest.mark.parametrize("text", ["300", "99MB", "many"])
def test_a_budget_that_can_not_be_meant_is_rejected(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--max-disk", text], {"HOME": "/x"})
    assert "--max-disk" in capsys.readouterr().err


def test_the_translog_of_a_day_is_a_small_part_of_the_budget(trial: Trial, es: Elasticsearch) -> None:
    [name] = fill(es, trial.index, trial.today, megabytes=0.1)
    index: dict[str, Any] = es.indices.get_settings(index=name)[name]["settings"]["index"]
    assert index["translog"]["flush_threshold_size"] == "5000000b"
    assert index["merge"]["policy"]["max_merged_segment"] == "5000000b"
    assert index["store"]["stats_refresh_interval"] == "500ms"
