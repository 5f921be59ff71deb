"""Progress of a run: counters of events by outcome, and the position below which all are acknowledged.

An event is acknowledged once it is stored, a duplicate, quarantined, dead-lettered, dropped or expired.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from slurp.events.position import Position, ResumePoint, resume_cursor, resume_elsewhere
from slurp.pipeline.ack_tracker import AckTracker, BatchAck, Hold, RemovalSet, Saveable
from slurp.pipeline.batches import ARCHIVE_READER, Batch


@dataclass(slots=True)
class BatchOutcome:
    """Number of events of one batch by their outcome. The sum is the size of the batch."""

    indexed: int = 0
    duplicates: int = 0
    quarantined: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    expired: int = 0


OUTCOMES = tuple(f.name for f in fields(BatchOutcome))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Consistent copy of the counters. `received` equals the sum of the outcomes and `in_flight`."""

    received: int
    indexed: int
    duplicates: int
    quarantined: int
    dead_lettered: int
    dropped: int
    expired: int
    in_flight: int
    reconnects: int
    gaps: int
    future_revs: int
    newest_us: int | None
    at: float

    @property
    def adds_up(self) -> bool:
        """Whether received = outcomes + in flight (invariant 4)."""
        return self.received == self.in_flight + sum(int(getattr(self, name)) for name in OUTCOMES)

    def lag(self, now: float) -> float | None:
        """Return the seconds from the newest acknowledged event to `now` (Unix time), None without one."""
        return None if self.newest_us is None else now - self.newest_us / 1e6


@dataclass(frozen=True, slots=True)
class Rates:
    """Events per second between two snapshots."""

    received: float
    acknowledged: float

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Rates:
        """Return the rates between two snapshots of the same counters."""
        seconds = max(after.at - before.at, 1e-9)
        received = after.received - before.received
        return cls(received / seconds, (received - after.in_flight + before.in_flight) / seconds)


