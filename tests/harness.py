"""An indexer in the test's own process, on a real node: frames in, answers out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.setup import Setup
from slurp.elastic.unknown_fields import UnknownFields
from slurp.events import tid
from slurp.events.frames import first_position
from slurp.lexicons import committed
from slurp.logs import Secrets
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.build import PipelineHooks, Records, build_pipeline
from slurp.pipeline.channel import Channel
from slurp.pipeline.dead_letters import DeadLetterFile
from slurp.pipeline.delivery import Destination
from slurp.pipeline.indexer import Indexer
from slurp.pipeline.progress import Counters, Snapshot

_FOR_EVER = 60.0


class InProcess:
    """The part of the worker between the reader and Elasticsearch."""

    def __init__(self, url: str, index: str, folder: Path, *options: str, setup: bool = True) -> None:
        self.index = index
        self.config = parse(["--es", url, "--index", index, *options], {"HOME": str(folder)})
        self.elastic = Elastic(self.config, Secrets(()))
        self.unknown_fields = UnknownFields(committed(), index)
        self.channel = Channel(BatchQueue(100_000, 100_000_000), Counters())
        self.counters = self.channel.counters
        self.shutdown = self.channel.shutdown
        work = Setup(self.config, committed())
        if setup:
            work.run(self.elastic.client)
        self.days = DailyIndices(self.elastic, index, self.config.retention_days, work.put_templates)
        self.letters = DeadLetterFile(folder / "letters.jsonl")
        self._outage_log = OutageLog()
        self._number = 0
        # Looked at once: midnight may pass while a test runs.
        self.began = time.time()
        self.day = int(self.began) // 86_400
        self.today = self.days.name(self.day)

    def posts(self, count: int = 20, first: int = 0, days_ago: int = 0) -> list[bytes]:
        """Frames of that day, or of one before it."""
        at = self.began - days_ago * 86_400
        return [
            commit(number, {"$type": "app.bsky.feed.post", "text": f"post {number}"}, at=at)
            for number in range(first, first + count)
        ]

    def feed(self, frames: Iterable[bytes], bootstrap: frozenset[tuple[str, str]] | None = None) -> Snapshot:
        """Answer for all frames, on this thread."""
        self.put(list(frames), bootstrap)
        # What would be held for ever fails the test that asks for the answers.
        self.shutdown.deadline = time.monotonic() + _FOR_EVER
        self.one_indexer().step()
        self.shutdown.deadline = None
        return self.counters.snapshot()

    @contextlib.contextmanager
    def running(self, indexers: int) -> Iterator[None]:
        """Several threads at work. At the end everything that was `put` is answered for."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(indexers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.channel.queue.close()
            for thread in threads:
                thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "it goes on"

    def feed_through_trouble(self, frames: Iterable[bytes], mend: Callable[[], Any]) -> Snapshot:
        """Nothing is answered for until `mend` was called, and everything soon after."""
        frames = list(frames)
        self.put(frames)
        thread = threading.Thread(target=self.one_indexer().step, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not self._outage_log.is_failing and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self._outage_log.is_failing, "no trouble"
        try:
            time.sleep(0.5)
            held = self.counters.snapshot()
            assert held.in_flight == len(frames), "nothing is answered for"
        finally:
            mend()
            thread.join(30)
        assert not thread.is_alive(), "it goes on once mended"
        return self.counters.snapshot()

    def put(self, frames: list[bytes], bootstrap: frozenset[tuple[str, str]] | None = None) -> None:
        """A batch to be answered for, by whoever is at work."""
        self._number += 1
        position = first_position(reversed(frames), "host.example")
        size = sum(map(len, frames))
        batch = Batch(self._number, "host.example", frames, size, position, bootstrap=bootstrap)
        self.channel.queue.reserve(batch, 0)
        self.counters.received(batch)
        self.channel.queue.put(batch)

    def _work(self) -> None:
        indexer = self.one_indexer()
        while indexer.step():
            pass

    def one_indexer(self, beat: Callable[[], None] = lambda: None) -> Indexer:
        destination = Destination(self.elastic, self.days, self.letters, self._outage_log)
        records = Records(unknown_fields=self.unknown_fields)
        hooks = PipelineHooks(beat_of=lambda name: beat)
        return build_pipeline(self.config, self.channel, destination, records, hooks=hooks).indexers[0]


def commit(
    number: int,
    record: Any,
    collection: str = "app.bsky.feed.post",
    rkey: str = "self",
    at: float | None = None,
    **more: Any,
) -> bytes:
    """A frame of the v1 wire, of now or the Unix time `at`; different numbers are different events."""
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
