"""Parts of the pipeline in the test process: a reader on a simulator, or indexers on a real node.

Tests of the reader use `reading`, which keeps the batches instead of sending them to Elasticsearch. Tests of
the indexer use `InProcess` and put frames into the queue themselves.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import websocket

from slurp.config import parse
from slurp.deletions.due import Due
from slurp.deletions.engine import Deletions
from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.setup import Setup
from slurp.elastic.unknown_fields import UnknownFields
from slurp.events import tid
from slurp.events.frames import first_position
from slurp.events.position import LIVE, Gap, Position
from slurp.jetstream.servers import host_of
from slurp.lexicons import committed
from slurp.logs import Secrets
from slurp.pipeline.ack_tracker import BatchAck
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.build import PipelineHooks, Records, build_pipeline
from slurp.pipeline.channel import Channel
from slurp.pipeline.dead_letters import DeadLetterFile
from slurp.pipeline.delivery import Destination
from slurp.pipeline.indexer import Indexer
from slurp.pipeline.progress import BatchOutcome, Counters, Snapshot
from slurp.pipeline.reader import Reader, Source
from slurp.pipeline.resume import ReaderHooks, StartPoint
from slurp.simulator.jetstream import Simulator

# A batch that is not acknowledged within this many seconds fails the test instead of blocking it forever.
_INDEXING_TIMEOUT = 60.0


# The reader


class Reading:
    """A reader thread, and a consumer thread that acknowledges and keeps all batches and gaps."""

    def __init__(
        self,
        servers: list[str],
        start: int | None,
        *options: str,
        consume: bool = True,
        known: Position | None = None,
    ) -> None:
        """Start at cursor `start`, live with None; with `known` resume after that position instead.

        Without `consume` batches stay in the queue until `start_consuming`.
        """
        # On the v1 protocol frames are byte for byte what the simulator holds; v2 has its own tests.
        config = parse(["--flush", "100ms", "--batch", "500", "--protocol", "v1", *options], {})
        self.channel = Channel(BatchQueue(config.buffer, config.buffer_bytes), Counters())
        self.counters = self.channel.counters
        self.stop = self.channel.shutdown.stop
        # While cleared, no batch is acknowledged, as during a pause of Elasticsearch.
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
        """Start the consumer thread, which acknowledges all batches."""
        self._start(self._consume)

    @property
    def frames(self) -> list[bytes]:
        """All frames consumed so far, in order."""
        return [frame for batch in list(self.batches) for frame in batch.frames]

    def end(self) -> None:
        """Stop the threads and wait until they have ended."""
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
            self.counters.acknowledged(batch, BatchOutcome(indexed=count), BatchAck(batch.position, time_us))
            self.channel.queue.release(batch)


@contextlib.contextmanager
def reading(
    *servers: Simulator | str,
    start: int | None = 0,
    options: tuple[str, ...] = (),
    consume: bool = True,
    known: Position | None = None,
) -> Iterator[Reading]:
    """Run a `Reading` of these servers, by default from cursor 0."""
    urls = [server if isinstance(server, str) else server.url for server in servers]
    running = Reading(urls, start, *options, consume=consume, known=known)
    try:
        yield running
    finally:
        running.end()


def until(condition: Callable[[], object], timeout: float = 60) -> None:
    """Wait until `condition` is true; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not met within {timeout:g} s"
        time.sleep(0.01)


class Clock:
    """A clock for simulators that a test sets back, to generate hours of events in a second.

    It returns the current time minus `ago` seconds.
    """

    def __init__(self) -> None:
        self.ago = 0.0

    def __call__(self) -> float:
        return time.time() - self.ago


def create_connection(url: str, timeout: float, **options: Any) -> Any:
    """Return `websocket.create_connection` to a server on this machine, without the proxy of the environment.

    The library uses that proxy for loopback addresses as well.
    """
    parts = urlsplit(url)
    connected = socket.create_connection((parts.hostname or "", parts.port or 80), timeout)
    return websocket.create_connection(url, timeout, socket=connected, **options)


# The indexer


