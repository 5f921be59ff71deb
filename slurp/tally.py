"""Counts of what happened to every event, and the position up to which all are answered for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, fields, replace

from slurp.flow import Batch
from slurp.position import Answered, Ledger, Position, Trail, resume_cursor, resume_elsewhere


@dataclass(slots=True)
class Outcome:
    """How the events of one batch ended. The five add up to the batch."""

    indexed: int = 0
    duplicates: int = 0
    quarantined: int = 0
    dead_lettered: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        return self.indexed + self.duplicates + self.quarantined + self.dead_lettered + self.expired


OUTCOMES = tuple(f.name for f in fields(Outcome))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent look at the counters. `received` equals the sum of all the others."""

    received: int
    indexed: int
    duplicates: int
    quarantined: int
    dead_lettered: int
    expired: int
    in_flight: int
    reconnects: int
    newest_us: int | None
    fresh_run: int
    at: float

    @property
    def adds_up(self) -> bool:
        return self.received == self.in_flight + sum(int(getattr(self, name)) for name in OUTCOMES)


@dataclass(frozen=True, slots=True)
class Rates:
    """Events a second between two snapshots."""

    received: float
    answered: float

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Rates:
        seconds = max(after.at - before.at, 1e-9)
        received = after.received - before.received
        return cls(received / seconds, (received - after.in_flight + before.in_flight) / seconds)


class Tally:
    """Thread-safe counters, touched once a batch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._in_flight = 0
        self._reconnects = 0
        self._sums = Outcome()
        self._ledger = Ledger()

    def received(self, batch: Batch) -> None:
        with self._lock:
            self._received += len(batch.frames)
            self._in_flight += len(batch.frames)

    def answered(self, batch: Batch, outcome: Outcome, answer: Answered) -> None:
        with self._lock:
            for name in OUTCOMES:
                setattr(self._sums, name, getattr(self._sums, name) + getattr(outcome, name))
            self._in_flight -= len(batch.frames)
            self._ledger.answer(batch.number, answer, int(time.time() * 1e6))

    def reconnected(self) -> None:
        with self._lock:
            self._reconnects += 1

    def checkpoint(self) -> tuple[Position, list[tuple[int, int]]] | None:
        """The position with the trail that belongs to it."""
        with self._lock:
            if self._ledger.position is None:
                return None
            return self._ledger.position, self._ledger.trail.entries()

    def resume_cursor(self, known: Position, clean: bool, host: str) -> int:
        """The cursor to ask `host` for, when everything up to `known` has reached this worker."""
        with self._lock:
            settled = self._ledger.position
            # The time of one event may be far off; that of the acknowledged ones is a median.
            if settled is not None and (settled.host == known.host or settled.time_us < known.time_us):
                known = replace(known, time_us=settled.time_us)
            known = replace(known, time_us=min(known.time_us, int(time.time() * 1e6)))
            if known.host != host:
                return resume_elsewhere(known)
            return resume_cursor(known) if clean else self._ledger.trail.rewound(known)

    def adopt(self, trail: Trail) -> None:
        """Start from the trail that a checkpoint holds."""
        with self._lock:
            self._ledger.trail = trail

    def snapshot(self) -> Snapshot:
        with self._lock:
            return Snapshot(
                received=self._received,
                in_flight=self._in_flight,
                reconnects=self._reconnects,
                newest_us=self._ledger.newest_us,
                fresh_run=self._ledger.fresh_run,
                at=time.monotonic(),
                **{name: getattr(self._sums, name) for name in OUTCOMES},
            )
