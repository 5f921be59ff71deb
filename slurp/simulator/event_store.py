"""The retained events of a server, and the lookup of cursors among them. No I/O, one lock."""

from __future__ import annotations

import random
import threading
from array import array
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from slurp.simulator.filters import FIRST_TIME_CURSOR
from slurp.simulator.protocol_v1 import with_cursor

_OVERHEAD = 150
"""Bytes of memory per event in addition to its frame: object headers and the columns."""
_MAX_BATCH_BYTES = 4 * 2**20


class StoredEvent(NamedTuple):
    """One event as it is stored: a frame of the v1 protocol, and the fields needed to select it."""

    frame: bytes
    did: str
    collection: str
    """Empty for identity and account events."""
    time_us: int
    cursor: int | None = None
    """The cursor in the frame; None when the frame has none."""
    arrived_us: int | None = None
    """When the server received it, from which lookback is counted. None: at `time_us`."""
    hidden: bool = False
    """Whether only the v2 protocol sends it."""


class StoredBatch(NamedTuple):
    """Consecutive events, in columns; `start` is the position of the first."""

    start: int
    frames: list[bytes]
    dids: list[str]
    collections: list[str]
    hidden: bytes
    """1 where only the v2 protocol sends it."""
    sequence_numbers: array[int]

    @property
    def end(self) -> int:
        """The position after the last event."""
        return self.start + len(self.frames)


