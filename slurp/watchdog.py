"""Detection of stuck threads, and the keep-alive messages for the systemd watchdog."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Self

log = logging.getLogger(__name__)


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send lines such as `READY=1` to systemd (the protocol of sd_notify).

    Does nothing without `NOTIFY_SOCKET`; never raises and never blocks.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    # A name with an @ is an abstract socket, which has no file.
    target = "\0" + address[1:] if address[0] == "@" else address
    # A line end within a value would begin another assignment.
    message = "\n".join(line.replace("\n", " ") for line in lines)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode("utf-8", "replace"), target)
    except (OSError, ValueError):
        pass  # A failed notification must not stop the worker.


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return the time-out of the systemd watchdog in seconds, or None when it is off for this process."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdigit()) or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1e6


# Seconds between two checks when systemd does not watch this process.
_CHECK_EVERY = 10.0


class Heartbeat:
    """The heartbeat of one thread, watched from its first `beat`.

    A thread beats at the beginning of each attempt, not after its success. So a thread that retries a batch
    or waits for a silent server is alive; a thread that spends more than `limit` seconds in one attempt is
    stuck. A thread with long pauses between its attempts wraps each attempt in a `with` block and is not
    watched in the pauses.
    """

    def __init__(
        self, name: str, limit: float, clock: Callable[[], float] = time.monotonic, *, vital: bool = True
    ) -> None:
        """`limit` is in seconds. A stuck thread that is not `vital` is reported, and indexing continues."""
        self.name = name
        self.limit = limit
        self.vital = vital
        self._clock = clock
        self._at: float | None = None

    def beat(self) -> None:
        """Record that the thread begins another attempt."""
        self._at = self._clock()

    def rest(self) -> None:
        """Stop watching until the next beat."""
        self._at = None

    def __enter__(self) -> Self:
        self.beat()
        return self

    def __exit__(self, *error: object) -> None:
        self.rest()

    @property
    def seconds_since_beat(self) -> float:
        """Seconds since the last beat, 0 in a pause."""
        return 0.0 if self._at is None else self._clock() - self._at

    @property
    def is_stuck(self) -> bool:
        return self.seconds_since_beat > self.limit


class Watchdog:
    """The heartbeats of all threads. The main thread calls `step`, so that it is watched as well."""

    def __init__(
        self,
        interval: float | None = None,
        send: Callable[[str], None] = notify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval` is the time-out of the systemd watchdog in seconds, by default from the environment."""
        self._interval = watchdog_interval() if interval is None else interval
        self._send = send
        self._clock = clock
        self._heartbeats: list[Heartbeat] = []
        self._due = clock()
        self._reported: set[str] = set()

    def heartbeat(self, name: str, limit: float, *, vital: bool = True) -> Heartbeat:
        """Add and return a new heartbeat."""
        heartbeat = Heartbeat(name, limit, self._clock, vital=vital)
        self._heartbeats.append(heartbeat)
        return heartbeat

    def forget(self, name: str) -> None:
        """Remove the heartbeat of a thread that has ended."""
        for heartbeat in self.heartbeats:
            if heartbeat.name == name:
                self._heartbeats.remove(heartbeat)

    @property
    def heartbeats(self) -> list[Heartbeat]:
        return list(self._heartbeats)

    @property
    def stuck(self) -> list[Heartbeat]:
        """The heartbeats of stuck threads that indexing needs."""
        return [heartbeat for heartbeat in self.heartbeats if heartbeat.is_stuck and heartbeat.vital]

    @property
    def impaired(self) -> list[Heartbeat]:
        """The heartbeats of stuck threads that indexing does not need."""
        return [heartbeat for heartbeat in self.heartbeats if heartbeat.is_stuck and not heartbeat.vital]

    def step(self) -> None:
        """Log each stuck thread once. Send the keep-alive to systemd if due and no vital thread is stuck."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + (_CHECK_EVERY if self._interval is None else self._interval / 3)
        stuck, impaired = self.stuck, self.impaired
        for heartbeat in stuck + impaired:
            if heartbeat.name not in self._reported:
                log.error(
                    "thread %s has been stuck for %.0f s, which is a bug; %s",
                    heartbeat.name,
                    heartbeat.seconds_since_beat,
                    "/healthz returns 503 and the keep-alive to the systemd watchdog is suspended"
                    if heartbeat.vital
                    else "indexing continues",
                )
        self._reported = {heartbeat.name for heartbeat in stuck + impaired}
        if not stuck and self._interval is not None:
            self._send("WATCHDOG=1")
