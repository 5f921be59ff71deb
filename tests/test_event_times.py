"""The time of an event comes from its rev, not from the `time_us` of a server."""

from __future__ import annotations

import time

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.events import tid
from slurp.events.position import Position
from slurp.pipeline.ack_tracker import AckTracker, BatchAck
from tests.harness import InProcess, commit
from tests.tiers import slow_except
from tests.worker import documents

DAY = 86_400
POST = {"$type": "app.bsky.feed.post", "text": "hello"}


def with_time_us(frame: bytes, seconds: float) -> bytes:
    """Return the event with another `time_us`, as after a server has imported time stamps."""
    return orjson.dumps(orjson.loads(frame) | {"time_us": int(seconds * 1e6)})


def with_rev(frame: bytes, seconds: float) -> bytes:
    """Return the event with the rev of another time."""
    event = orjson.loads(frame)
    event["commit"]["rev"] = tid.from_micros(int(seconds * 1e6))
    return orjson.dumps(event)


def lag_of(indexer: InProcess) -> float:
    """Return the lag in seconds."""
    newest_us = indexer.counters.snapshot().newest_us
    assert newest_us is not None
    return time.time() - newest_us / 1e6


@pytest.mark.parametrize("collection", ["app.bsky.feed.post", "app.bsky.feed.like"])
def test_imported_time_stamps_cause_neither_duplicates_nor_expiry(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str, collection: str
) -> None:
    subject = {"cid": "bafyreib", "uri": "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3l"}
    record = {"$type": collection, "createdAt": "2026-07-04T14:38:08.999Z", "subject": subject}
    frames = [commit(number, record, at=indexer.began, collection=collection) for number in range(30)]
    indexer.feed(frames)
    # Well past the retention of 30 days, with a different time for each event.
    counted = indexer.feed(
        [with_time_us(frame, indexer.began - 400 * DAY + n) for n, frame in enumerate(frames)]
    )
    assert (counted.indexed, counted.duplicates, counted.expired) == (30, 30, 0)
    assert len(documents(es, fresh_index_prefix)) == 30
    assert list(es.indices.get(index=f"{fresh_index_prefix}-*")) == [indexer.today]


def test_a_future_rev_creates_no_daily_index_and_is_counted(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    near, *far = indexer.posts(4)
    frames = [
        with_rev(near, indexer.began + 3600),
        *(with_rev(frame, indexer.began + 9 * DAY) for frame in far),
    ]
    counted = indexer.feed(frames)
    assert (counted.indexed, counted.future_revs) == (4, 3)
    assert indexer.days.name(indexer.day + 9) not in es.indices.get(index=f"{fresh_index_prefix}-*")


def test_revs_are_not_future_revs_if_the_local_clock_is_behind_the_server(indexer: InProcess) -> None:
    ahead = indexer.began + 3 * DAY
    frames = [with_rev(with_time_us(frame, ahead), ahead) for frame in indexer.posts(30)]
    # The clock of the server is unknown before the first batch.
    assert indexer.feed(frames[:10]).future_revs == 10
    assert indexer.feed(frames[10:]).future_revs == 10


@pytest.mark.parametrize("days", slow_except([-10, 10], 10))
def test_one_wrong_time_at_the_end_of_a_batch_does_not_change_the_lag(indexer: InProcess, days: int) -> None:
    frames = indexer.posts(20)
    indexer.feed(
        [*frames, with_time_us(with_rev(frames[0], indexer.began + days * DAY), indexer.began + days * DAY)]
    )
    assert -60 < lag_of(indexer) < 60


def test_the_lag_of_imported_events_is_measured_from_their_revs(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    indexer.feed([with_time_us(frame, indexer.began - 10 * DAY) for frame in indexer.posts(20)])
    assert -60 < lag_of(indexer) < 60
    lags = [source["event"]["lag_ms"] for source in documents(es, fresh_index_prefix).values()]
    assert max(lags) < 60_000


def test_the_lag_of_a_quiet_stream_is_the_age_of_its_newest_event() -> None:
    """The sample is the last nine events, whatever the age of the first of them."""
    tracker = AckTracker()
    for number in range(1, 12):
        at_us = number * 600_000_000
        position = Position("a", number, at_us)
        acknowledged = BatchAck(position, at_us, arrived_us=at_us + 1_000_000, delays_us=(1_000_000,))
        tracker.acknowledge(1, number, acknowledged, at_us + 2_000_000)
        assert tracker.newest_us == at_us
