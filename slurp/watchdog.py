"""Whether each thread still comes round, and the watchdog of systemd that is fed as long as all do."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Self

log = logging.getLogger(__name__)


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send `READY=1` and the like. Does nothing where nobody listens, and never raises or waits."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    # A name with an @ is an abstract socket, which has no file.
    target = "\0" + address[1:] if address[0] == "@" else address
    # A line end in a value would begin another assignment.
    message = "\n".join(line.replace("\n", " ") for line in lines)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode("utf-8", "replace"), target)
    except (OSError, ValueError):
        pass  # whoever supervises us is no reason to stop


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds within which systemd wants a sign of life of this process, or None when it wants none."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdigit()) or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1e6


# Seconds between two looks where systemd asks for none.
_LOOK_EVERY = 10.0


class Pulse:
    """Of one thread, from its first `beat` on. It beats whenever it comes round: as an attempt begins, not
    when one succeeds.

    So whoever holds a batch and tries again, or waits for a silent server, is alive; whoever hangs in one
    attempt for more than `limit` seconds is not. A thread that pauses for long between its attempts makes
    each of them in a `with` block, and is not watched in the pause.
    """

    def __init__(
        self, name: str, limit: float, clock: Callable[[], float] = time.monotonic, *, vital: bool = True
    ) -> None:
        """A thread that is not `vital` is reported when it hangs, and no reason to restart the worker."""
        self.name = name
        self.limit = limit
        self.vital = vital
        self._clock = clock
        self._at: float | None = None

    def beat(self) -> None:
        self._at = self._clock()

    def rest(self) -> None:
        """Stop the count until the next beat."""
        self._at = None

    def __enter__(self) -> Self:
        self.beat()
        return self

    def __exit__(self, *error: object) -> None:
        self.rest()

    @property
    def still_for(self) -> float:
        """Seconds since the last beat, 0 in a pause."""
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

    def pulse(self, name: str, limit: float, *, vital: bool = True) -> Pulse:
        """A new pulse to be watched from now on."""
        pulse = Pulse(name, limit, self._clock, vital=vital)
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
        """Of threads that hang and that the worker can't do without."""
        return [pulse for pulse in self.pulses if pulse.is_stuck and pulse.vital]

    @property
    def impaired(self) -> list[Pulse]:
        """Of threads that hang while indexing goes on without them."""
        return [pulse for pulse in self.pulses if pulse.is_stuck and not pulse.vital]

    def step(self) -> None:
        """Log each thread that hangs, once; feed the watchdog of systemd when that is due and no vital thread
        hangs."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + (_LOOK_EVERY if self._interval is None else self._interval / 3)
        stuck, impaired = self.stuck, self.impaired
        for pulse in stuck + impaired:
            if pulse.name not in self._told:
                log.error(
                    "%s hangs for %.0f s, which is a bug; %s",
                    pulse.name,
                    pulse.still_for,
                    "/healthz answers 503, and the watchdog of systemd is not fed any more"
                    if pulse.vital
                    else "indexing goes on",
                )
        self._told = {pulse.name for pulse in stuck + impaired}
        if not stuck and self._interval is not None:
            self._tell("WATCHDOG=1")
