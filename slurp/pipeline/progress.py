"""Counts of what happened to every event, and the position up to which all are answered for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from slurp.events.position import Position, Resume, resume_cursor, resume_elsewhere
from slurp.pipeline.batches import Batch

_MEDIANS = 9


# One imported or future event must not move the lag: it is the median delay of so many events.
DELAYS = 9


@dataclass(frozen=True, slots=True)
class BatchAck:
    """What the ledger needs of a batch once each of its events has been answered for.

    `position` is None when the batch held nothing but garbage; `median_us` is of its events' time_us;
    `arrived_us` is when it came, and `delays_us` how long after their own time (`@timestamp`) its last
    events did, as many as `DELAYS` at most. `future` counts the revs that were too far in the future to
    choose a day.
    """

    position: Position | None
    median_us: int | None
    arrived_us: int = 0
    delays_us: tuple[int, ...] = ()
    future: int = 0


@dataclass(eq=False, slots=True)
class Hold:
    """Keeps the checkpoint of `reader` at batch `after` at most, until it is released.

    `position` is that of that batch, once the ledger has `passed` it.
    """

    reader: int
    after: int
    passed: bool = False
    position: Position | None = None


class Saveable(NamedTuple):
    """What may be saved as the checkpoint of a reader; `held` while a gap or a question keeps it back."""

    reader: int
    position: Position
    held: bool


class AckTracker:
    """Which batches of one reader are answered for, and the position below which all of them are.

    Not thread-safe: the `Counters` that owns it holds the lock.
    """

    def __init__(self) -> None:
        # There is no gap between these two and `position`.
        self.whole_since_us = 0
        self.begun_us = 0
        self.position: Position | None = None
        self.newest_us: int | None = None
        # The number of the last batch that the reader handed over.
        self.handed = 0
        # In the order they were opened, so the first is the one that holds most.
        self.holds: list[Hold] = []
        self._next = 1
        self._answered: dict[int, BatchAck] = {}
        self._medians: deque[int] = deque(maxlen=_MEDIANS)
        self._delays: deque[int] = deque(maxlen=DELAYS)

    def answer(self, number: int, batch: BatchAck, now_us: int) -> None:
        """Batch `number` (from 1, without holes) is done; advance over all that are done in a row."""
        self._answered[number] = batch
        while (done := self._answered.pop(self._next, None)) is not None:
            for hold in self.holds:
                if not hold.passed and self._next > hold.after:
                    hold.passed, hold.position = True, self.position
            self._next += 1
            self._pass(done, now_us)

    def saveable(self, reader: int) -> Saveable | None:
        """The position to save: not beyond the oldest hold. None before there is one."""
        held = bool(self.holds)
        position = self.holds[0].position if held and self.holds[0].passed else self.position
        return None if position is None else Saveable(reader, position, held)

    def covers(self, from_us: int, to_us: int) -> bool:
        """Whether everything in between is answered for, here or by an earlier run."""
        # Not the time of `position`, which in a replay lies some batches back. These are robust already. The
        # median of a batch alone may lie far before its end, when a rewind has filled it up.
        upto = max(self.begun_us, self.reached_us, self.newest_us or 0)
        return self.whole_since_us <= from_us and to_us <= upto

    def _pass(self, batch: BatchAck, now_us: int) -> None:
        if batch.position is None:
            return
        if batch.median_us is not None:
            self._medians.append(batch.median_us)
        if batch.delays_us:
            self._delays.extend(batch.delays_us)
            self.newest_us = batch.arrived_us - _middle(self._delays)
        # One back-dated event must not cost hours of replay, one from the future not a hole.
        # No median before the first event that a document could be built from.
        time_us = _middle(self._medians) if self._medians else batch.position.time_us
        position = replace(batch.position, time_us=min(time_us, now_us))
        # After a rewind the same events are acknowledged again, which is no way back.
        before = self.position
        if before is None or before.host != position.host or position.is_beyond(before):
            self.position = position

    @property
    def reached_us(self) -> int:
        """The latest median time of the newest batches, by the clock of the servers; 0 before the first."""
        return max(self._medians, default=0)

    @property
    def stream_us(self) -> int:
        """The median time of the newest batches, by the clock of the servers alone; 0 before the first."""
        return _middle(self._medians) if self._medians else 0


def _middle(values: Iterable[int]) -> int:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


@dataclass(slots=True)
class Outcome:
    """How the events of one batch ended. Their sum is the batch."""

    indexed: int = 0
    duplicates: int = 0
    quarantined: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    expired: int = 0


OUTCOMES = tuple(f.name for f in fields(Outcome))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent look at the counters. `received` equals the sum of all the others."""

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


