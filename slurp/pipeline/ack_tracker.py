"""Acknowledged batches of one reader, and the position below which all of its events are acknowledged.

An event is acknowledged once it is stored, a duplicate, quarantined, dead-lettered, dropped or expired.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

from slurp.events.position import Position
from slurp.events.removals import AccountChange, Removal, StoredVersion
from slurp.events.times import median

# The time of a position is the median over this many batches.
_MEDIANS = 9
# The lag is the median delay of this many events, so that one imported or future event does not change it.
DELAYS = 9


# What the thread that applies deletions has to do for an event.
Change = Removal | AccountChange | StoredVersion


@dataclass(frozen=True, slots=True)
class BatchAck:
    """Position and times of a batch whose events are all acknowledged.

    Attributes:
        position: None when no frame of the batch could be decoded.
        median_us: median `time_us` of its events; None without events.
        arrived_us: when the batch was received (Unix microseconds).
        delays_us: time from `@timestamp` to arrival of its last events, at most `DELAYS` of them.
        future: number of revs that were too far in the future to choose a day.
        removals: its deletions and updates of records, and changes of accounts; of an archive its versions.
    """

    position: Position | None
    median_us: int | None
    arrived_us: int = 0
    delays_us: tuple[int, ...] = ()
    future: int = 0
    removals: tuple[Change, ...] = ()


@dataclass(eq=False, slots=True)
class RemovalSet:
    """The removals of one batch. The checkpoint of its reader stays before the batch until they are applied.

    `before` is the position at the end of the batch before it; None if there is none.
    """

    reader: int
    number: int
    before: Position | None
    removals: tuple[Change, ...]


@dataclass(eq=False, slots=True)
class Hold:
    """Keeps the checkpoint of `reader` at or before batch `after` until it is released.

    `position` is the position at the end of that batch, valid once the tracker has `passed` it.
    """

    reader: int
    after: int
    passed: bool = False
    position: Position | None = None


class Saveable(NamedTuple):
    """A position that may be saved as the checkpoint of a reader.

    `held` while a hold for a gap limits it, `is_end` if it is the end of the reader's acknowledged events.
    """

    reader: int
    position: Position
    held: bool
    is_end: bool


class AckTracker:
    """Acknowledged batches of one reader, and the position below which all of them are.

    Not thread-safe: the `Counters` that own it hold the lock.
    """

    def __init__(self, *, applies_removals: bool = False) -> None:
        self._applies_removals = applies_removals
        # No gap lies between `complete_since_us` and `position`.
        self.complete_since_us = 0
        self.start_us = 0
        self.position: Position | None = None
        self.newest_us: int | None = None
        # The number of the last batch that the reader put into the queue.
        self.last_received = 0
        # In order of creation, so the first one limits the checkpoint most.
        self.holds: list[Hold] = []
        # Removals that may be applied and are not, in the order of their batches; those not taken yet.
        self.unapplied: list[RemovalSet] = []
        self.untaken: list[RemovalSet] = []
        # Number of removals that are acknowledged and not applied, also behind a batch that is not.
        self.unapplied_count = 0
        self._next = 1
        self._acked: dict[int, BatchAck] = {}
        self._medians: deque[int] = deque(maxlen=_MEDIANS)
        self._delays: deque[int] = deque(maxlen=DELAYS)

    def acknowledge(self, reader: int, number: int, ack: BatchAck, now_us: int) -> None:
        """Record that batch `number` (from 1, consecutive) is done, and advance over all consecutive ones."""
        self._acked[number] = ack
        if self._applies_removals:
            self.unapplied_count += len(ack.removals)
        while (done := self._acked.pop(self._next, None)) is not None:
            for hold in self.holds:
                if not hold.passed and self._next > hold.after:
                    hold.passed, hold.position = True, self.position
            if done.removals and self._applies_removals:
                removals = RemovalSet(reader, self._next, self.position, done.removals)
                self.unapplied.append(removals)
                self.untaken.append(removals)
            self._next += 1
            self._advance(done, now_us)

    def applied(self, removals: RemovalSet) -> None:
        """Let the position pass the batch of these removals."""
        self.unapplied.remove(removals)
        self.unapplied_count -= len(removals.removals)

    def saveable(self, reader: int) -> Saveable | None:
        """Return the position to save, not beyond the oldest hold, nor the oldest removals that are not
        applied; None while there is none."""
        held = bool(self.holds)
        # Positions, each at the end of a batch of which only the number is compared.
        limits = [(self._next - 1, self.position)]
        if held and self.holds[0].passed:
            limits.append((self.holds[0].after, self.holds[0].position))
        if self.unapplied:
            limits.append((self.unapplied[0].number - 1, self.unapplied[0].before))
        _, position = min(limits, key=lambda limit: limit[0])
        if position is None:
            return None
        return Saveable(reader, position, held, is_end=not (held or self.unapplied))

    def covers(self, from_us: int, to_us: int) -> bool:
        """Return whether all events of this period are acknowledged, in this run or an earlier one."""
        # The time of `position` lies some batches back in a replay. The median of the last batch may lie far
        # before its end when a rewind filled it. These values avoid both.
        until = max(self.start_us, self.reached_us, self.newest_us or 0)
        return self.complete_since_us <= from_us and to_us <= until

    @property
    def is_idle(self) -> bool:
        """Whether all received batches are acknowledged, and their removals are applied."""
        return self._next > self.last_received and not self.unapplied

    @property
    def reached_us(self) -> int:
        """Latest median time of the newest batches, by the servers' clocks; 0 before the first batch."""
        return max(self._medians, default=0)

    @property
    def stream_us(self) -> int:
        """Median time of the newest batches, by the servers' clocks; 0 before the first batch."""
        return median(self._medians) if self._medians else 0

    def _advance(self, ack: BatchAck, now_us: int) -> None:
        if ack.position is None:
            return
        if ack.median_us is not None:
            self._medians.append(ack.median_us)
        if ack.delays_us:
            self._delays.extend(ack.delays_us)
            self.newest_us = ack.arrived_us - median(self._delays)
        # A median, so that a back-dated event does not cause hours of replay, nor a future one a gap.
        # There is none before the first event that a document could be built from.
        time_us = median(self._medians) if self._medians else ack.position.time_us
        position = replace(ack.position, time_us=min(time_us, now_us))
        # After a rewind, events are acknowledged a second time; the position must not go back.
        before = self.position
        if before is None or before.host != position.host or position.is_beyond(before):
            self.position = position
