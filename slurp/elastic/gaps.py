"""Gaps: told once, counted, and kept in `skeetslurper-state` so that they can be filled later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from slurp.elastic.client import Elastic
from slurp.elastic.setup import create_own_index
from slurp.elastic.templates import STATE_INDEX
from slurp.jetstream.hosts import host_of
from slurp.jetstream.subscription import Subscription
from slurp.position import Gap
from slurp.tally import Tally
from slurp.units import format_duration

log = logging.getLogger(__name__)

# With several readers another one may have what is missing, as soon as it has come so far.
_WAIT_FOR_OTHERS = 15.0


class Gaps:
    """`found` is for readers. `step` writes, from the thread that saves the checkpoint and before it does:
    a checkpoint behind a gap that nobody remembers would hide it."""

    def __init__(
        self,
        elastic: Elastic,
        subscription: Subscription,
        servers: Sequence[str],
        tally: Tally,
        wait_for_others: float = _WAIT_FOR_OTHERS,
    ) -> None:
        self._elastic = elastic
        self._subscription = subscription
        self._servers = tuple(servers)
        self._tally = tally
        self._patience = wait_for_others if tally.readers > 1 else 0.0
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._open: list[tuple[float, int, Gap]] = []
        self._unwritten: list[tuple[str, dict[str, Any]]] = []

    def found(self, reader: int, gap: Gap) -> None:
        """A reader's host sent nothing between two times."""
        doc_id = self._document_id(gap)
        with self._lock:
            if doc_id in self._known:
                return
            self._known.add(doc_id)
            self._open.append((time.monotonic() + self._patience, reader, gap))
        self._tally.broken(reader, gap.to_us)
        self._settle(final=False)

    def step(self, *, final: bool = False) -> bool:
        """Tell what is due, write what is not written yet, and say whether there was any. Raises what the
        client raises."""
        self._settle(final)
        wrote = False
        client = self._elastic.client.options(request_timeout=15)
        while self._unwritten:
            doc_id, document = self._unwritten[0]
            # Somebody may delete it; born by a write it would guess its types.
            if not client.indices.exists(index=STATE_INDEX):
                create_own_index(client, STATE_INDEX)
            client.index(index=STATE_INDEX, id=doc_id, document=document)
            with self._lock:
                self._unwritten.pop(0)
            wrote = True
        return wrote

    def _settle(self, final: bool) -> None:
        with self._lock:
            waiting, self._open = self._open, []
        now = time.monotonic()
        for due, reader, gap in waiting:
            if self._tally.covered(reader, gap.from_us, gap.to_us):
                log.info("%s has nothing %s, but another host has", gap.host, _span(gap))
            elif final or now >= due:
                self._tell(gap)
            else:
                with self._lock:
                    self._open.append((due, reader, gap))

    def _tell(self, gap: Gap) -> None:
        others = [url for url in self._servers if host_of(url) != gap.host]
        log.warning(
            "gap: %s has nothing %s. A host that goes back further can fill it: run beside this worker, with "
            "the same options, --worker-name fill --catch-up --replay-from %s --jetstream %s",
            gap.host,
            _span(gap),
            # Whole seconds, rounded down: rather read some again.
            _utc(gap.from_us).strftime("%Y-%m-%dT%H:%M:%SZ"),
            others[0] if others else "ANOTHER-HOST",
        )
        self._tally.gap()
        document = {
            "type": "gap",
            **self._subscription.describe(),
            "subscription": self._subscription.key,
            "host": gap.host,
            "from": _utc(gap.from_us).isoformat(timespec="milliseconds"),
            "to": _utc(gap.to_us).isoformat(timespec="milliseconds"),
            "seconds": round(gap.seconds, 3),
            "found_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        with self._lock:
            self._unwritten.append((self._document_id(gap), document))

    def _document_id(self, gap: Gap) -> str:
        """The same when the same gap is found again after a crash."""
        subscription = self._subscription
        whose = f"{subscription.index}:{subscription.worker or '-'}:{gap.host[:150]}:{subscription.key}"
        return f"gap:{whose}:{gap.from_us}"


def _utc(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, UTC)


def _span(gap: Gap) -> str:
    begin, end = (_utc(moment).strftime("%Y-%m-%d %H:%M:%S") for moment in (gap.from_us, gap.to_us))
    return f"from {begin} to {end} UTC ({format_duration(gap.seconds)})"