class Counters:
    """Thread-safe counters, touched once a batch. Readers have a ledger each: they number for themselves."""

    def __init__(self, readers: int = 1) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._in_flight = 0
        self._reconnects = 0
        self._gaps = 0
        self._future_revs = 0
        self._sums = Outcome()
        self._ledgers = {number: AckTracker() for number in range(1, readers + 1)}

    @property
    def readers(self) -> int:
        return len(self._ledgers)

    def received(self, batch: Batch) -> None:
        with self._lock:
            self._received += len(batch.frames)
            self._in_flight += len(batch.frames)
            self._ledgers[batch.reader].handed = batch.number

    def answered(self, batch: Batch, outcome: Outcome, answer: BatchAck) -> None:
        with self._lock:
            for name in OUTCOMES:
                setattr(self._sums, name, getattr(self._sums, name) + getattr(outcome, name))
            self._in_flight -= len(batch.frames)
            self._future_revs += answer.future
            self._ledgers[batch.reader].answer(batch.number, answer, int(time.time() * 1e6))

    def reconnected(self) -> None:
        with self._lock:
            self._reconnects += 1

    def hold(self, reader: int) -> Hold:
        """Keep the checkpoint of `reader` from passing what it has handed over so far. It is for the reader
        to call before it hands over the batch behind a gap, or behind what may be one."""
        with self._lock:
            ledger = self._ledgers[reader]
            hold = Hold(reader, ledger.handed)
            ledger.holds.append(hold)
            return hold

    def release(self, hold: Hold) -> None:
        """Let the checkpoint pass: the gap is recorded, or there is none."""
        with self._lock:
            self._ledgers[hold.reader].holds.remove(hold)

    @property
    def held(self) -> bool:
        """Whether a gap that is not recorded yet, or a question about one, keeps a checkpoint back."""
        with self._lock:
            return any(ledger.holds for ledger in self._ledgers.values())

    def checkpoints(self) -> list[Saveable]:
        """What may be saved, of each reader that has a position."""
        with self._lock:
            found = (ledger.saveable(number) for number, ledger in self._ledgers.items())
            return [one for one in found if one is not None]

    def resume(self, reader: int, known: Position, host: str, *, by_time: bool = False) -> Resume:
        """What `reader` has to ask `host` for, when everything up to `known` has reached it."""
        with self._lock:
            settled = self._ledgers[reader].position
            # The time of one event may be far off; that of the acknowledged ones is a median.
            if settled is not None and (settled.host == known.host or settled.time_us < known.time_us):
                known = replace(known, time_us=settled.time_us)
            known = replace(known, time_us=min(known.time_us, int(time.time() * 1e6)))
            if known.host != host or by_time:
                return Resume(resume_elsewhere(known), known)
            return Resume(resume_cursor(known), known)

    def begin(self, reader: int, start: Position, whole_since_us: int) -> None:
        """Set where a reader starts.

        `whole_since_us` is 0 when earlier runs have read, and told the gaps of, what came before.
        """
        with self._lock:
            ledger = self._ledgers[reader]
            ledger.whole_since_us, ledger.begun_us = whole_since_us, start.time_us

    def reached(self, reader: int) -> tuple[Position | None, int]:
        """Return the position up to which this reader's events are acknowledged, and their newest time.

        That is the newest of some medians, in Unix microseconds by the clock of the servers.
        """
        with self._lock:
            ledger = self._ledgers[reader]
            return ledger.position, ledger.reached_us

    def broken(self, reader: int, until_us: int) -> None:
        """What this reader has is whole only from here on."""
        with self._lock:
            ledger = self._ledgers[reader]
            ledger.whole_since_us = max(ledger.whole_since_us, until_us)

    def covered(self, reader: int, from_us: int, to_us: int) -> bool:
        """Whether another reader has what this one missed."""
        with self._lock:
            others = (ledger for number, ledger in self._ledgers.items() if number != reader)
            return any(ledger.covers(from_us, to_us) for ledger in others)

    def gap(self) -> None:
        with self._lock:
            self._gaps += 1

    @property
    def stream_us(self) -> int:
        """The latest median stream time of the readers, in Unix microseconds; 0 before the first batch."""
        with self._lock:
            return max(ledger.stream_us for ledger in self._ledgers.values())

    def snapshot(self) -> Snapshot:
        with self._lock:
            newest = [one.newest_us for one in self._ledgers.values() if one.newest_us is not None]
            return Snapshot(
                received=self._received,
                in_flight=self._in_flight,
                reconnects=self._reconnects,
                gaps=self._gaps,
                future_revs=self._future_revs,
                newest_us=max(newest, default=None),
                at=time.monotonic(),
                **{name: getattr(self._sums, name) for name in OUTCOMES},
            )
