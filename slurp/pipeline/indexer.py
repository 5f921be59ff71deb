"""Indexer threads: build documents from a batch of frames, deliver them, acknowledge the batch."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from slurp.documents.document import SHAPES, Document, Form, build, format_arrival, quarantined
from slurp.documents.fast_path import FastPath, RenderedDocument
from slurp.elastic.bulk import create
from slurp.elastic.error_classes import Item
from slurp.elastic.unknown_fields import UnknownFields, UnknownFieldSeen
from slurp.events.frames import BadFrame, parse
from slurp.events.identity import Identity
from slurp.events.removals import (
    AccountChange,
    Removal,
    StoredVersion,
    is_indexed,
    removal_of,
    version_uri,
)
from slurp.events.times import median
from slurp.jetstream import bootstrap, resyncs
from slurp.lexicons import RecordShapes
from slurp.pipeline.ack_tracker import DELAYS, BatchAck, Change
from slurp.pipeline.batches import Batch
from slurp.pipeline.channel import Channel
from slurp.pipeline.dead_letters import DeadLetter
from slurp.pipeline.delivery import (
    Delivery,
    Destination,
    IndexerHooks,
    NotAcknowledged,
    PendingEvent,
    unusable,
)
from slurp.pipeline.progress import BatchOutcome

log = logging.getLogger(__name__)

_POLL = 0.25
# A node rejects a request above a tenth of its heap (51 MB of 512 MB) each time, so it would be held forever.
_MAX_DOCUMENT = 40_000_000
# Deletions and updates that wait to be applied; above this, indexing waits for them. Those behind a batch
# that is not acknowledged count as well: an indexer took it from the queue before them, and does not wait.
_MAX_UNAPPLIED = 100_000


@dataclass(slots=True)
class _Decoded:
    """Events, dead letters and times of one batch."""

    pending: list[PendingEvent] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    delays: deque[int] = field(default_factory=lambda: deque(maxlen=DELAYS))
    removals: list[Change] = field(default_factory=list)
    # Of each document.
    dids: list[str] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)
    future: int = 0
    expired: int = 0


class Indexer:
    """Indexes batches until the queue is drained. `step` handles one batch."""

    def __init__(
        self,
        channel: Channel,
        destination: Destination,
        shapes: RecordShapes = SHAPES,
        unknown_fields: UnknownFields | None = None,
        hooks: IndexerHooks | None = None,
    ) -> None:
        """`shapes` are those of the records that have mapped fields."""
        self._queue = channel.queue
        self._counters = channel.counters
        self._inactive = channel.inactive
        self._shutdown = channel.shutdown
        self._destination = destination
        self._indices = destination.indices
        self._shapes = shapes
        self._unknown_fields = unknown_fields
        self._hooks = hooks or IndexerHooks()
        self._fast_path = FastPath(shapes, self._unknown_field)

    def step(self) -> bool:
        """Index one batch if there is one; return False when there will be no more."""
        self._hooks.beat()
        if self._shutdown.is_over():
            return False
        if self._counters.unapplied > _MAX_UNAPPLIED and not self._shutdown.stop.is_set():
            self._shutdown.wait(_POLL)
            return True
        batch = self._queue.get(_POLL)
        if batch is None:
            return not (self._queue.drained or self._shutdown.is_over())
        try:
            outcome, ack = self._index(batch)
        except NotAcknowledged:
            return False
        self._counters.acknowledged(batch, outcome, ack)
        self._queue.release(batch)
        self._hooks.batch_took(time.monotonic() - batch.arrived_monotonic)
        return True

    def _index(self, batch: Batch) -> tuple[BatchOutcome, BatchAck]:
        # The later of the two: with our clock behind the servers' clocks, every rev would be in the future.
        now_us = max(batch.arrived_us, self._counters.stream_us)
        decoded = self._decode(batch, now_us)
        outcome = BatchOutcome(expired=decoded.expired)

        def quarantine(event: PendingEvent, item: Item) -> PendingEvent:
            return self._quarantine(event, item, batch, now_us)

        delivery = Delivery(
            self._destination, self._shutdown, outcome, quarantine, self._unknown_fields, self._hooks
        )
        letters = decoded.letters + delivery.run(decoded.pending)
        if letters:
            log.warning("%d frame(s) to the dead-letter file, the last: %s", len(letters), letters[-1].reason)
            self._destination.dead_letters.write(letters, batch.host)
            outcome.dead_lettered += len(letters)
        times = decoded.times
        # Now that the documents are stored: an account that was not active before is found by one of both
        # sides, here or by the search of slurp/deletions.
        affected = self._inactive.affected(decoded.dids, decoded.identities, decoded.times)
        return outcome, BatchAck(
            position=batch.position,
            median_us=median(times) if times else None,
            arrived_us=batch.arrived_us,
            delays_us=tuple(decoded.delays),
            future=decoded.future,
            removals=(*decoded.removals, *map(AccountChange, filter(is_indexed, affected))),
        )

    def _decode(self, batch: Batch, now_us: int) -> _Decoded:
        """Build a document for each frame. One that none can be built from must not stop the worker."""
        decoded = _Decoded()
        indices: dict[int, str | None] = {}
        host, arrived_us = batch.host, batch.arrived_us
        seen_us = batch.position.time_us if batch.position else None
        # The fast path does not mark events of a resync or bootstrap.
        render = None if batch.announced or batch.bootstrap is not None else self._fast_path.render
        for frame in batch.frames:
            unknown_field = removal = None
            try:
                rendered = render(frame, host, arrived_us, now_us) if render else None
                if rendered is None:
                    rendered, unknown_field, removal = self._build(frame, batch, now_us)
                document, time_us, did, uri = rendered
                body = _body(document, batch)
                identity, day = document.identity, document.day
                if day not in indices:
                    expired = self._indices.is_expired(day, seen_us)
                    indices[day] = None if expired else self._indices.name(day)
            except BadFrame as error:
                decoded.letters.append(DeadLetter(frame, str(error)))
                continue
            except MemoryError:
                raise
            except Exception as error:
                # Else the worker would stop, and at the same frame again after each restart.
                decoded.letters.append(unusable(frame, error))
                continue
            if removal is not None:
                decoded.removals.append(removal)
            if uri is not None and batch.is_late:
                decoded.removals.append(StoredVersion(uri))
            decoded.dids.append(did)
            decoded.identities.append(identity)
            decoded.times.append(time_us)
            # In a bootstrap the rev is the last change of the repository; only time_us is when it was sent.
            own_us = identity.instant_us if batch.bootstrap is None else time_us
            decoded.delays.append(arrived_us - own_us)
            decoded.future += identity.is_future
            if (index := indices[day]) is None:
                decoded.expired += 1
            else:
                action = create(index, identity.id, body)
                decoded.pending.append(PendingEvent(frame, day, action, unknown_field))
        return decoded

    def _build(
        self, frame: bytes, batch: Batch, now_us: int
    ) -> tuple[RenderedDocument, UnknownFieldSeen | None, Removal | AccountChange | None]:
        event = self._event(frame, batch)
        document = build(event, batch.host, batch.arrived_us, self._shapes, now_us)
        rendered = RenderedDocument(document, event["time_us"], event["did"], version_uri(event))
        return rendered, self._unknown_field(event), removal_of(event, now_us)

    def _event(self, frame: bytes, batch: Batch) -> dict[str, Any]:
        event = parse(frame)
        if batch.announced:
            resyncs.mark_resync(event, batch.announced)
        if batch.bootstrap is not None:
            bootstrap.mark_bootstrap(event, batch.bootstrap)
        return event

    def _unknown_field(self, event: dict[str, Any]) -> UnknownFieldSeen | None:
        return None if self._unknown_fields is None else self._unknown_fields.find(event)

    def _quarantine(self, event: PendingEvent, item: Item, batch: Batch, now_us: int) -> PendingEvent:
        """Return the event with its document for quarantine: with the common fields, unless that
        was rejected or is too large. Raises BadFrame if it is too large without them.
        """
        error = f"{item.type}: {item.reason}"
        parsed = self._event(event.frame, batch)
        form = Form.COMMON_FIELDS if event.form is Form.FULL else Form.ENVELOPE
        document = quarantined(parsed, event.frame, batch.host, batch.arrived_us, error, now_us, form)
        if len(document.body) > _MAX_DOCUMENT and form is Form.COMMON_FIELDS:
            form = Form.ENVELOPE
            document = quarantined(parsed, event.frame, batch.host, batch.arrived_us, error, now_us, form)
        action = create(self._indices.name(event.day), document.id, _body(document, batch))
        return PendingEvent(event.frame, event.day, action, form=form)


def _body(document: Document, batch: Batch) -> bytes:
    """Return the JSON to store. Raises BadFrame if Elasticsearch rejects it for its size."""
    body = document.body
    if len(body) > _MAX_DOCUMENT:
        raise BadFrame(f"a document of {len(body):,} bytes, more than {_MAX_DOCUMENT:,}")
    return body[:-1] + _backfill(batch.host, batch.arrived_us) if batch.is_late else body


@lru_cache(maxsize=16)
def _backfill(host: str, arrived_us: int) -> bytes:
    """Return the end of a document that comes from an archive."""
    fields = {"at": format_arrival(arrived_us), "source": host}
    return b',"backfill":' + orjson.dumps(fields) + b"}"
