"""A clock for simulators that a test moves: events of some hours in a second."""

from __future__ import annotations

import time


class Clock:
    """Now, or some seconds before."""

    def __init__(self) -> None:
        self.ago = 0.0

    def __call__(self) -> float:
        return time.time() - self.ago
