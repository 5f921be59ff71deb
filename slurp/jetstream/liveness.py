"""Whether a Jetstream server is alive, judged by its data and its pongs. Pure: times are passed in.

All times are monotonic seconds.
"""

from __future__ import annotations

from slurp.jetstream.subscription import Subscription

_PING_WHEN_SILENT = 1.0
# A server that is alive sends a pong within this many seconds.
_PONG_WITHIN = 2.0
# Pings kept until their pong arrives; some servers never send one.
_MAX_PINGS = 16
# With collection filters pongs keep a quiet stream alive for this many stall time-outs: identity and account
# events are still expected.
_QUIET_TIMES = 10


class Liveness:
    """Timers of one connection."""

    def __init__(
        self, subscription: Subscription, stall: float, now: float, *, ping_when_silent: bool
    ) -> None:
        """`stall` is `--stall-timeout` in seconds; `ping_when_silent` makes `silent_for` more exact."""
        self._subscription = subscription
        self._stall = stall
        self._ping_when_silent = _PING_WHEN_SILENT if ping_when_silent else float("inf")
        self._pings: dict[bytes, float] = {}
        # When the last ping that was answered was sent.
        self._answered = float("-inf")
        # When the server last was slow, and so has data left to send.
        self._slow_at = 0.0
        self.last_data = self._last_pong = self._last_ping = now

    @property
    def silent_for(self) -> float:
        """Seconds for which the server answered each ping in time and had no data to send."""
        return max(0.0, self._answered - max(self.last_data, self._slow_at))

    def restart(self, now: float) -> None:
        """Restart all timers, after a time in which nothing was read."""
        self.last_data = self._last_pong = self._last_ping = now

    def data(self, now: float) -> None:
        """Record received data."""
        self.last_data = now

    def pong(self, payload: bytes, now: float) -> None:
        """Record a pong."""
        self._last_pong = now
        if (sent := self._pings.pop(payload, None)) is None:
            return
        if now - sent > _PONG_WITHIN:
            self._slow_at = now
        self._answered = sent

    def next_ping(self, now: float) -> bytes | None:
        """Return the payload of a ping to send now, None while none is due."""
        pause = now - self._last_ping
        if pause < self._stall / 3 and min(pause, now - self.last_data) < self._ping_when_silent:
            return None
        self._last_ping = now
        if self._pings and now - next(iter(self._pings.values())) > _PONG_WITHIN:
            self._slow_at = now
        payload = str(now).encode()
        self._pings[payload] = now
        if len(self._pings) > _MAX_PINGS:
            del self._pings[next(iter(self._pings))]
        return payload

    def is_stalled(self, now: float) -> bool:
        """Return whether to give the connection up."""
        silent = now - self.last_data
        if silent < self._stall:
            return False
        no_pong = now - self._last_pong >= self._stall
        if self._subscription.dids:
            return no_pong
        if self._subscription.collections:
            return no_pong or silent >= _QUIET_TIMES * self._stall
        return True
