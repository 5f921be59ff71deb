"""Batches of frames, and the bounded queue between reader and indexer threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from slurp.events.position import Position

# The number of the reader of an archive. Those of streams have numbers from 1.
ARCHIVE_READER = 0


@dataclass(slots=True)
class Batch:
    """Frames of one reader, in the order of the stream and not yet parsed.

    Attributes:
        number: consecutive for each reader, from 1.
        size: bytes of the received frames, including removed notices.
        position: the position of the last event; None when no frame could be decoded.
        arrived_at: when it was received, in Unix seconds; `arrived_monotonic` is the same on that clock.
        announced: resyncs among its events, see `slurp.jetstream.resyncs`.
        bootstrap: None except while a server announces all existing records, see `slurp.jetstream.bootstrap`.
        reader: the number of its reader.
    """

    number: int
    host: str
    frames: list[bytes]
    size: int
    position: Position | None
    arrived_at: float = field(default_factory=time.time)
    arrived_monotonic: float = field(default_factory=time.monotonic)
    announced: Mapping[tuple[str, str], int] = field(default_factory=dict)
    bootstrap: frozenset[tuple[str, str]] | None = None
    reader: int = 1

    @property
    def is_late(self) -> bool:
        """Whether later events of the same records may be stored already."""
        return self.reader == ARCHIVE_READER

    @property
    def arrived_us(self) -> int:
        """Time of arrival in Unix microseconds."""
        return int(self.arrived_at * 1e6)


class BatchQueue:
    """A `queue.Queue` of batches, bounded in events and bytes.

    The bounds hold from `reserve` until `release`, so they cover all events in flight, in the queue or at an
    indexer. A batch that is larger than a bound is accepted when there is no other.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self._queue: queue.Queue[Batch] = queue.Queue()
        self._space = threading.Condition()
        self._events = 0
        self._bytes = 0
        self._paused = False
        self._closed = threading.Event()

    def reserve(self, batch: Batch, timeout: float) -> bool:
        """Reserve space for `batch`; return False when there was none within `timeout` seconds."""
        with self._space:
            if not self._space.wait_for(lambda: self._fits(batch), timeout):
                return False
            self._events += len(batch.frames)
            self._bytes += batch.size
            return True

    def put(self, batch: Batch) -> None:
        """Queue a batch for which space is reserved."""
        self._queue.put_nowait(batch)

    def get(self, timeout: float) -> Batch | None:
        """Return the oldest queued batch, or None when there was none within `timeout` seconds."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def release(self, batch: Batch) -> None:
        """Free the space of a batch whose events are all acknowledged."""
        with self._space:
            self._events -= len(batch.frames)
            self._bytes -= batch.size
            self._space.notify_all()

    def wait_until_half_empty(self, timeout: float) -> bool:
        """Wait until at least half of the space is free; return False when it was not within `timeout`."""
        with self._space:
            return self._space.wait_for(self._is_half_empty, timeout)

    def pause(self) -> None:
        """Reserve no more space until `resume`: readers wait, queued batches are still indexed."""
        with self._space:
            self._paused = True

    def resume(self) -> None:
        """Reserve space again after `pause`."""
        with self._space:
            self._paused = False
            self._space.notify_all()

    @property
    def paused(self) -> bool:
        """Whether `pause` was called, and not `resume` since."""
        return self._paused

    def close(self) -> None:
        """Accept no more batches; consumers exit once the queue is drained."""
        self._closed.set()

    @property
    def drained(self) -> bool:
        """Whether the queue is closed and empty."""
        return self._closed.is_set() and self._queue.empty()

    @property
    def events(self) -> int:
        """Events in flight: received and not acknowledged yet."""
        return self._events

    @property
    def bytes(self) -> int:
        """Bytes in flight: received and not acknowledged yet."""
        return self._bytes

    @property
    def queued_events(self) -> int:
        """Events that no indexer has started with. Iterates over all batches: not for every event."""
        with self._queue.mutex:
            return sum(len(batch.frames) for batch in self._queue.queue)

    @property
    def depth(self) -> int:
        """Batches that no indexer has started with."""
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
