"""What runs between the threads: batches of frames, and the bounded buffer they wait in."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from slurp.events.position import Position


@dataclass(slots=True)
class Batch:
    """Frames as they came, not yet parsed. `arrived` is in Unix seconds, `arrived_at` the same on the
    monotonic clock.

    `number` counts the batches of one reader. `announced` tells which of its events nobody wrote just then:
    see `slurp.jetstream.resyncs`. `bootstrap` is None except while a server announces all existing records:
    see `slurp.jetstream.bootstrap`.
    """

    number: int
    host: str
    frames: list[bytes]
    size: int
    position: Position | None
    arrived: float = field(default_factory=time.time)
    arrived_at: float = field(default_factory=time.monotonic)
    announced: Mapping[tuple[str, str], int] = field(default_factory=dict)
    bootstrap: frozenset[tuple[str, str]] | None = None
    reader: int = 1

    @property
    def arrived_us(self) -> int:
        """Unix microseconds."""
        return int(self.arrived * 1e6)


class BatchQueue:
    """A `queue.Queue` of batches, bounded in events and bytes from hand-over until acknowledgement.

    A batch that is larger than a bound is let in when nothing else is held.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self._queue: queue.Queue[Batch] = queue.Queue()
        self._room = threading.Condition()
        self._events = 0
        self._bytes = 0
        self._paused = False
        self._closed = threading.Event()

    def reserve(self, batch: Batch, timeout: float) -> bool:
        """Take the room that `batch` needs; False when there was none within `timeout` seconds."""
        with self._room:
            if not self._room.wait_for(lambda: self._fits(batch), timeout):
                return False
            self._events += len(batch.frames)
            self._bytes += batch.size
            return True

    def put(self, batch: Batch) -> None:
        """Hand over a batch that has its room."""
        self._queue.put_nowait(batch)

    def get(self, timeout: float) -> Batch | None:
        """The oldest waiting batch, or None when none came within `timeout` seconds."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def release(self, batch: Batch) -> None:
        """Every event of `batch` is answered for: make room."""
        with self._room:
            self._events -= len(batch.frames)
            self._bytes -= batch.size
            self._room.notify_all()

    def wait_until_half_empty(self, timeout: float) -> bool:
        with self._room:
            return self._room.wait_for(self._is_half_empty, timeout)

    def pause(self) -> None:
        """Give no more room until `resume`: readers wait, what is held already is indexed."""
        with self._room:
            self._paused = True

    def resume(self) -> None:
        with self._room:
            self._paused = False
            self._room.notify_all()

    @property
    def paused(self) -> bool:
        return self._paused

    def close(self) -> None:
        """Nothing more will be put; whoever gets may go home once it is empty."""
        self._closed.set()

    @property
    def drained(self) -> bool:
        return self._closed.is_set() and self._queue.empty()

    @property
    def events(self) -> int:
        """Events queued or in flight."""
        return self._events

    @property
    def bytes(self) -> int:
        """Bytes queued or in flight."""
        return self._bytes

    @property
    def waiting(self) -> int:
        """Events that no indexer has taken yet. Looks at each batch: not for every event."""
        with self._queue.mutex:
            return sum(len(batch.frames) for batch in self._queue.queue)

    @property
    def depth(self) -> int:
        """Batches that no indexer has taken yet."""
        return self._queue.qsize()

    def _fits(self, batch: Batch) -> bool:
        if self._paused:
            return False
        if self._events == 0:
            return True
        return (
            self._events + len(batch.frames) <= self.max_events and self._bytes + batch.size <= self.max_bytes
        )

    def _is_half_empty(self) -> bool:
        return (
            not self._paused and self._events <= self.max_events // 2 and self._bytes <= self.max_bytes // 2
        )