class Counters:
    """Thread-safe counters, updated once per batch, with one `AckTracker` per reader."""

    def __init__(
        self,
        readers: int = 1,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        applies_removals: bool = False,
    ) -> None:
        """Checkpoints wait for removals only with `applies_removals`."""
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._received = 0
        self._in_flight = 0
        self._reconnects = 0
        self._gaps = 0
        self._future_revs = 0
        self._applies_removals = applies_removals
        self._sums = BatchOutcome()
        self._trackers = {
            number: AckTracker(applies_removals=applies_removals) for number in range(1, readers + 1)
        }
        # It has no part in what is known about the streams.
        self._archive = AckTracker(applies_removals=applies_removals)

    @property
    def readers(self) -> int:
        """Number of readers of streams."""
        return len(self._trackers)

    def received(self, batch: Batch) -> None:
        """Count the events of a batch as received and in flight."""
        with self._lock:
            self._received += len(batch.frames)
            self._in_flight += len(batch.frames)
            self._tracker(batch.reader).last_received = batch.number

    def acknowledged(self, batch: Batch, outcome: BatchOutcome, ack: BatchAck) -> None:
        """Count the outcome of a batch and advance the position of its reader."""
        with self._lock:
            for name in OUTCOMES:
                setattr(self._sums, name, getattr(self._sums, name) + getattr(outcome, name))
            self._in_flight -= len(batch.frames)
            self._future_revs += ack.future
            self._tracker(batch.reader).acknowledge(batch.reader, batch.number, ack, self._now_us())

    def reconnected(self) -> None:
        """Count a reconnect."""
        with self._lock:
            self._reconnects += 1

    def gap(self) -> None:
        """Count a gap."""
        with self._lock:
            self._gaps += 1

    def hold(self, reader: int) -> Hold:
        """Keep the checkpoint of `reader` from passing the batches received so far.

        The reader calls this before it queues the first batch after a gap, or after a possible one.
        """
        with self._lock:
            tracker = self._trackers[reader]
            hold = Hold(reader, tracker.last_received)
            tracker.holds.append(hold)
            return hold

    def release(self, hold: Hold) -> None:
        """Let the checkpoint pass: the gap is recorded, or there is none."""
        with self._lock:
            self._trackers[hold.reader].holds.remove(hold)

    def take_removals(self) -> list[RemovalSet]:
        """Return the removals, not returned before, of batches below which all batches are acknowledged."""
        with self._lock:
            taken = [removals for tracker in self._all() for removals in tracker.untaken]
            for tracker in self._all():
                tracker.untaken.clear()
            return taken

    def applied(self, removals: RemovalSet) -> None:
        """Let the checkpoint pass the batch of these removals."""
        with self._lock:
            self._tracker(removals.reader).applied(removals)

    def unapplied_sets(self) -> set[RemovalSet]:
        """Return the removals that may be applied, as all earlier events are acknowledged, and are not."""
        with self._lock:
            return {removals for tracker in self._all() for removals in tracker.unapplied}

    @property
    def unapplied(self) -> int:
        """Number of removals that are acknowledged and not applied, also of those with earlier events that
        are not acknowledged. Without those of the archive, for which live reading does not wait."""
        return sum(tracker.unapplied_count for tracker in self._trackers.values())

    @property
    def unapplied_of_archive(self) -> int:
        """Number of versions and removals of the archive that are acknowledged and not applied."""
        return self._archive.unapplied_count

    @property
    def untaken(self) -> int:
        """Number of removals that `take_removals` would return."""
        with self._lock:
            return sum(len(one.removals) for tracker in self._all() for one in tracker.untaken)

    @property
    def held(self) -> bool:
        """Whether a hold limits any checkpoint."""
        with self._lock:
            return any(tracker.holds for tracker in self._trackers.values())

    def checkpoints(self) -> list[Saveable]:
        """Return the position to save for each reader that has one."""
        with self._lock:
            found = (tracker.saveable(number) for number, tracker in self._trackers.items())
            return [one for one in found if one is not None]

    def begin_archive(self) -> None:
        """Count batches of the archive from 1 again. Only while `is_archive_idle`."""
        with self._lock:
            self._archive = AckTracker(applies_removals=self._applies_removals)

    @property
    def is_archive_idle(self) -> bool:
        """Whether all batches of the archive are acknowledged, and what they remove or change is applied."""
        with self._lock:
            return self._archive.is_idle

    @property
    def archive_position(self) -> Position | None:
        """The position in the archive below which all events are acknowledged, and the removals of their
        versions applied; None while there is none."""
        with self._lock:
            saveable = self._archive.saveable(ARCHIVE_READER)
            return None if saveable is None else saveable.position

    @property
    def applied_until_us(self) -> int:
        """Time of the stream (Unix microseconds) before which all removals are applied, in this run or an
        earlier one; 0 if it is not known."""
        with self._lock:
            found = ((tracker, tracker.saveable(number)) for number, tracker in self._trackers.items())
            return min(
                tracker.start_us if saveable is None else saveable.position.time_us
                for tracker, saveable in found
            )

    def streams(self) -> list[tuple[int, int]]:
        """Return for each reader since when it has no gap, and up to when its events are acknowledged."""
        with self._lock:
            return [
                (tracker.complete_since_us, tracker.stream_us or tracker.start_us)
                for tracker in self._trackers.values()
            ]

    def resume(self, reader: int, known: Position, host: str, *, by_time: bool = False) -> ResumePoint:
        """Return the cursor for `host` at which `reader` resumes after `known`, its last received event."""
        with self._lock:
            acked = self._trackers[reader].position
            # The time of one event may be far off; that of acknowledged ones is a median.
            if acked is not None and (acked.host == known.host or acked.time_us < known.time_us):
                known = replace(known, time_us=acked.time_us)
            known = replace(known, time_us=min(known.time_us, self._now_us()))
            if known.host != host or by_time:
                return ResumePoint(resume_elsewhere(known), known)
            return ResumePoint(resume_cursor(known), known)

    def begin(self, reader: int, start: Position, complete_since_us: int) -> None:
        """Set where a reader starts.

        `complete_since_us` is 0 when earlier runs have stored, or recorded as gaps, all that came before.
        """
        with self._lock:
            tracker = self._trackers[reader]
            tracker.complete_since_us, tracker.start_us = complete_since_us, start.time_us

    def reached(self, reader: int) -> tuple[Position | None, int]:
        """Return the acknowledged position of a reader, and the newest median time of its events.

        The time is in Unix microseconds by the servers' clocks; 0 before the first batch.
        """
        with self._lock:
            tracker = self._trackers[reader]
            return tracker.position, tracker.reached_us

    def incomplete_until(self, reader: int, until_us: int) -> None:
        """Record that this reader has a gap before `until_us`, so that it covers no earlier period."""
        with self._lock:
            tracker = self._trackers[reader]
            tracker.complete_since_us = max(tracker.complete_since_us, until_us)

    def covered_by_another(self, reader: int, from_us: int, to_us: int) -> bool:
        """Return whether another reader has acknowledged all events of a period that `reader` missed."""
        with self._lock:
            others = (tracker for number, tracker in self._trackers.items() if number != reader)
            return any(tracker.covers(from_us, to_us) for tracker in others)

    @property
    def stream_us(self) -> int:
        """Latest median stream time of the readers, in Unix microseconds; 0 before the first batch."""
        with self._lock:
            return max(tracker.stream_us for tracker in self._trackers.values())

    def snapshot(self) -> Snapshot:
        """Return a consistent copy of all counters."""
        with self._lock:
            newest = [one.newest_us for one in self._trackers.values() if one.newest_us is not None]
            return Snapshot(
                received=self._received,
                in_flight=self._in_flight,
                reconnects=self._reconnects,
                gaps=self._gaps,
                future_revs=self._future_revs,
                newest_us=max(newest, default=None),
                at=self._monotonic(),
                **{name: getattr(self._sums, name) for name in OUTCOMES},
            )

    def _tracker(self, reader: int) -> AckTracker:
        return self._archive if reader == ARCHIVE_READER else self._trackers[reader]

    def _all(self) -> Iterator[AckTracker]:
        yield from self._trackers.values()
        yield self._archive

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)
