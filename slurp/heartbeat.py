"""Whether each thread still comes round, and the watchdog of systemd that is fed as long as all do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from slurp.notify import notify, watchdog_interval

log = logging.getLogger(__name__)


class Pulse:
    """Of one thread, from its first `beat` on. It beats whenever it comes round: as an attempt begins, not
    when one succeeds.

    So whoever holds a batch and tries again, or waits for a silent server, is alive; whoever hangs in one
    attempt for more than `limit` seconds is not.
    """

    def __init__(self, name: str, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.limit = limit
        self._clock = clock
        self._at: float | None = None

    def beat(self) -> None:
        self._at = self._clock()

    @property
    def still_for(self) -> float:
        """Seconds since the last beat."""
        return 0.0 if self._at is None else self._clock() - self._at

    @property
    def is_stuck(self) -> bool:
        return self.still_for > self.limit


class Watchdog:
    """Fed by the main thread, so that its own rounds are watched as well."""

    def __init__(
        self,
        interval: float | None = None,
        tell: Callable[[str], None] = notify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval` is the longest time without a sign of life; by default what systemd asks for."""
        self._interval = watchdog_interval() if interval is None else interval
        self._tell = tell
        self._clock = clock
        self._pulses: list[Pulse] = []
        self._due = clock()
        self._told: set[str] = set()

    def pulse(self, name: str, limit: float) -> Pulse:
        """A new pulse to be watched from now on."""
        pulse = Pulse(name, limit, self._clock)
        self._pulses.append(pulse)
        return pulse

    def forget(self, name: str) -> None:
        """The thread of that name has ended, and hangs no more."""
        for pulse in self.pulses:
            if pulse.name == name:
                self._pulses.remove(pulse)

    @property
    def pulses(self) -> list[Pulse]:
        return list(self._pulses)

    @property
    def stuck(self) -> list[Pulse]:
        """Of threads that hang."""
        return [pulse for pulse in self.pulses if pulse.is_stuck]

    def step(self) -> None:
        """Feed it when that is due, unless a thread is stuck."""
        if self._interval is None or self._clock() < self._due:
            return
        self._due = self._clock() + self._interval / 3
        stuck = self.stuck
        for pulse in stuck:
            if pulse.name not in self._told:
                log.error(
                    "%s hangs for %.0f s, which is a bug: the watchdog is not fed any more",
                    pulse.name,
                    pulse.still_for,
                )
        self._told = {pulse.name for pulse in stuck}
        if not stuck:
            self._tell("WATCHDOG=1")