class InProcess:
    """The part of the worker between the queue and Elasticsearch, without a reader."""

    def __init__(self, url: str, index: str, folder: Path, *options: str, setup: bool = True) -> None:
        """`url` is that of the node, `folder` holds the dead letter file; `setup` installs the templates."""
        self.index = index
        self.config = parse(["--es", url, "--index", index, *options], {"HOME": str(folder)})
        self.elastic = Elastic(self.config, Secrets(()))
        self.unknown_fields = UnknownFields(committed(), index)
        self.channel = Channel(BatchQueue(100_000, 100_000_000), Counters(applies_removals=True))
        self.counters = self.channel.counters
        self.shutdown = self.channel.shutdown
        work = Setup(self.config, committed())
        if setup:
            work.run(self.elastic.client)
        self.days = DailyIndices(self.elastic, index, self.config.retention_days, work.put_templates)
        self.letters = DeadLetterFile(folder / "letters.jsonl")
        self._outage_log = OutageLog()
        # Up to when the stream is read: by default until now, as all that is fed is acknowledged.
        self.read_until_us: int | None = None
        self.deletions = Deletions(
            self.elastic,
            self.config,
            self.channel,
            lambda: Due.of(
                [(0, int(time.time() * 1e6) if self.read_until_us is None else self.read_until_us)], 2**53
            ),
        )
        self._number = 0
        # Read once: a test may run across midnight.
        self.began = time.time()
        self.day = int(self.began) // 86_400
        self.today = self.days.name(self.day)

    def posts(self, count: int = 20, first: int = 0, days_ago: int = 0) -> list[bytes]:
        """Return frames of `count` posts of today, or of the day `days_ago` days before."""
        at = self.began - days_ago * 86_400
        return [
            commit(number, {"$type": "app.bsky.feed.post", "text": f"post {number}"}, at=at)
            for number in range(first, first + count)
        ]

    def feed(self, frames: Iterable[bytes], bootstrap: frozenset[tuple[str, str]] | None = None) -> Snapshot:
        """Index all frames as one batch on this thread; return the counters."""
        self.put(list(frames), bootstrap)
        # A batch that would be held forever fails the assertions of the test instead.
        self.shutdown.retry_until = time.monotonic() + _INDEXING_TIMEOUT
        self.one_indexer().step()
        self.shutdown.retry_until = None
        return self.counters.snapshot()

    @contextlib.contextmanager
    def running(self, indexers: int) -> Iterator[None]:
        """Run indexer threads. When the context exits, all batches from `put` are acknowledged."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(indexers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.channel.queue.close()
            for thread in threads:
                thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "an indexer did not stop"

    def feed_through_outage(self, frames: Iterable[bytes], end_outage: Callable[[], Any]) -> Snapshot:
        """Index frames during an outage, which `end_outage` ends; return the counters.

        No event is acknowledged before that call, and all are within 30 s after it.
        """
        frames = list(frames)
        self.put(frames)
        thread = threading.Thread(target=self.one_indexer().step, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not self._outage_log.is_failing and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self._outage_log.is_failing, "the outage was not noticed"
        try:
            time.sleep(0.5)
            held = self.counters.snapshot()
            assert held.in_flight == len(frames), "events were acknowledged during the outage"
        finally:
            end_outage()
            thread.join(30)
        assert not thread.is_alive(), "indexing did not finish after the outage"
        return self.counters.snapshot()

    def put(self, frames: list[bytes], bootstrap: frozenset[tuple[str, str]] | None = None) -> None:
        """Queue frames as one batch for the indexers."""
        self._number += 1
        position = first_position(reversed(frames), "host.example")
        size = sum(map(len, frames))
        batch = Batch(self._number, "host.example", frames, size, position, bootstrap=bootstrap)
        self.channel.queue.reserve(batch, 0)
        self.counters.received(batch)
        self.channel.queue.put(batch)

    def one_indexer(self, beat: Callable[[], None] = lambda: None) -> Indexer:
        """Return a new indexer on the queue; no thread is started."""
        destination = Destination(self.elastic, self.days, self.letters, self._outage_log)
        records = Records(unknown_fields=self.unknown_fields)
        hooks = PipelineHooks(beat_of=lambda name: beat)
        return build_pipeline(self.config, self.channel, destination, records, hooks=hooks).indexers[0]

    def _work(self) -> None:
        indexer = self.one_indexer()
        while indexer.step():
            pass


def posts_with_integer(field: str) -> dict[str, Any]:
    """Return the properties of a mapping by a user in which this field of posts is an integer.

    Elasticsearch rejects a post with another value there. Without such a mapping it accepts every record.
    """
    properties: dict[str, Any] = {field: {"type": "integer"}}
    for name in ("post", "feed", "bsky", "app", "record"):
        properties = {name: {"properties": properties}}
    return properties


def commit(
    number: int,
    record: Any,
    collection: str = "app.bsky.feed.post",
    rkey: str = "self",
    at: float | None = None,
    **more: Any,
) -> bytes:
    """Return a v1 frame of the current time, or the Unix time `at`; each `number` is another event."""
    now = int((time.time() if at is None else at) * 1e6)
    event = {
        "did": f"did:plc:{number:024}",
        "time_us": now,
        "cursor": number,
        "kind": "commit",
        "commit": {
            "rev": tid.from_micros(now + number),
            "operation": "create",
            "collection": collection,
            "rkey": rkey,
            "record": record,
            "cid": "bafyrei",
        },
        **more,
    }
    return orjson.dumps(event)
