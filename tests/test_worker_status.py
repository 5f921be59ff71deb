"""Up to which time the stream is acknowledged, by which deleted accounts are redacted."""

from __future__ import annotations

import time

from slurp.events.position import Position
from slurp.pipeline.batches import Batch
from slurp.pipeline.progress import BatchAck, BatchOutcome
from tests.idle_worker import NOWHERE, IdleWorker

HOUR_US = 3_600_000_000


def acknowledge(worker: IdleWorker, number: int, time_us: int) -> None:
    position = Position("one:1", number, time_us)
    batch = Batch(number, "one:1", [b"{}"], 2, position)
    worker.channel.counters.received(batch)
    worker.channel.counters.acknowledged(batch, BatchOutcome(indexed=1), BatchAck(position, time_us))


def started() -> IdleWorker:
    worker = IdleWorker(NOWHERE, "ws://one:1")
    worker.finish_startup()
    return worker


def test_it_is_the_time_of_the_acknowledged_events_and_never_in_the_future() -> None:
    worker = started()
    assert worker.status.read_until_us == 0
    now_us = int(time.time() * 1e6)
    acknowledge(worker, 1, now_us - 30 * HOUR_US)
    assert worker.status.read_until_us == now_us - 30 * HOUR_US
    for number in range(2, 12):
        acknowledge(worker, number, now_us + HOUR_US)
    assert worker.status.read_until_us <= time.time() * 1e6


def test_a_server_without_events_is_read_until_now() -> None:
    worker = started()
    old_us = int((time.time() - 90_000) * 1e6)
    acknowledge(worker, 1, old_us)
    assert worker.status.readers is not None
    [reader] = worker.status.readers
    now = time.monotonic()
    reader._connected = True
    reader._liveness.restart(now - 100)
    ping = reader._liveness.next_ping(now)
    assert ping is not None
    assert worker.status.read_until_us == old_us, "the server may not have begun to send"
    reader._liveness.pong(ping, now + 0.1)
    assert worker.status.read_until_us >= (time.time() - 5) * 1e6
    batch = Batch(2, "one:1", [b"{}"], 2, Position("one:1", 2, old_us))
    worker.channel.queue.reserve(batch, 0)
    worker.channel.queue.put(batch)
    assert worker.status.read_until_us == old_us, "an event is in flight"
    reader._connected = False
    worker.channel.queue.get(0)
    worker.channel.queue.release(batch)
    assert worker.status.read_until_us == old_us
