"""Positions and cursors, the acknowledged position of a reader, and the counters of events."""

from __future__ import annotations

from slurp.events.position import REWIND_EVENTS, REWIND_US, Position, resume_cursor, resume_elsewhere
from slurp.pipeline.ack_tracker import AckTracker, BatchAck
from slurp.pipeline.batches import Batch
from slurp.pipeline.progress import BatchOutcome, Counters

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


def at(cursor: int | None, seconds: float, host: str = "a") -> Position:
    return Position(host, cursor, NOW + int(seconds * SECOND))


def ack(position: Position | None) -> BatchAck:
    time_us = position.time_us if position else None
    return BatchAck(position, time_us)


def test_the_position_stays_before_the_first_unacknowledged_batch() -> None:
    tracker = AckTracker()
    tracker.acknowledge(1, 2, ack(at(20, 2)), NOW + 99 * SECOND)
    assert tracker.position is None
    tracker.acknowledge(1, 1, ack(at(10, 1)), NOW + 99 * SECOND)
    assert tracker.position is not None
    assert tracker.position.cursor == 20
    tracker.acknowledge(1, 4, ack(at(40, 4)), NOW + 99 * SECOND)
    assert tracker.position.cursor == 20


def test_a_batch_without_a_position_does_not_stop_the_position() -> None:
    tracker = AckTracker()
    tracker.acknowledge(1, 1, ack(at(10, 1)), NOW + 99 * SECOND)
    tracker.acknowledge(1, 2, ack(None), NOW + 99 * SECOND)
    tracker.acknowledge(1, 3, ack(at(30, 3)), NOW + 99 * SECOND)
    assert tracker.position is not None
    assert tracker.position.cursor == 30


def test_one_wrong_time_does_not_change_the_time_of_the_position() -> None:
    tracker = AckTracker()
    for number in range(1, 10):
        error = {4: -1e6, 7: 1e6}.get(number, 0)
        tracker.acknowledge(1, number, ack(at(number, number + error)), NOW + 99 * SECOND)
    assert tracker.position == at(9, 5)


def test_the_time_of_the_position_is_never_in_the_future() -> None:
    tracker = AckTracker()
    tracker.acknowledge(1, 1, ack(at(1, 500)), NOW)
    assert tracker.position == Position("a", 1, NOW)


def test_resuming_replays_two_blocks_of_sequence_numbers_regardless_of_their_time() -> None:
    assert REWIND_EVENTS == 2 * 4096
    assert resume_cursor(at(100_000, 0)) == 100_001 - REWIND_EVENTS, (
        "the server sends the event at the cursor too"
    )
    assert resume_cursor(at(100, 0)) == 0


def test_resuming_uses_a_time_without_a_sequence_number_and_on_another_host() -> None:
    assert resume_cursor(at(None, 0)) == NOW - REWIND_US
    assert resume_elsewhere(at(100_000, 0)) == NOW - 300 * SECOND


def test_events_acknowledged_again_after_a_rewind_do_not_move_the_position_back() -> None:
    tracker = AckTracker()
    for number, cursor in enumerate((10, 20, 12, 18), start=1):
        tracker.acknowledge(1, number, ack(at(cursor, cursor)), NOW + 99 * SECOND)
        assert tracker.position is not None
        assert tracker.position.cursor == max(10, 20 if number > 1 else 0)
    tracker.acknowledge(1, 5, ack(at(7, 40, "b")), NOW + 99 * SECOND)
    assert tracker.position is not None
    assert (tracker.position.host, tracker.position.cursor) == ("b", 7), (
        "a lower number of another host counts"
    )


def test_a_position_is_beyond_another_by_number_or_by_a_clearly_later_time() -> None:
    assert at(8, 0).is_beyond(at(7, 0))
    assert at(8, -9999).is_beyond(at(7, 0)), "imported events are back-dated"
    assert not at(7, 30).is_beyond(at(8, 0))
    assert at(7, 120).is_beyond(at(9_000_000, 0)), "a wiped server restarts its numbers at 1"
    assert at(None, 1).is_beyond(at(None, 0))
    assert not at(7, 0).is_beyond(at(7, 0))


def test_resuming_by_time_uses_the_time_of_the_newest_acknowledged_events() -> None:
    counters = Counters()
    batch = Batch(1, "a", [b""] * 10, 0, at(10, 5))
    counters.received(batch)
    counters.acknowledged(batch, BatchOutcome(indexed=10), ack(at(10, 5)))
    received_later = at(20_000, 8)
    assert counters.resume(1, received_later, host="a").cursor == 20_001 - REWIND_EVENTS
    elsewhere = counters.resume(1, received_later, host="b")
    assert elsewhere == (at(10, 5 - 300).time_us, at(20_000, 5))
    assert counters.resume(1, received_later, host="a", by_time=True) == elsewhere


def test_received_is_the_sum_of_all_outcomes_and_events_in_flight() -> None:
    counters = Counters()
    one, two = (Batch(n, "a", [b""] * 10, 0, at(n, n)) for n in (1, 2))
    counters.received(one)
    counters.received(two)
    counters.acknowledged(one, BatchOutcome(4, 2, 1, 1, 1, 1), ack(one.position))
    snapshot = counters.snapshot()
    assert snapshot.adds_up
    assert (snapshot.received, snapshot.in_flight, snapshot.indexed) == (20, 10, 4)
    counters.acknowledged(two, BatchOutcome(indexed=9), ack(two.position))
    assert not counters.snapshot().adds_up, "an event without an outcome must be detected"
