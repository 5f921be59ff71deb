"""Requests to stop: SIGINT, SIGTERM and SIGHUP, noted by a handler that touches no lock.

This module imports little: a program installs it before it imports anything that takes time.
"""

from __future__ import annotations

import os
import signal
import time

# Not that of typing, whose import takes longer than all the others here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# Seconds between two signals that count. Some senders repeat a signal within a millisecond, and a terminal
# and a supervisor may both send one: that is one request.
APART = 1.0
_POLL = 0.1


class StopSignals:
    """Count the signals that ask this process to stop.

    The first one asks the main thread to stop in order, a second one to stop at once. The handler only
    assigns attributes, because the thread that it interrupts may hold any lock. The main thread reads
    `requested` or `again`, or calls `is_set` or `wait`, about ten times a second. When it has not done so for
    `stuck_after` seconds (still importing, or blocked in a write or another system call), a second
    signal ends the process with exit code 1.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, leave: Callable[[int], object] = os._exit
    ) -> None:
        self.stuck_after = 2.0
        self._clock = clock
        self._leave = leave
        self._count = 0
        self._counted_at = 0.0
        self._looked_at = float("-inf")

    def install(self) -> None:
        """Take the signals over. SIGHUP stays ignored where the process was started so (nohup)."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.on_signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: no lock, no log, nothing that can block."""
        now = self._clock()
        if self._count:
            if now - self._counted_at < APART:
                return
            if now - self._looked_at > self.stuck_after:
                self._leave(1)
        self._count += 1
        self._counted_at = now

    @property
    def requested(self) -> bool:
        """Whether a signal asked to stop."""
        self._looked_at = self._clock()
        return self._count > 0

    @property
    def again(self) -> bool:
        """Whether a second signal asked to stop at once."""
        self._looked_at = self._clock()
        return self._count > 1

    def is_set(self) -> bool:
        """Return `requested`, as an Event of threading does."""
        return self.requested

    def wait(self, seconds: float = float("inf")) -> bool:
        """Sleep on the main thread until a signal asks to stop or the time is over; return `requested`."""
        until = self._clock() + seconds
        while not self.requested and (left := until - self._clock()) > 0:
            time.sleep(min(left, _POLL))
        return self.requested
