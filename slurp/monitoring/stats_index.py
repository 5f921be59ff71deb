"""Statistics in Elasticsearch: one document per interval in `skeetslurper-stats`, for dashboards.

Documents hold the events since the previous one, so that their sums are right over any period and over many
workers. When a document cannot be written, its events are part of the next one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from elasticsearch import Elasticsearch, NotFoundError

from slurp import __version__
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.setup import create_own_index
from slurp.elastic.templates import STATS_INDEX
from slurp.pipeline.progress import OUTCOMES, Rates, Snapshot

log = logging.getLogger(__name__)

_LEAST_TIMEOUT = 0.1

_COUNTERS = ("received", *OUTCOMES, "reconnects", "gaps", "future_revs")


class DeletionsState(NamedTuple):
    """Documents redacted since the start, and the seconds that the oldest deletion has waited (0 if none)."""

    redacted: int
    oldest: float


class State(NamedTuple):
    """State of the worker at the end of an interval.

    `lag` is in seconds, None when unknown; `deletions` is None with `--deletions keep`.
    """

    host: str | list[str]
    connected: bool
    queue: int
    lag: float | None
    deletions: DeletionsState | None = None


class StatsIndex:
    """Writes the documents of one run; failures of the cluster are logged."""

    def __init__(
        self,
        elastic: Elastic,
        outage_log: OutageLog,
        index: str,
        worker: str,
        first: Snapshot,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`first` is the snapshot from which the first document counts."""
        self._elastic = elastic
        self._outage_log = outage_log
        self._clock = clock
        self._run = secrets.token_hex(6)
        self._worker_fields = {"index": index, "worker": worker, "run": self._run, "version": __version__}
        self._written = first
        self._redacted = 0
        self._number = 1
        self._attempt = 0
        self._logged = ""

    def write(self, now: Snapshot, state: State, within: float) -> None:
        """Write the events since the last document that was written, in at most `within` seconds."""
        timestamp = self._clock().isoformat(timespec="milliseconds")
        document = {
            "@timestamp": timestamp,
            **self._worker_fields,
            **interval(self._written, now, state, self._redacted),
        }
        # Half, as there are two requests.
        client = self._elastic.client.options(request_timeout=max(_LEAST_TIMEOUT, within / 2))
        self._attempt += 1
        try:
            self._put(client, document)
        except FAILURES as error:
            self._log(describe(error))
            return
        self._written = now
        if state.deletions is not None:
            self._redacted = state.deletions.redacted
        self._number += 1
        self._logged = ""

    def _log(self, reason: str) -> None:
        """Log each kind of reason once in a row, and nothing during an outage that indexers report."""
        kind = reason.split(":")[0]
        if kind != self._logged and not self._outage_log.is_failing:
            self._logged = kind
            log.warning(
                "cannot write statistics to %s (they will be part of the next document): %s",
                STATS_INDEX,
                reason,
            )

    def _put(self, client: Elasticsearch, document: dict[str, Any]) -> None:
        # It may have been deleted; created by a write it would get dynamic types.
        try:
            client.indices.get_mapping(index=STATS_INDEX, filter_path="*.mappings._meta")
        except NotFoundError:
            create_own_index(client, STATS_INDEX)
        client.index(
            index=STATS_INDEX,
            # The same until a write is confirmed: one whose response was lost is overwritten …
            id=f"{self._run}-{self._number}",
            # … and cannot arrive late and overwrite a later one.
            version=self._attempt,
            version_type="external",
            document=document,
        )


def interval(before: Snapshot, now: Snapshot, state: State, redacted: int = 0) -> dict[str, Any]:
    """Return the fields of a document for the events between two snapshots.

    `redacted` is the number of redacted documents in earlier ones.
    """
    rates = Rates.between(before, now)
    fields: dict[str, Any] = {
        "host": state.host,
        "interval_ms": round((now.at - before.at) * 1000),
        **{name: getattr(now, name) - getattr(before, name) for name in _COUNTERS},
        "in_flight": now.in_flight,
        "queue": state.queue,
        "connected": state.connected,
        "rate_in": round(rates.received, 1),
        "rate_out": round(rates.acknowledged, 1),
    }
    if state.lag is not None:
        fields["lag_ms"] = round(state.lag * 1000)
    if state.deletions is not None:
        fields["redacted"] = state.deletions.redacted - redacted
        fields["deletions_oldest_ms"] = round(state.deletions.oldest * 1000)
    return fields
