"""Gaps: logged once, counted, and recorded in `skeetslurper-state` so that they can be filled later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elasticsearch import ConflictError

from slurp.config import PUBLIC_HOSTS
from slurp.elastic.client import Elastic
from slurp.elastic.setup import create_own_index, index_exists
from slurp.elastic.templates import STATE_INDEX
from slurp.events.position import Gap
from slurp.jetstream.servers import host_of
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.progress import Counters, Hold
from slurp.replay_command import ReplayCommand
from slurp.units import format_duration

log = logging.getLogger(__name__)

# With several readers another one may have what is missing, as soon as it has come so far.
_WAIT_FOR_OTHERS = 15.0


@dataclass(slots=True)
class _Pending:
    """A gap that is not recorded yet. `document` is None until it is known that no other reader covers it."""

    due: float
    reader: int
    gap: Gap
    holds: list[Hold]
    document: dict[str, Any] | None = None


class Gaps:
    """`found` is for readers. `step` writes, from the thread that saves the checkpoint.

    Until a gap is recorded, or covered by another reader, a hold keeps the checkpoint of its reader before
    it. So a worker that is killed meanwhile finds it again.
    """

    def __init__(
        self,
        elastic: Elastic,
        subscription: Subscription,
        servers: Sequence[str],
        counters: Counters,
        wait_for_others: float = _WAIT_FOR_OTHERS,
        *,
        fill: ReplayCommand | None = None,
    ) -> None:
        self._elastic = elastic
        self._subscription = subscription
        self._servers = tuple(servers)
        self._fill = fill or ReplayCommand()
        self._counters = counters
        self._outage_log = wait_for_others if counters.readers > 1 else 0.0
        self._lock = threading.Lock()
        # Whether it is only a possible one.
        self._known: dict[str, bool] = {}
        self._pending: dict[str, _Pending] = {}

    def found(self, reader: int, gap: Gap, hold: Hold | None = None) -> None:
        """A reader's host sent nothing between two times. Called before what came next is handed over,
        or with a `hold` that was taken then."""
        hold = hold or self._counters.hold(reader)
        doc_id = self._document_id(gap)
        with self._lock:
            pending = self._pending.get(doc_id)
            if doc_id in self._known and (gap.possible or not self._known[doc_id]):
                # Nothing new. But if this hold is the older one, it has to last as long as the other.
                if pending is None:
                    self._counters.release(hold)
                else:
                    pending.holds.append(hold)
                return
            self._known[doc_id] = gap.possible
            holds = [hold, *(pending.holds if pending else ())]
            self._pending[doc_id] = _Pending(time.monotonic() + self._outage_log, reader, gap, holds)
        self._counters.broken(reader, gap.to_us)
        self._settle(final=False)

    def step(self, *, final: bool = False) -> bool:
        """Log what is due, write what is not written yet, and say whether there was any. With `final`
        everything is due. Raises what the client raises."""
        self._settle(final)
        client = self._elastic.client.options(request_timeout=15)
        with self._lock:
            due = [(doc_id, one) for doc_id, one in self._pending.items() if one.document is not None]
        for doc_id, pending in due:
            # Somebody may delete it; born by a write it would guess its types.
            if not index_exists(client, STATE_INDEX):
                create_own_index(client, STATE_INDEX)
            try:
                client.index(
                    index=STATE_INDEX,
                    id=doc_id,
                    document=pending.document,
                    # What an earlier run was sure of is not overwritten by a possibility.
                    op_type="create" if pending.gap.possible else "index",
                )
            except ConflictError:
                log.debug("%s is recorded already", doc_id)
            with self._lock:
                # It may have become a certain one meanwhile, which has the holds now.
                if self._pending.get(doc_id) is pending:
                    self._forget(doc_id)
        return bool(due)

    def _forget(self, doc_id: str) -> None:
        for hold in self._pending.pop(doc_id).holds:
            self._counters.release(hold)

    def _settle(self, final: bool) -> None:
        now = time.monotonic()
        with self._lock:
            for doc_id, pending in list(self._pending.items()):
                gap = pending.gap
                if pending.document is not None:
                    continue
                if self._counters.covered(pending.reader, gap.from_us, gap.to_us):
                    log.info("%s has nothing %s, but another host has", gap.host, _span(gap))
                    self._forget(doc_id)
                elif final or now >= pending.due:
                    self._log(gap)
                    pending.document = self._document(gap)

    def _log(self, gap: Gap) -> None:
        # The public servers have what another one has missed.
        other = next(url for url in (*self._servers, *PUBLIC_HOSTS) if host_of(url) != gap.host)
        what = (
            "possible gap: %s does not say how far back it goes, and sent nothing %s."
            if gap.possible
            else "gap: %s has nothing %s."
        )
        log.warning(
            f"{what} A host that goes back further can fill it: %s",
            gap.host,
            _span(gap),
            self._fill.advice(gap.from_us, other),
        )
        if not gap.possible:
            self._counters.gap()

    def _document(self, gap: Gap) -> dict[str, Any]:
        return {
            "type": "gap",
            **self._subscription.describe(),
            "subscription": self._subscription.key,
            "host": gap.host,
            "from": _utc(gap.from_us).isoformat(timespec="milliseconds"),
            "to": _utc(gap.to_us).isoformat(timespec="milliseconds"),
            "seconds": round(gap.seconds, 3),
            "possible": gap.possible,
            "from_cursor": gap.from_cursor,
            "to_cursor": gap.to_cursor,
            "found_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }

    def _document_id(self, gap: Gap) -> str:
        """The same when the same gap is found again after a crash."""
        subscription = self._subscription
        whose = f"{subscription.index}:{subscription.worker or '-'}:{gap.host[:150]}:{subscription.key}"
        # Two short ones may begin at the same time, which is that of the newest acknowledged events.
        first = "" if gap.from_cursor is None else f":{gap.from_cursor}"
        return f"gap:{whose}:{gap.from_us}{first}"


def _utc(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, UTC)


def _span(gap: Gap) -> str:
    begin, end = (_utc(moment).strftime("%Y-%m-%d %H:%M:%S") for moment in (gap.from_us, gap.to_us))
    cursors = "" if gap.to_cursor is None else f", cursors {gap.from_cursor} to {gap.to_cursor}"
    return f"from {begin} to {end} UTC ({format_duration(gap.seconds)}{cursors})"
