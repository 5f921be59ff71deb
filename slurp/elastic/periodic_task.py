"""Periodic work on Elasticsearch beside indexing, whose failures are logged and do not stop the worker."""

from __future__ import annotations

import time
from collections.abc import Callable

from elasticsearch import ApiError, AuthenticationException

from slurp.elastic.client import CREDENTIALS_TIMEOUT, FAILURES, Elastic, describe, error_details
from slurp.elastic.error_classes import Item, ItemClass, classify
from slurp.elastic.outage_log import OutageLog

# Seconds between two log lines about the same failure.
LOG_EVERY = 60.0


class PeriodicTask:
    """A task that a scheduler runs. A failure of the cluster is logged, and the next run tries again."""

    def __init__(
        self,
        elastic: Elastic,
        work: Callable[[], object],
        outage_log: OutageLog,
        indexer_log: OutageLog,
        *,
        vital: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`work` returns False when there was nothing to do. `outage_log` is that of this task; nothing is
        logged while `indexer_log` reports an outage. A `vital` task ends the program after a minute without
        privileges, as an indexer does.
        """
        self._elastic = elastic
        self._work = work
        self._outage_log = outage_log
        self._indexer_log = indexer_log
        self._vital = vital
        self._clock = clock
        self._denied_since: float | None = None

    def run(self) -> None:
        """Run the task once. Raises Fatal when a vital one has been denied for long."""
        try:
            if self._work() is False:
                return
        except FAILURES as error:
            self._check_denial(error)
            if not self._indexer_log.is_failing:
                self._outage_log.failing(describe(error))
        else:
            if self._denied_since is not None:
                self._elastic.credentials_accepted()
            self._denied_since = None
            self._outage_log.recovered()

    def _check_denial(self, error: Exception) -> None:
        if not (isinstance(error, ApiError) and _is_denial(error)):
            self._denied_since = None
            return
        if isinstance(error, AuthenticationException):
            self._elastic.credentials_rejected()
        # Not the time of the client, which starts anew with each bulk request that succeeds.
        now = self._clock()
        self._denied_since = now if self._denied_since is None else self._denied_since
        if self._vital and now - self._denied_since >= CREDENTIALS_TIMEOUT:
            raise self._elastic.credentials_error(describe(error)) from None


def _is_denial(error: ApiError) -> bool:
    return classify(Item(error.status_code, *error_details(error))) is ItemClass.ACCESS_DENIED
