"""Rate-limited log messages about an outage: when it starts, while it lasts, and when it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

# Seconds. A shorter outage that starts soon after a message is not logged.
_BRIEF = 2.0


class OutageLog:
    """The state of one possible outage. Thread-safe.

    Logs a warning when the outage starts, one each `interval` seconds while it lasts, and one message when it
    ends. Errors that come and go many times a second, such as rejected bulk requests, are limited as well:
    until `interval` seconds after the last warning, only an outage longer than `_BRIEF` is logged.
    """

    def __init__(
        self,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        failing_message: str = "Elasticsearch: {}; holding the events in flight and retrying",
        recovered_message: str = "Elasticsearch accepts documents again",
    ) -> None:
        """`failing_message` contains {} for the reason. The duration is appended to both messages."""
        self._lock = threading.Lock()
        self._clock = clock
        self._interval = interval
        self._failing_message = failing_message
        self._recovered_message = recovered_message
        self._since: float | None = None
        self._reason = ""
        self._is_logged = False
        self._last_warning = float("-inf")

    def failing(self, reason: str) -> None:
        """Record a failure: the outage starts, or continues, for this reason."""
        with self._lock:
            now = self._clock()
            self._since = now if self._since is None else self._since
            self._reason = reason
            is_recent = now - self._last_warning < self._interval
            if is_recent and (self._is_logged or now - self._since < _BRIEF):
                return
            duration = f", for {now - self._since:.0f} s now" if self._is_logged else ""
            self._is_logged, self._last_warning = True, now
            log.warning("%s%s", self._failing_message.format(reason), duration)

    def recovered(self) -> None:
        """Record a success: an outage, if there is one, ends."""
        if self._since is None:
            return
        with self._lock:
            if self._is_logged and self._since is not None:
                log.info("%s after %.1f s", self._recovered_message, self._clock() - self._since)
            self._since, self._is_logged = None, False

    @property
    def is_failing(self) -> bool:
        return self._since is not None

    @property
    def lasting_outage(self) -> tuple[float, str] | None:
        """The duration of the outage in seconds and its last reason; None if there is none or if it is still
        shorter than `_BRIEF`."""
        with self._lock:
            if self._since is None or self._clock() - self._since < _BRIEF:
                return None
            return self._clock() - self._since, self._reason
