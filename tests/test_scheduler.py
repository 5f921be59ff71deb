"""The scheduler on a clock of the test: no thread, no sleep."""

from __future__ import annotations

import threading

import pytest

from slurp.scheduler import Scheduler
from slurp.watchdog import Heartbeat


class Time:
    """A clock, and tasks that take time on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.heartbeat = Heartbeat("test", 10.0, lambda: self.now)
        self.scheduler = Scheduler(self.heartbeat, lambda: self.now)
        self.runs: list[tuple[str, float]] = []

    def add(self, name: str, interval: float, takes: float = 0.0) -> None:
        def work() -> None:
            self.runs.append((name, self.now - 100))
            self.now += takes

        self.scheduler.every(interval, work)

    def run_until(self, end: float) -> None:
        while (pause := self.scheduler.run_due()) <= 100 + end - self.now:
            self.now += pause

    def times_of(self, name: str) -> list[float]:
        return [at for one, at in self.runs if one == name]


def test_each_task_runs_at_its_own_interval_the_first_time_after_one() -> None:
    time = Time()
    time.add("fast", 1.0)
    time.add("slow", 2.5)
    time.run_until(5)
    assert time.times_of("fast") == [1, 2, 3, 4, 5]
    assert time.times_of("slow") == [2.5, 5]


def test_a_late_task_runs_once_and_not_for_each_missed_interval() -> None:
    time = Time()
    time.add("slow", 1.0, takes=7.0)
    time.add("fast", 1.0)
    time.run_until(16)
    assert time.times_of("slow") == [1, 9]
    assert time.times_of("fast") == [8, 16], "it waits for the task before it, and runs once"


def test_tasks_that_are_due_together_run_in_the_order_they_were_added() -> None:
    time = Time()
    for name in ("a", "b", "c"):
        time.add(name, 1.0)
    time.run_until(1)
    assert [name for name, _ in time.runs] == ["a", "b", "c"]


def test_a_task_that_hangs_is_seen_and_a_pause_is_not() -> None:
    time = Time()
    stuck: list[bool] = []

    def hang() -> None:
        time.now += 11
        stuck.append(time.heartbeat.is_stuck)

    time.scheduler.every(1.0, hang)
    time.now += 1
    time.scheduler.run_due()
    assert stuck == [True]
    time.now += 1000
    assert not time.heartbeat.is_stuck


def test_it_runs_until_the_event_is_set() -> None:
    stop = threading.Event()
    scheduler = Scheduler(Heartbeat("test", 10.0))
    runs: list[int] = []

    def work() -> None:
        runs.append(len(runs))
        if len(runs) == 3:
            stop.set()

    scheduler.every(0.001, work)
    scheduler.run(stop)
    assert runs == [0, 1, 2]


def test_an_error_of_a_task_reaches_the_thread() -> None:
    scheduler = Scheduler(Heartbeat("test", 10.0), iter([0.0, 5.0, 5.0, 5.0]).__next__)
    scheduler.every(1.0, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scheduler.run_due()
