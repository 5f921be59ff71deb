"""Up to which time the stream is acknowledged, by which deleted accounts are redacted."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from slurp.deletions.due import Due
from slurp.events.position import Position
from slurp.pipeline.ack_tracker import BatchAck
from slurp.pipeline.batches import Batch
from slurp.pipeline.progress import BatchOutcome
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


def test_the_silence_of_a_server_counts_as_time() -> None:
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

    def passed() -> float:
        return worker.status.due.until.timestamp() - old_us / 1e6

    assert abs(passed()) < 1, "the server may not have begun to send"
    reader._liveness.pong(ping, now + 0.1)
    assert 99 < passed() < 102
    batch = Batch(2, "one:1", [b"{}"], 2, Position("one:1", 2, old_us))
    worker.channel.queue.reserve(batch, 0)
    worker.channel.queue.put(batch)
    assert abs(passed()) < 1, "an event is in flight"
    worker.channel.queue.get(0)
    worker.channel.queue.release(batch)
    reader._connected = False
    assert abs(passed()) < 1


def test_a_reader_after_a_gap_decides_only_about_later_deletions() -> None:
    now_us = 100 * 24 * HOUR_US
    alone = Due.of([(now_us - 5 * HOUR_US, now_us)], now_us)
    assert (alone.since, alone.until) == (at(now_us - 5 * HOUR_US), at(now_us))
    assert alone.with_gaps == at(now_us - 48 * HOUR_US)
    # Another one still reads what the first has missed.
    both = Due.of([(now_us - 5 * HOUR_US, now_us), (0, now_us - 30 * HOUR_US)], now_us)
    assert (both.since, both.until) == (at(0), at(now_us - 30 * HOUR_US))
    assert Due.of([(0, now_us), (0, 7)], now_us).until == at(now_us), "one of them is not reachable"
    assert Due.of([(0, 2 * now_us)], now_us).until == at(now_us), "a server whose clock is ahead"


def at(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1e6, UTC)
