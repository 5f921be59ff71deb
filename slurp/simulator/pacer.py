"""A thread that produces events at a given rate, in small batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

TICK = 0.02
"""Seconds between batches; also the longest delay that pacing adds to an event."""
_BATCH = 500
_JOIN_TIMEOUT = 4.0


class Pacer:
    """Calls `produce(count)` at `rate` events per second until it produces fewer than requested.

    With rate 0 it produces as many as `room()` allows.
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
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop the thread and wait for its end, at most 4 s."""
        self._stop.set()
        self._thread.join(_JOIN_TIMEOUT)
        if self._thread.is_alive():
            log.warning("%s did not stop within %.0f s", self._thread.name, _JOIN_TIMEOUT)

    def _run(self) -> None:
        try:
            if self._rate > 0:
                self._keep_pace()
            else:
                self._follow_demand()
        except Exception:
            log.exception("%s failed", self._thread.name)

    def _keep_pace(self) -> None:
        begin, produced = time.monotonic(), 0
        while not self._stop.wait(max(TICK, begin + (produced + 1) / self._rate - time.monotonic())):
            due = int((time.monotonic() - begin) * self._rate) - produced
            if due > self._rate + _BATCH:
                # The machine was suspended: produce one second of the backlog, skip the rest.
                begin, produced, due = time.monotonic() - 1, 0, int(self._rate)
            while due > 0 and not self._stop.is_set():
                count = min(due, _BATCH)
                if self._produce(count) < count:
                    return
                produced += count
                due -= count

    def _follow_demand(self) -> None:
        while not self._stop.is_set():
            count = min(self._room(), _BATCH)
            if count <= 0:
                self._stop.wait(TICK / 4)
            elif self._produce(count) < count:
                return
