"""A periodic check of Elasticsearch. On a quiet stream no bulk request would detect an outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from elasticsearch import AuthenticationException

from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.watchdog import Heartbeat

# Seconds between two checks, and the time-out of one.
_EVERY = 3.0
_TIMEOUT = 5.0
# A bulk request answered within this many seconds outweighs a failed check.
_FRESH = 10.0
# The state is unknown when the last check is older than this many seconds.
_STALE = 60.0


class ElasticProbe:
    """Checks Elasticsearch through a client of its own, so that hanging bulk requests do not delay it."""

    def __init__(
        self,
        elastic: Elastic,
        nodes: int,
        scrub: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`nodes` is the number of configured nodes; the cluster is up when one of them answers."""
        self._elastic = elastic
        self._nodes = nodes
        self._scrub = scrub
        self._clock = clock
        self._checked_at: float | None = None
        # The last answer to a bulk request.
        self._bulk_answered_at = float("-inf")
        self._down_since: float | None = None
        self._reason = ""

    @property
    def answers(self) -> bool | None:
        """Whether Elasticsearch answers; None while that is unknown."""
        if self._checked_at is None or self._clock() - self._checked_at > _STALE:
            return None
        return self.down is None

    @property
    def down(self) -> tuple[float, str] | None:
        """Seconds since the first failed check, and the reason; None while Elasticsearch answers."""
        since, now = self._down_since, self._clock()
        if self._checked_at is not None and now - self._checked_at > _STALE:
            return now - self._checked_at, "the periodic check has stopped, which is a bug"
        if since is None or now - self._bulk_answered_at < _FRESH:
            return None
        return now - since, self._reason

    def record_bulk_answer(self) -> None:
        """Record that Elasticsearch answered a bulk request just now."""
        self._bulk_answered_at = self._clock()

    def run(self, stop: threading.Event, heartbeat: Heartbeat) -> None:
        """Check every three seconds until `stop` is set."""
        while not stop.is_set():
            with heartbeat:
                self.step()
            stop.wait(_EVERY)

    def step(self) -> None:
        """Send one check, to the next node in turn while nodes fail, and record the result."""
        began = self._clock()
        try:
            client = self._elastic.client.options(
                request_timeout=_TIMEOUT, max_retries=self._nodes - 1, retry_on_timeout=self._nodes > 1
            )
            client.cluster.health(filter_path="status")
        except FAILURES as error:
            if isinstance(error, AuthenticationException):
                self._elastic.credentials_rejected()
            self._reason = self._scrub(describe(error))
            if self._down_since is None:
                self._down_since = began
        else:
            self._elastic.credentials_accepted()
            self._down_since = None
        self._checked_at = self._clock()
