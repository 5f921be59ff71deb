"""The indexer threads: a batch of frames becomes documents, and every event gets an answer."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from elastic_transport import TransportError
from elasticsearch import ApiError

from slurp.backoff import Backoff
from slurp.documents.document import TYPED, build, quarantined
from slurp.documents.fast_path import FastPath, RenderedDocument
from slurp.elastic.bulk import Action, RequestObserver, create, send
from slurp.elastic.canary import CanaryCheck
from slurp.elastic.client import CREDENTIALS_TIMEOUT, Elastic, describe, error_details
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.error_classes import NO_RESPONSE, Item, ItemClass, classify
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.unknown_fields import UnknownFields, UnknownFieldSeen
from slurp.errors import describe_bug
from slurp.events.frames import BadFrame, parse
from slurp.jetstream import bootstrap, resyncs
from slurp.logs import cut
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.dead_letters import DeadLetter, DeadLetterFile
from slurp.pipeline.progress import DELAYS, BatchAck, Counters, Outcome

log = logging.getLogger(__name__)

_POLL = 0.25
# A node rejects a request above a tenth of its heap (51 MB of 512 MB) each time: it would be held for ever.
_MAX_DOCUMENT = 40_000_000
_TAKEN = (ItemClass.INDEXED, ItemClass.DUPLICATE)
# Characters of a refusal in the log: it may quote the document.
_REASON = 500


class Shutdown:
    """Stop, and the moment (monotonic seconds) until which a draining thread may still try."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.deadline: float | None = None

    def is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def wait(self, seconds: float) -> None:
        """Sleep between two tries: not past the deadline, and shorter once we are draining."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.is_over():
            if self.stop.wait(min(left, _POLL)):
                # The event no longer makes us wait; one poll is the longest pause of a drain.
                time.sleep(min(left, _POLL))
                return


@dataclass(slots=True)
class _Pending:
    """An event under way: what is needed to send it, and to send it otherwise.

    The parsed event is not: thousands of them held would cost memory, and time in the garbage collector.
    """

    frame: bytes
    day: int
    action: Action
    unknown_field: UnknownFieldSeen | None = None
    quarantined: bool = False
    # Rejected for an unknown reason while its shard took a canary.
    suspected: bool = False


class NotFlushed(Exception):
    """The grace period ended before the batch was answered for; it will be read again."""


class Indexer:
    """Takes batches until the buffer is drained. `step` is one batch."""

    def __init__(
        self,
        elastic: Elastic,
        days: DailyIndices,
        dead_letters: DeadLetterFile,
        buffer: BatchQueue,
        counters: Counters,
        outage_log: OutageLog,
        shutdown: Shutdown,
        unknown_fields: UnknownFields | None = None,
        typed: Container[str] = TYPED,
        beat: Callable[[], None] = lambda: None,
        batch_took: Callable[[float], None] = lambda seconds: None,
        bulk_took: RequestObserver = lambda seconds, answered: None,
    ) -> None:
        """`beat` is called as each attempt begins, whatever may come of it; `batch_took` once a batch that
        is answered for, with the seconds since it arrived; `bulk_took` once a request."""
        self._elastic = elastic
        self._days = days
        self._dead_letters = dead_letters
        self._queue = buffer
        self._counters = counters
        self._outage_log = outage_log
        self._shutdown = shutdown
        self._unknown_fields = unknown_fields
        self._typed = typed
        self._beat = beat
        self._look: Callable[[dict[str, Any]], UnknownFieldSeen | None] = (
            unknown_fields.find if unknown_fields else lambda event: None
        )
        self._express = FastPath(typed, self._look)
        self._batch_took = batch_took
        self._bulk_took = bulk_took

    def step(self) -> bool:
        """Answer for one batch if one comes; False when there will be no more."""
        self._beat()
        if self._shutdown.is_over():
            return False
        batch = self._queue.get(_POLL)
        if batch is None:
            return not (self._queue.drained or self._shutdown.is_over())
        try:
            self._counters.answered(batch, *self._answer(batch))
        except NotFlushed:
            return False
        self._queue.release(batch)
        self._batch_took(time.monotonic() - batch.arrived_at)
        return True

    def _answer(self, batch: Batch) -> tuple[Outcome, BatchAck]:
        outcome = Outcome()
        letters: list[DeadLetter] = []
        pending: list[_Pending] = []
        times: list[int] = []
        delays: deque[int] = deque(maxlen=DELAYS)
        future = 0
        indices: dict[int, str | None] = {}
        host, arrived_us = batch.host, batch.arrived_us
        # The later of the two: with our clock behind that of the servers, every rev would be of the future.
        now_us = max(arrived_us, self._counters.stream_us)
        seen_us = batch.position.time_us if batch.position else None
        # The short way knows nothing of what was announced.
        express = None if batch.announced or batch.bootstrap is not None else self._express.make
        for frame in batch.frames:
            unknown_field = None
            try:
                made = express(frame, host, arrived_us, now_us) if express else None
                if made is None:
                    made, unknown_field = self._make(frame, batch, now_us)
                document, time_us = made
                _check_size(document.body)
                identity, day = document.identity, document.day
                if day not in indices:
                    indices[day] = None if self._days.is_expired(day, seen_us) else self._days.name(day)
            except BadFrame as error:
                letters.append(DeadLetter(frame, str(error)))
                continue
            except MemoryError:
                raise
            except Exception as error:
                # A stranger's record must not stop the worker, which would read it again and again.
                letters.append(_unusable(frame, error))
                continue
            times.append(time_us)
            # In a bootstrap a rev is when the repository last changed; only time_us says when it came.
            own_us = identity.instant_us if batch.bootstrap is None else time_us
            delays.append(arrived_us - own_us)
            future += identity.is_future
            if (index := indices[day]) is None:
                outcome.expired += 1
            else:
                action = create(index, identity.id, document.body)
                pending.append(_Pending(frame, day, action, unknown_field))

        letters += self._deliver(pending, batch, outcome, now_us)
        if letters:
            log.warning("%d frame(s) to the dead-letter file, the last: %s", len(letters), letters[-1].reason)
            self._dead_letters.write(letters, host)
            outcome.dead_lettered += len(letters)
        median = sorted(times)[(len(times) - 1) // 2] if times else None
        return outcome, BatchAck(
            position=batch.position,
            median_us=median,
            arrived_us=arrived_us,
            delays_us=tuple(delays),
            future=future,
        )

    def _make(
        self, frame: bytes, batch: Batch, now_us: int
    ) -> tuple[RenderedDocument, UnknownFieldSeen | None]:
        event = self._event(frame, batch)
        document = build(event, batch.host, batch.arrived_us, self._typed, now_us)
        return RenderedDocument(document, event["time_us"]), self._look(event)

    def _event(self, frame: bytes, batch: Batch) -> dict[str, Any]:
        event = parse(frame)
        if batch.announced:
            resyncs.mark(event, batch.announced)
        if batch.bootstrap is not None:
            bootstrap.mark(event, batch.bootstrap)
        return event

    def _deliver(
        self, pending: list[_Pending], batch: Batch, outcome: Outcome, now_us: int
    ) -> list[DeadLetter]:
        """Send until each event is indexed, a duplicate, quarantined, dropped, or a dead letter."""
        letters: list[DeadLetter] = []
        backoff = Backoff(first=0.2, cap=10.0)
        canaries = CanaryCheck(self._elastic, self._days, self._beat)
        while pending:
            items = self._try(pending)
            first = [classify(item) for item in items]
            canaries.begin_attempt(
                (one.day, one.action)
                for one, verdict in zip(pending, first, strict=True)
                if verdict in _TAKEN
            )
            held: list[_Pending] = []
            again: list[_Pending] = []
            suspects: list[_Pending] = []
            troubles: dict[tuple[int, str], tuple[ItemClass, Item]] = {}
            for one, answer, found in zip(pending, items, first, strict=True):
                verdict, item = found, answer
                if found is ItemClass.UNKNOWN_ERROR:
                    verdict, item = canaries.resolve(one.day, one.action, answer)
                    was_suspected, one.suspected = one.suspected, verdict is ItemClass.DOCUMENT_ERROR
                    if one.suspected and not was_suspected:
                        # What rejected it may have been over before the canary was sent.
                        suspects.append(one)
                        continue
                if verdict is ItemClass.INDEXED:
                    if one.quarantined:
                        outcome.quarantined += 1
                    else:
                        outcome.indexed += 1
                        if one.unknown_field is not None and self._unknown_fields is not None:
                            self._unknown_fields.count(one.unknown_field)
                elif verdict is ItemClass.DUPLICATE:
                    outcome.duplicates += 1
                elif verdict is ItemClass.DROPPED:
                    outcome.dropped += 1
                elif verdict is ItemClass.DOCUMENT_ERROR:
                    if one.quarantined:
                        letters.append(DeadLetter(one.frame, f"refused even in quarantine: {item}"))
                    else:
                        refused = item
                        try:
                            again.append(self._in_quarantine(one, item, batch, now_us))
                        except BadFrame as error:
                            letters.append(DeadLetter(one.frame, f"not even for quarantine: {error}"))
                        except MemoryError:
                            raise
                        except Exception as error:
                            letters.append(_unusable(one.frame, error))
                elif self._days.is_deleted_for_disk(one.day):
                    outcome.expired += 1  # its day was deleted while it was in flight
                else:
                    held.append(one)
                    troubles.setdefault((one.day, item.type), (verdict, item))
            if again:
                # One line for all: strangers decide how many there are.
                log.warning("%d event(s) to quarantine, the last: %s", len(again), cut(str(refused), _REASON))
            for (day, _), (verdict, item) in troubles.items():
                self._trouble(verdict, item, day)
            if not any(verdict is ItemClass.ACCESS_DENIED for verdict, _ in troubles.values()):
                self._granted(items)
            if len(held) < len(pending):
                backoff.reset()
            pending = held + suspects + again
            if held:
                if self._shutdown.is_over():
                    raise NotFlushed
                self._shutdown.wait(backoff.next())
            else:
                # A cluster that took or refused each document on its merits is well.
                self._outage_log.recovered()
        return letters

    def _try(self, pending: list[_Pending]) -> list[Item]:
        """One answer per event; a request that failed as a whole answers for all that have none yet."""
        answers: list[Item] = []
        failed: Iterator[Item] = iter(())
        barred: dict[int, Item] = {}
        try:
            barred = self._ensure({one.day for one in pending})
            actions = [one.action for one in pending if one.day not in barred]
            if actions:
                answers.extend(send(self._elastic.client, actions, self._beat, self._bulk_took))
        except ApiError as error:
            failed = repeat(_held(error))
        except TransportError as error:
            failed = repeat(Item(503, NO_RESPONSE, describe(error), is_whole_request=True))
        items = chain(answers, failed)
        return [barred.get(one.day) or next(items) for one in pending]

    def _ensure(self, days: set[int]) -> dict[int, Item]:
        """The days whose index can't be had, and why: at midnight the old one still takes its events."""
        barred = {}
        for day in days:
            self._beat()
            try:
                self._days.ensure(day, self._beat)
            except ApiError as error:
                barred[day] = _held(error)
        return barred

    def _granted(self, items: list[Item]) -> None:
        """The cluster took something, or refused it for another reason than our rights."""
        if any(item.type != NO_RESPONSE for item in items):
            self._elastic.credentials_accepted()

    def _trouble(self, verdict: ItemClass, item: Item, day: int) -> None:
        self._outage_log.failing(str(item))
        if item.type == "index_not_found_exception":
            self._days.forget(day)
        # A drain does not wait for a password: what is held will be read again.
        if (
            verdict is ItemClass.ACCESS_DENIED
            and self._elastic.credentials_rejected() >= CREDENTIALS_TIMEOUT
            and not self._shutdown.stop.is_set()
        ):
            raise self._elastic.credentials_error(str(item))

    def _in_quarantine(self, one: _Pending, item: Item, batch: Batch, now_us: int) -> _Pending:
        event = self._event(one.frame, batch)
        error = f"{item.type}: {item.reason}"
        document = quarantined(event, one.frame, batch.host, batch.arrived_us, error, now_us)
        _check_size(document.body)
        action = create(self._days.name(one.day), document.id, document.body)
        return _Pending(one.frame, one.day, action, quarantined=True)


def _unusable(frame: bytes, error: Exception) -> DeadLetter:
    """The letter for a frame that no document can be built from, though it is an event."""
    return DeadLetter(frame, f"no document can be built from it, which is a bug: {describe_bug(error)}")


def _held(error: ApiError) -> Item:
    """A request refused as a whole. Never the documents' fault: `send` has halved those."""
    return Item(error.status_code, *error_details(error), is_whole_request=True)


def _check_size(body: bytes) -> None:
    """Raise BadFrame for a document that Elasticsearch would reject each time."""
    if len(body) > _MAX_DOCUMENT:
        raise BadFrame(f"a document of {len(body):,} bytes, more than {_MAX_DOCUMENT:,}")
