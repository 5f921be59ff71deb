"""A thread that does something so many times a second, in small portions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

TICK = 0.02
"""Seconds between portions; also the coarsest delay that pacing adds to an event."""
_PORTION = 500
_JOIN_TIMEOUT = 4.0


class Pacer:
    """Calls `produce(count)` at `rate` a second until it makes less than it is asked for.

    Without a rate: as fast as `room()` says that somebody takes it.
    """

    def __init__(
        self, produce: Callable[[int], int], rate: float, room: Callable[[], int], name: str
    ) -> None:
        self._produce = produce
        self._rate = rate
        self._room = room
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(_JOIN_TIMEOUT)
        if self._thread.is_alive():
            log.warning("%s did not stop in time", self._thread.name)

    def _run(self) -> None:
        try:
            if self._rate > 0:
                self._keep_pace()
            else:
                self._follow_demand()
        except Exception:
            log.exception("%s died", self._thread.name)

    def _keep_pace(self) -> None:
        begin, made = time.monotonic(), 0
        while not self._stop.wait(max(TICK, begin + (made + 1) / self._rate - time.monotonic())):
            due = int((time.monotonic() - begin) * self._rate) - made
            if due > self._rate + _PORTION:
                # The machine slept: a second of arrears is made good, the rest never happened.
                begin, made, due = time.monotonic() - 1, 0, int(self._rate)
            while due > 0 and not self._stop.is_set():
                portion = min(due, _PORTION)
                if self._produce(portion) < portion:
                    return
                made += portion
                due -= portion

    def _follow_demand(self) -> None:
        while not self._stop.is_set():
            portion = min(self._room(), _PORTION)
            if portion <= 0:
                self._stop.wait(TICK / 4)
            elif self._produce(portion) < portion:
                return
