"""Exponential back-off, used wherever the program retries."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Exponential delays in seconds. Half of each delay is fixed and half is random, up to `cap`."""

    def __init__(
        self, first: float = 0.5, cap: float = 30.0, rng: Callable[[], float] = random.random
    ) -> None:
        """Start with at most `first` seconds; `rng` returns a random number from 0 to 1."""
        self._first = first
        self._cap = cap
        self._rng = rng
        self.failures = 0
        """Number of calls of `next` since the last `reset`."""

    def next(self) -> float:
        """Return the next delay and count a failure."""
        # 2.0**1024 would overflow; every cap is reached long before 2.0**60.
        ceiling = min(self._cap, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return ceiling * (0.5 + 0.5 * self._rng())

    def reset(self) -> None:
        """Return to the first delay, after a success."""
        self.failures = 0
