"""Estimate of the current time from the local clock and the stream, by which days expire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from slurp.units import format_duration

_DAY = 86_400.0
# Seconds over which the speed of the stream is measured.
_MEASURE = 120.0


class StreamClock:
    """A lower bound of the time that is independent of the clock of this machine.

    No event is acknowledged before it happened. So it is at least as late as the median time of acknowledged
    events, plus the monotonic time since then; this also holds in a replay, and with a filter that matches no
    event for days.
    """

    def __init__(
        self,
        stream_us: Callable[[], int],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stream_us` returns the median time of the newest acknowledged events (Unix microseconds), or 0."""
        self._stream_us = stream_us
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # The bound minus the monotonic clock.
        self._offset: float | None = None
        self._measured: tuple[float, int] | None = None
        self._is_live = False

    def saw(self, time_us: int) -> None:
        """Raise the bound to `time_us`, e.g. of the checkpoint of an earlier run."""
        offset = time_us / 1e6 - self._monotonic()
        with self._lock:
            if self._offset is None or offset > self._offset:
                self._offset = offset

    def earliest(self) -> float | None:
        """Return the earlier of the clock and the bound (Unix seconds); None before there is a bound."""
        bound = self._bound()
        return None if bound is None else min(self._clock(), bound)

    def is_behind(self) -> bool:
        """Return whether the clock shows a later day than the bound.

        Then a new event of a server decides which one is right: the stream may be behind, or the machine was
        asleep, which the monotonic clock leaves out.
        """
        bound = self._bound()
        return bound is not None and self._clock() // _DAY > bound // _DAY

    def probable(self) -> float:
        """Return Unix seconds by the clock, or by the stream where they differ by more than a day."""
        now, bound = self._clock(), self._bound()
        return now if bound is None or abs(now - bound) <= _DAY else bound

    def check(self) -> str:
        """Return how the clock differs from a live stream, '' if it does not. To be called periodically.

        A stream that moves as fast as time and is more than a day off counts as live. A faster one is
        catching up; one that stands still proves nothing.
        """
        now, stream_us = self._monotonic(), self._stream_us()
        self._bound()
        if not stream_us:
            return ""
        if self._measured is None:
            self._measured = now, stream_us
        elif (passed := now - self._measured[0]) >= _MEASURE:
            moved = (stream_us - self._measured[1]) / 1e6
            self._is_live = passed / 2 < moved < passed * 1.5
            self._measured = now, stream_us
        clock, stream = self._clock(), stream_us / 1e6
        if not self._is_live or abs(clock - stream) <= _DAY:
            return ""
        return (
            f"the clock of this machine is {format_duration(abs(clock - stream))} "
            f"{'ahead of' if clock > stream else 'behind'} the events that arrive ({_utc(clock)} against "
            f"{_utc(stream)}): set it; until then days are deleted by the earlier of the two"
        )

    def _bound(self) -> float | None:
        if stream_us := self._stream_us():
            self.saw(stream_us)
        with self._lock:
            return None if self._offset is None else self._offset + self._monotonic()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
