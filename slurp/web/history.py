"""The last minutes: a look at the counters every two seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.progress import Rates, Snapshot

EVERY = 2.0
MINUTES = 10
# A rate is over so many seconds: batches come one a second, and two looks may have one or three between them.
_OVER = 10.0


class Point(NamedTuple):
    """`ago` in seconds, rates in events a second, `lag` in seconds or None when unknown.

    The lag is the worst since the point before: it falls and rises with each batch, and looks as seldom as
    these would draw slow waves of that.
    """

    ago: float
    received: float
    answered: float
    lag: float | None


class _Look(NamedTuple):
    snapshot: Snapshot
    lag: float | None


class History:
    """`step` is called by one thread, a few times a second, `points` by any."""

    def __init__(self, status: WorkerStatus, clock: Callable[[], float] = time.monotonic) -> None:
        self._status = status
        self._clock = clock
        self._lock = threading.Lock()
        self._looks: deque[_Look] = deque(maxlen=int((MINUTES * 60 + _OVER) / EVERY) + 1)
        self._worst: float | None = None

    def step(self) -> None:
        lag = self._status.lag
        if lag is not None:
            self._worst = lag if self._worst is None else max(lag, self._worst)
        now = self._clock()
        if self._looks and now - self._looks[-1].snapshot.at < EVERY:
            return
        look = _Look(self._status.counters.snapshot(), self._worst)
        self._worst = None
        with self._lock:
            self._looks.append(look)

    def points(self) -> list[Point]:
        """The oldest first."""
        with self._lock:
            looks = list(self._looks)
        now, first, points = self._clock(), 0, []
        for last, look in enumerate(looks[1:], start=1):
            while look.snapshot.at - looks[first].snapshot.at > _OVER and first < last - 1:
                first += 1
            rates = Rates.between(looks[first].snapshot, look.snapshot)
            points.append(Point(now - look.snapshot.at, rates.received, rates.acknowledged, look.lag))
        return [point for point in points if point.ago <= MINUTES * 60]
