"""A clock for simulators that tests can set back, to generate hours of events in a second."""

from __future__ import annotations

import time


class Clock:
    """The current time minus `ago` seconds."""

    def __init__(self) -> None:
        self.ago = 0.0

    def __call__(self) -> float:
        return time.time() - self.ago
