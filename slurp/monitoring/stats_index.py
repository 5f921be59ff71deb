"""The stats in Elasticsearch: one document for each interval in `skeetslurper-stats`, for dashboards.

Documents hold what happened since the one before, so that their sums are right over any time and over
many workers. What can't be written goes into the next document.
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


class State(NamedTuple):
    """How the worker stands at the end of an interval. `lag` is in seconds, None when unknown."""

    host: str | list[str]
    connected: bool
    queue: int
    lag: float | None


class StatsIndex:
    """`write` is one attempt; it never raises what the cluster does."""

    def __init__(
        self,
        elastic: Elastic,
        outage_log: OutageLog,
        index: str,
        worker: str,
        first: Snapshot,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`first` is where counting begins."""
        self._elastic = elastic
        self._outage_log = outage_log
        self._clock = clock
        self._run = secrets.token_hex(6)
        self._whose = {"index": index, "worker": worker, "run": self._run, "version": __version__}
        self._written = first
        self._number = 1
        self._attempt = 0
        self._told = ""

    def write(self, now: Snapshot, state: State, within: float) -> None:
        """Write what happened since the last document that was written, in at most `within` seconds."""
        timestamp = self._clock().isoformat(timespec="milliseconds")
        document = {"@timestamp": timestamp, **self._whose, **interval(self._written, now, state)}
        # Half, for there are two requests.
        client = self._elastic.client.options(request_timeout=max(_LEAST_TIMEOUT, within / 2))
        self._attempt += 1
        try:
            self._put(client, document)
        except FAILURES as error:
            self._tell(describe(error))
            return
        self._written = now
        self._number += 1
        self._told = ""

    def _tell(self, reason: str) -> None:
        """Once for each kind of reason in a row, and not what is known for trouble already."""
        kind = reason.split(":")[0]
        if kind != self._told and not self._outage_log.is_failing:
            self._told = kind
            log.warning(
                "stats can't be written to %s, they go into the next document: %s", STATS_INDEX, reason
            )

    def _put(self, client: Elasticsearch, document: dict[str, Any]) -> None:
        # Somebody may delete it to have room; born by a write it would guess its types.
        try:
            client.indices.get_mapping(index=STATS_INDEX, filter_path="*.mappings._meta")
        except NotFoundError:
            create_own_index(client, STATS_INDEX)
        client.index(
            index=STATS_INDEX,
            # The same until it is known to be there: a write whose answer was lost is overwritten …
            id=f"{self._run}-{self._number}",
            # … and can't come late and overwrite what came after it.
            version=self._attempt,
            version_type="external",
            document=document,
        )


def interval(before: Snapshot, now: Snapshot, state: State) -> dict[str, Any]:
    """The fields of what happened between two snapshots."""
    rates = Rates.between(before, now)
    fields: dict[str, Any] = {
        "host": state.host,
        "interval_ms": round((now.at - before.at) * 1000),
        **{name: getattr(now, name) - getattr(before, name) for name in _COUNTERS},
        "in_flight": now.in_flight,
        "queue": state.queue,
        "connected": state.connected,
        "rate_in": round(rates.received, 1),
        "rate_out": round(rates.answered, 1),
    }
    if state.lag is not None:
        fields["lag_ms"] = round(state.lag * 1000)
    return fields
