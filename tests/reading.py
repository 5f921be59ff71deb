"""A reader thread between servers and a consumer that keeps what it gets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from slurp.config import parse
from slurp.events.position import LIVE, Gap, Position
from slurp.jetstream.servers import host_of
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.channel import Channel
from slurp.pipeline.progress import BatchAck, Counters, Outcome
from slurp.pipeline.reader import Reader, Source
from slurp.pipeline.resume import ReaderHooks, StartPoint
from slurp.simulator.jetstream import Simulator


class Reading:
    """A reader thread, and what came of it."""

    def __init__(
        self,
        servers: list[str],
        start: int | None,
        *options: str,
        consume: bool = True,
        known: Position | None = None,
    ) -> None:
        # By the v1 wire frames are what the simulator holds, byte for byte; v2 has tests of its own.
        config = parse(["--flush", "100ms", "--batch", "500", "--protocol", "v1", *options], {})
        self.channel = Channel(BatchQueue(config.buffer, config.buffer_bytes), Counters())
        self.counters = self.channel.counters
        self.stop = self.channel.shutdown.stop
        # Cleared, nothing is acknowledged, as while Elasticsearch pauses.
        self.acknowledges = threading.Event()
        self.acknowledges.set()
        self.batches: list[Batch] = []
        self.gaps: list[Gap] = []
        resumes = known is not None
        known = known or Position(
            host_of(servers[0]), start, 0 if start is not None else int(time.time() * 1e6)
        )
        cursor = None if resumes else LIVE if start is None else start
        self.reader = Reader(
            config,
            Source(servers, StartPoint(known, cursor)),
            self.channel,
            hooks=ReaderHooks(on_gap=lambda reader, gap, hold=None: self.gaps.append(gap)),
        )
        self.threads: list[threading.Thread] = []
        self._start(self._read)
        if consume:
            self.start_consuming()

    def start_consuming(self) -> None:
        """What `consume` left out."""
        self._start(self._consume)

    @property
    def frames(self) -> list[bytes]:
        return [frame for batch in list(self.batches) for frame in batch.frames]

    def end(self) -> None:
        self.stop.set()
        self.acknowledges.set()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()

    def _start(self, work: Callable[[], None]) -> None:
        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()

    def _read(self) -> None:
        while self.reader.step():
            pass
        self.channel.queue.close()

    def _consume(self) -> None:
        while not self.channel.queue.drained:
            self.acknowledges.wait()
            batch = self.channel.queue.get(0.05)
            if batch is None:
                continue
            self.batches.append(batch)
            time_us = batch.position.time_us if batch.position else None
            count = len(batch.frames)
            self.counters.acknowledged(batch, Outcome(indexed=count), BatchAck(batch.position, time_us))
            self.channel.queue.release(batch)


@contextmanager
def reading(
    *servers: Simulator | str,
    start: int | None = 0,
    options: tuple[str, ...] = (),
    consume: bool = True,
    known: Position | None = None,
) -> Iterator[Reading]:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    running = Reading(urls, start, *options, consume=consume, known=known)
    try:
        yield running
    finally:
        running.end()


def until(condition: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.01)
