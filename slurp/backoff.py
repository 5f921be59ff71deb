"""How long to wait before trying again: the one back-off of this program."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Exponential delays in seconds with full jitter above a half, up to a cap."""

    def __init__(
        self, first: float = 0.5, cap: float = 30.0, chance: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._cap = cap
        self._chance = chance
        self.failures = 0

    def next(self) -> float:
        ceiling = min(self._cap, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return ceiling * (0.5 + 0.5 * self._chance())

    def reset(self) -> None:
        self.failures = 0
