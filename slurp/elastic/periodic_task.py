"""What is done again and again beside the indexing. It may fail, and says so now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from elasticsearch import ApiError, AuthenticationException

from slurp.elastic.client import CREDENTIALS_TIMEOUT, FAILURES, Elastic, describe, error_details
from slurp.elastic.error_classes import Item, ItemClass, classify
from slurp.elastic.outage_log import OutageLog

EVERY = 60.0


class PeriodicTask:
    """One of them. `do` is one attempt; it raises Fatal and nothing of what the cluster does.

    `work` returns False when there was nothing to do. A `vital` one ends the program once we have been
    denied it for a minute, as the indexers do: without it the rest is of no use.
    """

    def __init__(
        self,
        elastic: Elastic,
        indexers: OutageLog,
        work: Callable[[], object],
        trouble: str,
        over: str,
        *,
        vital: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`indexers` tell of trouble that is theirs as well: then we are quiet."""
        self._elastic = elastic
        self._indexers = indexers
        self._work = work
        self._vital = vital
        self._clock = clock
        self._outage_log = OutageLog(EVERY, clock, trouble, over)
        self._denied_since: float | None = None

    def do(self) -> None:
        try:
            if self._work() is False:
                return
        except FAILURES as error:
            self._look_for_denial(error)
            if not self._indexers.is_failing:
                self._outage_log.failing(describe(error))
        else:
            if self._denied_since is not None:
                self._elastic.credentials_accepted()
            self._denied_since = None
            self._outage_log.recovered()

    def _look_for_denial(self, error: Exception) -> None:
        if not (isinstance(error, ApiError) and _is_denial(error)):
            self._denied_since = None
            return
        if isinstance(error, AuthenticationException):
            self._elastic.credentials_rejected()
        # A clock of our own: that of the client stops whenever a bulk is taken.
        now = self._clock()
        self._denied_since = now if self._denied_since is None else self._denied_since
        if self._vital and now - self._denied_since >= CREDENTIALS_TIMEOUT:
            raise self._elastic.credentials_error(describe(error)) from None


def _is_denial(error: ApiError) -> bool:
    return classify(Item(error.status_code, *error_details(error))) is ItemClass.ACCESS_DENIED
