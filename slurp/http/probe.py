"""Whether Elasticsearch answers, asked every few seconds: a quiet stream would find out late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from elasticsearch import AuthenticationException

from slurp.elastic.client import FAILURES, Elastic, describe

_EVERY = 3.0
_WITHIN = 5.0


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
        self._asked = False
        self._down_since: float | None = None
        self._reason = ""

    @property
    def answers(self) -> bool | None:
        """None while nothing is known."""
        return self._down_since is None if self._asked else None

    @property
    def down(self) -> tuple[float, str] | None:
        """Seconds since the first question that was not answered, and why; None while all is well."""
        since = self._down_since
        return None if since is None else (self._clock() - since, self._reason)

    def run(self, over: threading.Event) -> None:
        while not over.is_set():
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
                self._elastic.denied()
            self._reason = self._scrub(describe(error))
            if self._down_since is None:
                self._down_since = began
        else:
            self._elastic.granted()
            self._down_since = None
        self._asked = True
