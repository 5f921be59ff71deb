"""The timers of one connection: write timeout, ping, pong and close. No I/O; the clock is injected."""

from __future__ import annotations

import time
from collections.abc import Callable

from slurp.simulator.options import ServerOptions

CLOSE_TIMEOUT = 1.0
"""Seconds between a close frame and the end of the TCP connection."""
_LONGEST_WAIT = 60.0


class Deadlines:
    """When a connection must act next, in seconds of a monotonic clock."""

    def __init__(self, options: ServerOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._blocked_since: float | None = None
        self._pong_due: float | None = None
        self._ping_due = 0.0
        self._close_due: float | None = None

    def start(self) -> None:
        """Schedule the first ping."""
        self._ping_due = self._clock() + self._options.ping_interval

    def write_blocked(self) -> None:
        """Start the write timeout: the kernel accepts no more bytes."""
        if self._blocked_since is None:
            self._blocked_since = self._clock()

    def write_progressed(self) -> None:
        """Reset the write timeout."""
        self._blocked_since = None

    def pong_received(self) -> None:
        """Reset the pong timeout."""
        self._pong_due = None

    def ping_sent(self) -> None:
        """Schedule the next ping. The oldest unanswered ping determines the pong timeout."""
        now = self._clock()
        self._ping_due = now + self._options.ping_interval
        if self._pong_due is None:
            self._pong_due = now + self._options.pong_timeout

    def close_sent(self) -> None:
        """Start, or restart, the close timeout."""
        self._close_due = self._clock() + CLOSE_TIMEOUT

    @property
    def closing(self) -> bool:
        """Whether the close timeout has started."""
        return self._close_due is not None

    @property
    def ping_is_due(self) -> bool:
        return self._clock() >= self._ping_due

    @property
    def write_expired(self) -> bool:
        return self._blocked_since is not None and (
            self._clock() - self._blocked_since >= self._options.write_timeout
        )

    @property
    def pong_expired(self) -> bool:
        return self._pong_due is not None and self._clock() >= self._pong_due

    @property
    def close_expired(self) -> bool:
        return self._close_due is not None and self._clock() >= self._close_due

    def seconds_left(self, *, pings: bool) -> float:
        """Return the seconds until the next deadline, at most 60; `pings` tells whether pings are sent."""
        due = [self._ping_due if pings else float("inf")]
        if self._blocked_since is not None:
            due.append(self._blocked_since + self._options.write_timeout)
        if self._pong_due is not None:
            due.append(self._pong_due)
        if self._close_due is not None:
            due.append(self._close_due)
        return min(_LONGEST_WAIT, max(0.0, min(due) - self._clock()))
