"""Delivery of one batch: send its events to Elasticsearch until each of them is acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat

from elastic_transport import TransportError
from elasticsearch import ApiError

from slurp.backoff import Backoff
from slurp.documents.document import Form
from slurp.elastic.bulk import CREATED, Action, RequestObserver, send
from slurp.elastic.canary import CanaryCheck
from slurp.elastic.client import CREDENTIALS_TIMEOUT, Elastic, describe, error_details
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.error_classes import NO_RESPONSE, Item, ItemClass, classify
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.unknown_fields import UnknownFields, UnknownFieldSeen
from slurp.errors import describe_bug
from slurp.events.frames import BadFrame
from slurp.logs import cut
from slurp.pipeline.channel import Shutdown
from slurp.pipeline.dead_letters import DeadLetter, DeadLetterFile
from slurp.pipeline.progress import BatchOutcome

log = logging.getLogger(__name__)

_STORED = (ItemClass.INDEXED, ItemClass.DUPLICATE)
# Characters of an error in the log: it may quote the document.
_MAX_REASON = 500


class NotAcknowledged(Exception):
    """The time for retries passed before the batch was acknowledged; the next run reads it again."""


@dataclass(frozen=True)
class Destination:
    """The cluster, its daily indices, the dead-letter file, and the outage log of all indexers."""

    elastic: Elastic
    indices: DailyIndices
    dead_letters: DeadLetterFile
    outage_log: OutageLog


@dataclass(frozen=True)
class IndexerHooks:
    """Callbacks of an indexer.

    Attributes:
        beat: called when an attempt begins, whatever its result.
        batch_took: called once per acknowledged batch, with the seconds since it was received.
        bulk_took: called once per bulk request, with its seconds and whether there was a response.
    """

    beat: Callable[[], None] = lambda: None
    batch_took: Callable[[float], None] = lambda seconds: None
    bulk_took: RequestObserver = lambda seconds, answered: None


@dataclass(slots=True)
class PendingEvent:
    """An event in flight, with what is needed to send it, and to send it to quarantine.

    The parsed event is not kept: thousands of them would cost memory and time in the garbage collector.
    """

    frame: bytes
    day: int
    action: Action
    unknown_field: UnknownFieldSeen | None = None
    form: Form = Form.FULL
    # Rejected for an unknown reason while its shard accepted a canary.
    suspected: bool = False


@dataclass(slots=True)
class _Attempt:
    """Result of one attempt: events to send again, and errors by day and type with the first item of each."""

    held: list[PendingEvent] = field(default_factory=list)
    suspected: list[PendingEvent] = field(default_factory=list)
    quarantined: list[PendingEvent] = field(default_factory=list)
    errors: dict[tuple[int, str], tuple[ItemClass, Item]] = field(default_factory=dict)
    # Events that were rejected for the first time, and the reason of the last one.
    rejected: int = 0
    last_rejection: Item | None = None

    @property
    def denied(self) -> bool:
        return any(found is ItemClass.ACCESS_DENIED for found, _ in self.errors.values())


class Delivery:
    """Delivery of one batch. `run` adds to `outcome` and returns the dead letters."""

    def __init__(
        self,
        destination: Destination,
        shutdown: Shutdown,
        outcome: BatchOutcome,
        quarantine: Callable[[PendingEvent, Item], PendingEvent],
        unknown_fields: UnknownFields | None,
        hooks: IndexerHooks,
    ) -> None:
        """`quarantine` returns the event with a document for quarantine; or raises BadFrame."""
        self._elastic = destination.elastic
        self._indices = destination.indices
        self._outage_log = destination.outage_log
        self._shutdown = shutdown
        self._outcome = outcome
        self._quarantine = quarantine
        self._unknown_fields = unknown_fields
        self._hooks = hooks
        self._canaries = CanaryCheck(self._elastic, self._indices, hooks.beat)
        self._letters: list[DeadLetter] = []

    def run(self, pending: list[PendingEvent]) -> list[DeadLetter]:
        """Send until each event is indexed, a duplicate, quarantined, dropped, expired or a dead letter.

        Raises NotAcknowledged when a shutdown ends the retries, and Fatal when the cluster rejects our
        credentials for long.
        """
        backoff = Backoff(first=0.2, cap=10.0)
        while pending:
            items = self._send(pending)
            attempt = self._evaluate(pending, items)
            if attempt.rejected:
                # One line for all: users of the network decide how many there are.
                reason = cut(str(attempt.last_rejection), _MAX_REASON)
                log.warning("%d event(s) to quarantine, the last: %s", attempt.rejected, reason)
            for (day, _), (found, item) in attempt.errors.items():
                self._report(found, item, day)
            if not attempt.denied and any(item.type != NO_RESPONSE for item in items):
                # A success, or an error that is not about our privileges.
                self._elastic.credentials_accepted()
            if len(attempt.held) < len(pending):
                backoff.reset()
            pending = attempt.held + attempt.suspected + attempt.quarantined
            if attempt.held:
                if self._shutdown.is_over():
                    raise NotAcknowledged
                self._shutdown.wait(backoff.next())
            else:
                # Each document was accepted, or rejected for a reason of its own: no outage.
                self._outage_log.recovered()
        return self._letters

    def _send(self, pending: list[PendingEvent]) -> list[Item]:
        """Return one item per event; an error of a whole request is used for all events without an item."""
        items: list[Item] = []
        failed: Iterator[Item] = iter(())
        missing: dict[int, Item] = {}
        try:
            missing = self._ensure_indices({event.day for event in pending})
            actions = [event.action for event in pending if event.day not in missing]
            if actions:
                items.extend(send(self._elastic.client, actions, self._hooks.beat, self._hooks.bulk_took))
        except ApiError as error:
            failed = repeat(_whole(error))
        except TransportError as error:
            failed = repeat(Item(503, NO_RESPONSE, describe(error), is_whole_request=True))
        responses = chain(items, failed)
        return [missing.get(event.day) or next(responses) for event in pending]

    def _ensure_indices(self, days: set[int]) -> dict[int, Item]:
        """Create missing indices; return the days without one, with the error. Other days are unaffected."""
        missing = {}
        for day in days:
            self._hooks.beat()
            try:
                self._indices.ensure(day, self._hooks.beat)
            except ApiError as error:
                missing[day] = _whole(error)
        return missing

    def _evaluate(self, pending: list[PendingEvent], items: list[Item]) -> _Attempt:
        """Count the events that are done, and sort the others by what to do with them."""
        if all(item is CREATED for item in items):
            # Nearly always.
            for event in pending:
                self._indexed(event)
            return _Attempt()
        classes = [classify(item) for item in items]
        self._canaries.begin_attempt(
            (event.day, event.action)
            for event, found in zip(pending, classes, strict=True)
            if found in _STORED
        )
        attempt = _Attempt()
        for event, response, found in zip(pending, items, classes, strict=True):
            if found is ItemClass.INDEXED:
                self._indexed(event)
            elif found is ItemClass.DUPLICATE:
                self._outcome.duplicates += 1
            elif found is ItemClass.UNKNOWN_ERROR:
                verdict, item = self._canaries.resolve(event.day, event.action, response)
                was_suspected, event.suspected = event.suspected, verdict is ItemClass.DOCUMENT_ERROR
                if event.suspected and not was_suspected:
                    # The cause of the rejection may have ended before the canary was sent: try once more.
                    attempt.suspected.append(event)
                else:
                    self._failed(attempt, event, verdict, item)
            else:
                self._failed(attempt, event, found, response)
        return attempt

    def _indexed(self, event: PendingEvent) -> None:
        if event.form is not Form.FULL:
            self._outcome.quarantined += 1
            return
        self._outcome.indexed += 1
        if event.unknown_field is not None and self._unknown_fields is not None:
            self._unknown_fields.count(event.unknown_field)

    def _failed(self, attempt: _Attempt, event: PendingEvent, found: ItemClass, item: Item) -> None:
        """Decide about an event that was not stored."""
        if found is ItemClass.DROPPED:
            self._outcome.dropped += 1
        elif found is ItemClass.DOCUMENT_ERROR:
            self._reject(attempt, event, item)
        elif self._indices.is_deleted_for_disk(event.day):
            self._outcome.expired += 1  # its day was deleted while it was in flight
        else:
            attempt.held.append(event)
            attempt.errors.setdefault((event.day, item.type), (found, item))

    def _reject(self, attempt: _Attempt, event: PendingEvent, item: Item) -> None:
        """Put a rejected document into quarantine, or its frame into the dead-letter file."""
        if event.form is Form.ENVELOPE:
            self._letters.append(DeadLetter(event.frame, f"rejected even in quarantine: {item}"))
            return
        if event.form is Form.FULL:
            attempt.rejected += 1
            attempt.last_rejection = item
        try:
            attempt.quarantined.append(self._quarantine(event, item))
        except BadFrame as error:
            self._letters.append(DeadLetter(event.frame, f"cannot be quarantined: {error}"))
        except MemoryError:
            raise
        except Exception as error:
            self._letters.append(unusable(event.frame, error))

    def _report(self, found: ItemClass, item: Item, day: int) -> None:
        self._outage_log.failing(str(item))
        if item.type == "index_not_found_exception":
            self._indices.forget(day)
        # A shutdown does not wait for a new password: the next run reads what is held again.
        if (
            found is ItemClass.ACCESS_DENIED
            and self._elastic.credentials_rejected() >= CREDENTIALS_TIMEOUT
            and not self._shutdown.stop.is_set()
        ):
            raise self._elastic.credentials_error(str(item))


def unusable(frame: bytes, error: Exception) -> DeadLetter:
    """Return the dead letter for an event that no document can be built from."""
    return DeadLetter(frame, f"no document can be built from it, which is a bug: {describe_bug(error)}")


def _whole(error: ApiError) -> Item:
    """Return the item for a request that was rejected as a whole, which says nothing about one document."""
    return Item(error.status_code, *error_details(error), is_whole_request=True)
