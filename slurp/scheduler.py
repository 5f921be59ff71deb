"""Periodic tasks on one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from slurp.watchdog import Heartbeat


@dataclass(slots=True)
class _Task:
    work: Callable[[], object]
    interval: float
    due: float


class Scheduler:
    """Runs tasks one after another on the thread that calls `run`, each at its own interval.

    A task that takes longer than its interval delays the others and is then run once, not once for each
    interval it missed. Work that can take long has a scheduler, and so a thread, of its own.
    """

    def __init__(self, heartbeat: Heartbeat, clock: Callable[[], float] = time.monotonic) -> None:
        """`heartbeat` beats before each task and rests between them."""
        self._heartbeat = heartbeat
        self._clock = clock
        self._tasks: list[_Task] = []

    def every(self, interval: float, work: Callable[[], object]) -> None:
        """Run `work` every `interval` seconds, the first time after one interval. An exception ends `run`."""
        self._tasks.append(_Task(work, interval, self._clock() + interval))

    def run_due(self) -> float:
        """Run all tasks that are due, in the order they were added; return the seconds until the next one."""
        now = self._clock()
        due = [task for task in self._tasks if task.due <= now]
        if due:
            with self._heartbeat:
                for task in due:
                    self._heartbeat.beat()
                    task.work()
                    task.due = self._clock() + task.interval
        return max(0.0, min(task.due for task in self._tasks) - self._clock())

    def run(self, stop: threading.Event) -> None:
        """Run tasks until `stop` is set."""
        while not stop.wait(self.run_due()):
            pass
