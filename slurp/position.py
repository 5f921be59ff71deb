"""Where in a stream we are, and from where to read again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

# A cursor at or above this is a time in Unix microseconds, below it a sequence number.
FIRST_TIME_CURSOR = 10**15

# In place of a cursor: begin with what happens now.
LIVE = -1

# Read again after every disconnect and at every start: a server makes 4,096 events durable at once, and
# what it had sent beyond that comes again under other sequence numbers, also after a close with 1001.
# Two such blocks. By time only where a host sends no sequence numbers, or on another host.
REWIND_EVENTS = 8192
REWIND_US = 60_000_000
REWIND_OTHER_HOST_US = 300_000_000

_MEDIANS = 9
# One imported or future event must not move the lag: it is the median delay of so many events.
DELAYS = 9


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one host's stream: its sequence number, if it sends any, and the stream's time there."""

    host: str
    cursor: int | None
    time_us: int

    def is_beyond(self, other: Position) -> bool:
        """True when saving this after `other`, on the same host, loses nothing.

        A lower cursor counts only with a clearly later time: then the server began to count anew.
        """
        if self.cursor is not None and other.cursor is not None and self.cursor != other.cursor:
            return self.cursor > other.cursor or self.time_us > other.time_us + REWIND_US
        return self.time_us > other.time_us or (self.time_us == other.time_us and self != other)


def resume_cursor(position: Position) -> int:
    """Return the cursor to resume at on the same host. Both kinds are inclusive."""
    if position.cursor is None:
        return max(0, position.time_us - REWIND_US)
    return max(0, position.cursor + 1 - REWIND_EVENTS)


def resume_elsewhere(position: Position) -> int:
    """The time cursor to resume at on another host, whose sequence numbers mean nothing to us."""
    return max(0, position.time_us - REWIND_OTHER_HOST_US)


class Resume(NamedTuple):
    """What to ask a host for, and up to where everything is ours already."""

    cursor: int
    known: Position

    @property
    def by_time(self) -> bool:
        return self.cursor >= FIRST_TIME_CURSOR


@dataclass(frozen=True, slots=True)
class Gap:
    """A time for which `host` sent nothing, though we asked for it.

    `possible` when the host did not say how far back it goes, so that it may have had nothing to send.
    """

    host: str
    from_us: int
    to_us: int
    possible: bool = False
    # The first and the last missing sequence number, where the host's numbers show the gap.
    from_cursor: int | None = None
    to_cursor: int | None = None

    @property
    def seconds(self) -> float:
        return (self.to_us - self.from_us) / 1e6


@dataclass(frozen=True, slots=True)
class Answered:
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


class Ledger:
    """Which batches of one reader are answered for, and the position below which all of them are.

    Not thread-safe: the `Tally` that owns it holds the lock.
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
        self._answered: dict[int, Answered] = {}
        self._medians: deque[int] = deque(maxlen=_MEDIANS)
        self._delays: deque[int] = deque(maxlen=DELAYS)

    def answer(self, number: int, batch: Answered, now_us: int) -> None:
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

    def _pass(self, batch: Answered, now_us: int) -> None:
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
