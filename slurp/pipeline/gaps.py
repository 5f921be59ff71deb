"""Gaps: log each one once, count it, and record it in `skeetslurper-state` for a later backfill."""

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
from slurp.events.times import format_period, utc
from slurp.jetstream.servers import host_of
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.ack_tracker import Hold
from slurp.pipeline.progress import Counters
from slurp.replay_command import ReplayCommand
from slurp.units import format_duration

log = logging.getLogger(__name__)

# With several readers another one may have the missing events; seconds to wait until it has read them.
_WAIT_FOR_OTHERS = 15.0

_ADVICE = "To read them from a host that has them"
_ADVICE_WITH_ARCHIVE = (
    "They come from an archive if a server has one; otherwise, to read them from a host that has them"
)


@dataclass(slots=True)
class _Pending:
    """A gap that is not recorded yet. `document` is None until no other reader can cover it any more."""

    due: float
    reader: int
    gap: Gap
    holds: list[Hold]
    document: dict[str, Any] | None = None


class GapRecorder:
    """The gaps that readers report, until they are recorded.

    Readers call `report`; the thread that saves the checkpoint calls `write`. Until a gap is recorded, or
    covered by another reader, a hold keeps the checkpoint of its reader before it, so that a worker that is
    killed meanwhile finds the gap again.
    """

    def __init__(
        self,
        elastic: Elastic,
        subscription: Subscription,
        servers: Sequence[str],
        counters: Counters,
        wait_for_others: float = _WAIT_FOR_OTHERS,
        *,
        replay_command: ReplayCommand | None = None,
        is_filled: bool = False,
    ) -> None:
        """`is_filled` if gaps are filled from an archive, where a server has one."""
        self._elastic = elastic
        self._subscription = subscription
        self._servers = tuple(servers)
        self._replay_command = replay_command or ReplayCommand()
        self._advice = _ADVICE_WITH_ARCHIVE if is_filled else _ADVICE
        self._counters = counters
        self._wait = wait_for_others if counters.readers > 1 else 0.0
        self._lock = threading.Lock()
        # By document id: whether it is only a possible gap.
        self._known: dict[str, bool] = {}
        self._pending: dict[str, _Pending] = {}

    def report(self, reader: int, gap: Gap, hold: Hold | None = None) -> None:
        """Record that the host of a reader sent no events for a period.

        Called before the first batch after the gap is queued, or with a `hold` that was made then.
        """
        hold = hold or self._counters.hold(reader)
        doc_id = self._document_id(gap)
        with self._lock:
            pending = self._pending.get(doc_id)
            if doc_id in self._known and (gap.possible or not self._known[doc_id]):
                # Already known. Keep this hold as long as the others, because it may be the oldest.
                if pending is None:
                    self._counters.release(hold)
                else:
                    pending.holds.append(hold)
                return
            self._known[doc_id] = gap.possible
            holds = [hold, *(pending.holds if pending else ())]
            self._pending[doc_id] = _Pending(time.monotonic() + self._wait, reader, gap, holds)
        self._counters.incomplete_until(reader, gap.to_us)
        self._decide(final=False)

    def write(self, *, final: bool = False) -> bool:
        """Write the gaps that are due and not recorded yet; return whether there was any.

        With `final` all are due. Raises the exceptions of the client.
        """
        self._decide(final)
        client = self._elastic.client.options(request_timeout=15)
        with self._lock:
            due = [(doc_id, one) for doc_id, one in self._pending.items() if one.document is not None]
        for doc_id, pending in due:
            # It may have been deleted; created by a write it would get dynamic types.
            if not index_exists(client, STATE_INDEX):
                create_own_index(client, STATE_INDEX)
            try:
                client.index(
                    index=STATE_INDEX,
                    id=doc_id,
                    document=pending.document,
                    # A possible gap must not overwrite a certain one of an earlier run.
                    op_type="create" if pending.gap.possible else "index",
                )
            except ConflictError:
                log.debug("%s is recorded already", doc_id)
            with self._lock:
                # Meanwhile it may have been replaced by a certain one, which has the holds now.
                if self._pending.get(doc_id) is pending:
                    self._forget(doc_id)
        return bool(due)

    def _forget(self, doc_id: str) -> None:
        for hold in self._pending.pop(doc_id).holds:
            self._counters.release(hold)

    def _decide(self, final: bool) -> None:
        """Discard gaps that another reader covers; log those that are due and make their documents."""
        now = time.monotonic()
        with self._lock:
            for doc_id, pending in list(self._pending.items()):
                gap = pending.gap
                if pending.document is not None:
                    continue
                if self._counters.covered_by_another(pending.reader, gap.from_us, gap.to_us):
                    log.info("%s sent no events %s, but another server has them", gap.host, _span(gap))
                    self._forget(doc_id)
                elif final or now >= pending.due:
                    self._log(gap)
                    pending.document = self._document(gap)

    def _log(self, gap: Gap) -> None:
        # A public server may have the events that another server is missing.
        other = next(url for url in (*self._servers, *PUBLIC_HOSTS) if host_of(url) != gap.host)
        what = (
            "possible gap: %s sent no events %s and does not report its oldest event."
            if gap.possible
            else "gap: %s has no events %s."
        )
        log.warning(
            f"{what} {self._advice}: %s",
            gap.host,
            _span(gap),
            self._replay_command.advice(gap.from_us, other),
        )
        if not gap.possible:
            self._counters.gap()

    def _document(self, gap: Gap) -> dict[str, Any]:
        return {
            "type": "gap",
            **self._subscription.describe(),
            "subscription": self._subscription.key,
            "host": gap.host,
            "from": utc(gap.from_us).isoformat(timespec="milliseconds"),
            "to": utc(gap.to_us).isoformat(timespec="milliseconds"),
            "seconds": round(gap.seconds, 3),
            "possible": gap.possible,
            "from_cursor": gap.from_cursor,
            "to_cursor": gap.to_cursor,
            "found_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }

    def _document_id(self, gap: Gap) -> str:
        """Return an `_id` that is equal when the same gap is found again after a crash."""
        subscription = self._subscription
        prefix = f"{subscription.index}:{subscription.worker or '-'}:{gap.host[:150]}:{subscription.key}"
        # Two short gaps may begin at the same time, that of the newest acknowledged events.
        first = "" if gap.from_cursor is None else f":{gap.from_cursor}"
        return f"gap:{prefix}:{gap.from_us}{first}"


def _span(gap: Gap) -> str:
    cursors = "" if gap.to_cursor is None else f", cursors {gap.from_cursor} to {gap.to_cursor}"
    return f"from {format_period(gap.from_us, gap.to_us)} ({format_duration(gap.seconds)}{cursors})"
