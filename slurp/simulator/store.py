"""The events a server remembers, and where a cursor lands among them. No I/O, one lock."""

from __future__ import annotations

import random
import threading
from array import array
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from slurp.simulator.wire import FIRST_TIME_CURSOR, with_cursor

_OVERHEAD = 150
"""Bytes that an event costs beside its frame: object headers and the columns."""
_MAX_BATCH_BYTES = 4 * 2**20


class Entry(NamedTuple):
    """One event as the store keeps it."""

    frame: bytes
    did: str
    collection: str
    """Empty for identity and account events."""
    time_us: int
    cursor: int | None = None
    """The one inside the frame; None when the frame shows none."""
    arrived_us: int | None = None
    """When the server saw it, which is what lookback counts from. None: at `time_us`."""
    hidden: bool = False
    """Shown by the v2 wire alone."""


class Batch(NamedTuple):
    """Consecutive events, in columns; `start` is the position of the first."""

    start: int
    frames: list[bytes]
    dids: list[str]
    collections: list[str]
    hidden: bytes
    """1 where only the v2 wire shows it."""
    keys: array[int]
    """Sequence numbers."""

    @property
    def end(self) -> int:
        return self.start + len(self.frames)


class Store:
    """The newest events, as many as `retain_bytes` holds.

    A position counts all events ever stored, so it stays true when old ones go.
    """

    def __init__(self, retain_bytes: int) -> None:
        self._retain_bytes = retain_bytes
        self._lock = threading.Lock()
        self._clear(position=0)

    def _clear(self, position: int) -> None:
        self._base = position
        self._bytes = 0
        self._last_key = 0
        self._frames: list[bytes] = []
        self._dids: list[str] = []
        self._collections: list[str] = []
        self._shown = bytearray()  # 1 where the frame carries its cursor
        self._hidden = bytearray()
        self._forgotten = False  # whether there were older events
        # Highest so far in each of these, so that they can be searched by bisection:
        # "the first event with time_us >= t" is then the first place where the maximum is.
        self._keys = array("q")
        self._times = array("q")
        self._arrivals = array("q")

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def end(self) -> int:
        """The position that the next event will have."""
        with self._lock:
            return self._base + len(self._frames)

    @property
    def next_cursor(self) -> int:
        with self._lock:
            return self._last_key + 1

    @property
    def last_time(self) -> int:
        """The highest time_us so far, 0 when empty."""
        with self._lock:
            return self._times[-1] if self._times else 0

    def frames(self) -> list[bytes]:
        with self._lock:
            return self._frames.copy()

    def append(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            time_us = self._times[-1] if self._times else 0
            arrived = self._arrivals[-1] if self._arrivals else 0
            for entry in entries:
                if entry.time_us > time_us:
                    time_us = entry.time_us
                arrived = max(arrived, entry.time_us if entry.arrived_us is None else entry.arrived_us)
                key = self._last_key + 1 if entry.cursor is None else max(self._last_key, entry.cursor)
                self._last_key = key
                self._frames.append(entry.frame)
                self._dids.append(entry.did)
                self._collections.append(entry.collection)
                self._shown.append(entry.cursor is not None)
                self._hidden.append(entry.hidden)
                self._keys.append(key)
                self._times.append(time_us)
                self._arrivals.append(arrived)
                self._bytes += len(entry.frame) + _OVERHEAD
            if self._bytes > self._retain_bytes:
                self._trim()

    def _trim(self) -> None:
        """Forget the oldest until a tenth is free: deleting at the front of a list moves all of it."""
        goal = self._retain_bytes * 9 // 10
        count = 0
        # The newest event stays, however large.
        while self._bytes > goal and count < len(self._frames) - 1:
            self._bytes -= len(self._frames[count]) + _OVERHEAD
            count += 1
        self._forgotten = self._forgotten or count > 0
        for column in (self._frames, self._dids, self._collections, self._shown, self._hidden):
            del column[:count]
        for numbers in (self._keys, self._times, self._arrivals):
            del numbers[:count]
        self._base += count

    def find(self, cursor: int | None, now_us: int, lookback_us: int) -> int:
        """The position where a subscription with `cursor` begins.

        None and everything in the future is live; what lies below the floor is clamped to it.
        """
        with self._lock:
            end = self._base + len(self._frames)
            if cursor is None:
                return end
            floor = self._base + bisect_left(self._arrivals, now_us - lookback_us)
            if cursor >= FIRST_TIME_CURSOR:
                column, future = self._times, cursor > now_us
            else:
                column, future = self._keys, cursor > self._last_key
            return end if future else max(floor, self._base + bisect_left(column, cursor))

    def floor(self, now_us: int, lookback_us: int) -> tuple[int, int] | None:
        """Sequence number and time of the oldest event that cursors reach, if there were older ones."""
        with self._lock:
            first = bisect_left(self._arrivals, now_us - lookback_us)
            if not (first or self._forgotten):
                return None
            if first == len(self._frames):
                return self._last_key + 1, now_us
            return self._keys[first], self._times[first]

    def read(self, position: int, limit: int) -> Batch:
        """Up to `limit` events from `position`; later ones when those are already forgotten.

        Fewer where events are huge, but always one if there is any.
        """
        with self._lock:
            start = max(0, position - self._base)
            frames = self._frames[start : start + limit]
            while len(frames) > 1 and sum(map(len, frames)) > _MAX_BATCH_BYTES:
                del frames[len(frames) // 2 :]
            part = slice(start, start + len(frames))
            return Batch(
                self._base + start,
                frames,
                self._dids[part],
                self._collections[part],
                bytes(self._hidden[part]),
                self._keys[part],
            )

    def renumber(self, count: int, rng: random.Random) -> None:
        """What a killed server does: the last `count` events come again in another order.

        The order within a DID is kept, the cursors are used again for other events.
        """
        with self._lock:
            count = min(count, len(self._frames))
            if not count:
                return
            first = len(self._frames) - count
            queues: defaultdict[str, deque[int]] = defaultdict(deque)
            for index in range(first, len(self._frames)):
                queues[self._dids[index]].append(index)
            turns = self._dids[first:]
            rng.shuffle(turns)
            order = [queues[did].popleft() for did in turns]
            # A frame that shows no cursor stays as it is, but takes part in the new order.
            self._frames[first:] = [
                with_cursor(self._frames[old], self._keys[old], self._keys[new])
                if self._shown[old]
                else self._frames[old]
                for new, old in enumerate(order, first)
            ]
            self._shown[first:] = bytes(self._shown[old] for old in order)
            self._collections[first:] = [self._collections[old] for old in order]
            self._dids[first:] = turns
            self._hidden[first:] = bytes(self._hidden[old] for old in order)

    def rewrite(self, count: int, change: Callable[[bytes], bytes]) -> int:
        """Change the last `count` frames in place; return how many changed.

        Cursors reach an event as before: by its number, and by the time at which it came.
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
        """Forget everything and count from 1 again."""
        with self._lock:
            self._clear(position=self._base + len(self._frames))
