"""Rates and lag of the last ten minutes, sampled from the counters every two seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.progress import Rates, Snapshot

# Seconds between two samples.
INTERVAL = 2.0
MINUTES = 10
# A rate is the average of so many seconds. There is about one batch a second, so between two samples there
# may be one or three, and a shorter window would show that as a jitter.
_RATE_WINDOW = 10.0


class Point(NamedTuple):
    """Rates in events per second and the lag in seconds (None when unknown), `ago` seconds before now.

    The lag is the maximum since the previous point. It rises and falls with each batch; sampling the current
    value every two seconds would show that as slow waves.
    """

    ago: float
    received: float
    acknowledged: float
    lag: float | None


class _Sample(NamedTuple):
    snapshot: Snapshot
    lag: float | None


class History:
    """A bounded series of samples. One thread calls `step` several times a second, any thread `points`."""

    def __init__(self, status: WorkerStatus, clock: Callable[[], float] = time.monotonic) -> None:
        self._status = status
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[_Sample] = deque(maxlen=int((MINUTES * 60 + _RATE_WINDOW) / INTERVAL) + 1)
        self._max_lag: float | None = None

    def step(self) -> None:
        """Update the maximum of the lag; take a sample when one is due."""
        lag = self._status.lag
        if lag is not None:
            self._max_lag = lag if self._max_lag is None else max(lag, self._max_lag)
        now = self._clock()
        if self._samples and now - self._samples[-1].snapshot.at < INTERVAL:
            return
        sample = _Sample(self._status.counters.snapshot(), self._max_lag)
        self._max_lag = None
        with self._lock:
            self._samples.append(sample)

    def points(self) -> list[Point]:
        """Return the points of the last ten minutes, oldest first."""
        with self._lock:
            samples = list(self._samples)
        now, first, points = self._clock(), 0, []
        for last, sample in enumerate(samples[1:], start=1):
            while sample.snapshot.at - samples[first].snapshot.at > _RATE_WINDOW and first < last - 1:
                first += 1
            rates = Rates.between(samples[first].snapshot, sample.snapshot)
            points.append(Point(now - sample.snapshot.at, rates.received, rates.acknowledged, sample.lag))
        return [point for point in points if point.ago <= MINUTES * 60]