class EventStore:
    """The newest events, up to `retain_bytes` of memory.

    A position counts all events ever stored, so it stays valid when old events are dropped.
    """

    def __init__(self, retain_bytes: int) -> None:
        self._retain_bytes = retain_bytes
        self._lock = threading.Lock()
        self._clear(position=0)

    def _clear(self, position: int) -> None:
        self._base = position
        self._bytes = 0
        self._last_sequence_number = 0
        self._frames: list[bytes] = []
        self._dids: list[str] = []
        self._collections: list[str] = []
        self._has_cursor = bytearray()  # 1 where the frame carries its cursor
        self._hidden = bytearray()
        self._dropped = False  # whether older events were dropped
        # Each holds the highest value so far, so that it can be searched by bisection:
        # the first event with time_us >= t is at the first position where the maximum is.
        self._sequence_numbers = array("q")
        self._times = array("q")
        self._arrivals = array("q")

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def end(self) -> int:
        """The position of the next event."""
        with self._lock:
            return self._base + len(self._frames)

    @property
    def next_cursor(self) -> int:
        """The sequence number of the next event."""
        with self._lock:
            return self._last_sequence_number + 1

    @property
    def last_time(self) -> int:
        """The highest time_us so far, 0 when empty."""
        with self._lock:
            return self._times[-1] if self._times else 0

    def frames(self) -> list[bytes]:
        """Return all retained frames, oldest first."""
        with self._lock:
            return self._frames.copy()

    def append(self, events: Iterable[StoredEvent]) -> None:
        """Store events, and drop the oldest when they exceed `retain_bytes`."""
        with self._lock:
            time_us = self._times[-1] if self._times else 0
            arrived = self._arrivals[-1] if self._arrivals else 0
            for event in events:
                if event.time_us > time_us:
                    time_us = event.time_us
                arrived = max(arrived, event.time_us if event.arrived_us is None else event.arrived_us)
                number = (
                    self._last_sequence_number + 1
                    if event.cursor is None
                    else max(self._last_sequence_number, event.cursor)
                )
                self._last_sequence_number = number
                self._frames.append(event.frame)
                self._dids.append(event.did)
                self._collections.append(event.collection)
                self._has_cursor.append(event.cursor is not None)
                self._hidden.append(event.hidden)
                self._sequence_numbers.append(number)
                self._times.append(time_us)
                self._arrivals.append(arrived)
                self._bytes += len(event.frame) + _OVERHEAD
            if self._bytes > self._retain_bytes:
                self._trim()

    def _trim(self) -> None:
        """Drop the oldest events until a tenth is free: deleting at the front of a list moves all of it."""
        goal = self._retain_bytes * 9 // 10
        count = 0
        # The newest event is kept, however large.
        while self._bytes > goal and count < len(self._frames) - 1:
            self._bytes -= len(self._frames[count]) + _OVERHEAD
            count += 1
        self._dropped = self._dropped or count > 0
        for column in (self._frames, self._dids, self._collections, self._has_cursor, self._hidden):
            del column[:count]
        for numbers in (self._sequence_numbers, self._times, self._arrivals):
            del numbers[:count]
        self._base += count

    def find(self, cursor: int | None, now_us: int, lookback_us: int) -> int:
        """Return the position at which a subscription with `cursor` starts.

        None and cursors in the future mean live; cursors below the lookback floor start at the floor.
        """
        with self._lock:
            end = self._base + len(self._frames)
            if cursor is None:
                return end
            floor = self._base + bisect_left(self._arrivals, now_us - lookback_us)
            if cursor >= FIRST_TIME_CURSOR:
                column, future = self._times, cursor > now_us
            else:
                column, future = self._sequence_numbers, cursor > self._last_sequence_number
            return end if future else max(floor, self._base + bisect_left(column, cursor))

    def floor(self, now_us: int, lookback_us: int) -> tuple[int, int] | None:
        """Return sequence number and time of the oldest event that cursors reach; None if it is the first."""
        with self._lock:
            first = bisect_left(self._arrivals, now_us - lookback_us)
            if not (first or self._dropped):
                return None
            if first == len(self._frames):
                return self._last_sequence_number + 1, now_us
            return self._sequence_numbers[first], self._times[first]

    def read(self, position: int, limit: int) -> StoredBatch:
        """Return up to `limit` events from `position`, or from the oldest retained event.

        Fewer when events are large (4 MiB in all), but at least one if there is any.
        """
        with self._lock:
            start = max(0, position - self._base)
            frames = self._frames[start : start + limit]
            while len(frames) > 1 and sum(map(len, frames)) > _MAX_BATCH_BYTES:
                del frames[len(frames) // 2 :]
            part = slice(start, start + len(frames))
            return StoredBatch(
                self._base + start,
                frames,
                self._dids[part],
                self._collections[part],
                bytes(self._hidden[part]),
                self._sequence_numbers[part],
            )

    def renumber(self, count: int, rng: random.Random) -> None:
        """Reorder the last `count` events, as a killed server does: it receives them again.

        The order within a DID is kept; their cursors are reused for other events.
        """
        with self._lock:
            count = min(count, len(self._frames))
            if not count:
                return
            first = len(self._frames) - count
            queues: defaultdict[str, deque[int]] = defaultdict(deque)
            for index in range(first, len(self._frames)):
                queues[self._dids[index]].append(index)
            dids = self._dids[first:]
            rng.shuffle(dids)
            order = [queues[did].popleft() for did in dids]
            # A frame without a cursor is not changed, but is reordered as well.
            self._frames[first:] = [
                with_cursor(self._frames[old], self._sequence_numbers[old], self._sequence_numbers[new])
                if self._has_cursor[old]
                else self._frames[old]
                for new, old in enumerate(order, first)
            ]
            self._has_cursor[first:] = bytes(self._has_cursor[old] for old in order)
            self._collections[first:] = [self._collections[old] for old in order]
            self._dids[first:] = dids
            self._hidden[first:] = bytes(self._hidden[old] for old in order)

    def rewrite(self, count: int, change: Callable[[bytes], bytes]) -> int:
        """Change the last `count` frames in place; return how many changed.

        Cursors find an event as before: by its number, and by the time at which it arrived.
        """
        with self._lock:
            first = max(0, len(self._frames) - count)
            changed = 0
            for index in range(first, len(self._frames)):
                frame = change(self._frames[index])
                changed += frame != self._frames[index]
                self._frames[index] = frame
            return changed

    def wipe(self) -> None:
        """Drop all events and restart the sequence numbers at 1."""
        with self._lock:
            self._clear(position=self._base + len(self._frames))
