"""Whether Elasticsearch answers, asked every few seconds: a quiet stream would find out late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from elasticsearch import AuthenticationException

from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.watchdog import Pulse

_EVERY = 3.0
_WITHIN = 5.0
# A bulk request that was answered within this time says more than a question that was not.
_FRESH = 10.0
# Nothing is known when nothing was asked for so long.
_STALE = 60.0


class Probe:
    """`step` is one question. It is asked by a client of our own, so that no bulk request is in its way."""

    def __init__(
        self,
        elastic: Elastic,
        nodes: int,
        scrub: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`nodes` is how many there are to ask: one that answers will do."""
        self._elastic = elastic
        self._nodes = nodes
        self._scrub = scrub
        self._clock = clock
        # When it was asked last, and when it last answered somebody else.
        self._asked: float | None = None
        self._answered = float("-inf")
        self._down_since: float | None = None
        self._reason = ""

    @property
    def answers(self) -> bool | None:
        """None while nothing is known."""
        if self._asked is None or self._clock() - self._asked > _STALE:
            return None
        return self.down is None

    @property
    def down(self) -> tuple[float, str] | None:
        """Seconds since the first question that was not answered, and why; None while all is well."""
        since, now = self._down_since, self._clock()
        if self._asked is not None and now - self._asked > _STALE:
            return now - self._asked, "it is not asked any more, which is a bug"
        if since is None or now - self._answered < _FRESH:
            return None
        return now - since, self._reason

    def heard(self) -> None:
        """It answered somebody else."""
        self._answered = self._clock()

    def run(self, over: threading.Event, pulse: Pulse) -> None:
        while not over.is_set():
            with pulse:
                self.step()
            over.wait(_EVERY)

    def step(self) -> None:
        began = self._clock()
        try:
            # One after the other while they fail.
            client = self._elastic.client.options(
                request_timeout=_WITHIN, max_retries=self._nodes - 1, retry_on_timeout=self._nodes > 1
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
        self._asked = self._clock()
