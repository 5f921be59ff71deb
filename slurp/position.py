"""Where in a stream we are, and from where to read again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

# A cursor at or above this is a time in Unix microseconds, below it a sequence number.
FIRST_TIME_CURSOR = 10**15

# In place of a cursor: begin with what happens now.
LIVE = -1

# A crashed server uses sequence numbers again: at most a block of events or what it had not yet
# made durable (4,096 events or 30 s were seen). We go back twice that time.
REWIND_EVENTS = 4096
REWIND_US = 60_000_000
REWIND_OTHER_HOST_US = 300_000_000

_TRAIL_STEP_US = 10_000_000
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


class Trail:
    """Sparse memory of (cursor, stream time), enough to say which cursor lies a minute back."""

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self._entries = deque((int(cursor), int(time_us)) for cursor, time_us in entries)

    def add(self, position: Position) -> None:
        if position.cursor is None:
            return
        entries = self._entries
        while entries and entries[-1][0] >= position.cursor:
            entries.pop()  # read again after a rewind, or counted anew
        if not entries or position.time_us - entries[-1][1] >= _TRAIL_STEP_US:
            entries.append((position.cursor, position.time_us))
        while len(entries) > 2 and entries[1][1] <= position.time_us - REWIND_US:
            entries.popleft()
        if len(entries) > 64:
            entries.popleft()

    def rewound(self, position: Position) -> int:
        """The cursor to resume at on the same host after anything but a clean end."""
        if position.cursor is None:
            return max(0, position.time_us - REWIND_US)
        back = position.cursor - REWIND_EVENTS
        minute = position.time_us - REWIND_US
        older = [cursor for cursor, time_us in self._entries if time_us <= minute]
        known = older or [cursor for cursor, _ in self._entries]
        if known:
            back = min(back, known[-1] if older else known[0])
        return max(0, back)

    def entries(self) -> list[tuple[int, int]]:
        return list(self._entries)


def resume_cursor(position: Position) -> int:
    """The cursor to resume at on the same host after a clean end. Both kinds are inclusive."""
    return position.cursor if position.cursor is not None else position.time_us


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

    `position` and `trail` are those of that batch, once the ledger has `passed` it.
    """

    reader: int
    after: int
    passed: bool = False
    position: Position | None = None
    trail: list[tuple[int, int]] = field(default_factory=list)


class Saveable(NamedTuple):
    """What may be saved as the checkpoint of a reader; `held` while a gap or a question keeps it back."""

    reader: int
    position: Position
    trail: list[tuple[int, int]]
    held: bool


class Ledger:
    """Which batches of one reader are answered for, and the position below which all of them are.

    Not thread-safe: the `Tally` that owns it holds the lock.
    """

    def __init__(self) -> None:
        self.trail = Trail()
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
                    hold.passed, hold.position, hold.trail = True, self.position, self.trail.entries()
            self._next += 1
            self._pass(done, now_us)

    def saveable(self, reader: int) -> Saveable | None:
        """The position to save: not beyond the oldest hold. None before there is one."""
        held = bool(self.holds)
        if held and self.holds[0].passed:
            position, trail = self.holds[0].position, self.holds[0].trail
        else:
            position, trail = self.position, self.trail.entries()
        return None if position is None else Saveable(reader, position, trail, held)

    def covers(self, from_us: int, to_us: int) -> bool:
        """Whether everything in between is answered for, here or by an earlier run."""
        # Not the time of `position`, which in a replay lies some batches back. Medians are robust already.
        return self.whole_since_us <= from_us and to_us <= max(self.begun_us, self.reached_us)

    def _pass(self, batch: Answered, now_us: int) -> None:
        if batch.position is None:
            return
        if batch.median_us is not None:
            self._medians.append(batch.median_us)
        if batch.delays_us:
            self._delays.extend(batch.delays_us)
            self.newest_us = batch.arrived_us - _middle(self._delays)
        if self.position is not None and self.position.host != batch.position.host:
            self.trail = Trail()
        # One back-dated event must not cost hours of replay, one from the future not a hole.
        self.position = replace(batch.position, time_us=min(_middle(self._medians), now_us))
        self.trail.add(self.position)

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
