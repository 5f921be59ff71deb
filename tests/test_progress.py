from __future__ import annotations

from slurp.events.position import REWIND_EVENTS, REWIND_US, Position, resume_cursor, resume_elsewhere
from slurp.pipeline.batches import Batch
from slurp.pipeline.progress import AckTracker, BatchAck, Counters, Outcome

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


def at(cursor: int | None, seconds: float, host: str = "a") -> Position:
    return Position(host, cursor, NOW + int(seconds * SECOND))


def answered(position: Position | None) -> BatchAck:
    time_us = position.time_us if position else None
    return BatchAck(position, time_us)


def test_the_ledger_stands_before_the_first_batch_that_is_open() -> None:
    tracker = AckTracker()
    tracker.acknowledge(2, answered(at(20, 2)), NOW + 99 * SECOND)
    assert tracker.position is None
    tracker.acknowledge(1, answered(at(10, 1)), NOW + 99 * SECOND)
    assert tracker.position is not None
    assert tracker.position.cursor == 20
    tracker.acknowledge(4, answered(at(40, 4)), NOW + 99 * SECOND)
    assert tracker.position.cursor == 20


def test_a_batch_of_garbage_does_not_hold_the_ledger_up() -> None:
    tracker = AckTracker()
    tracker.acknowledge(1, answered(at(10, 1)), NOW + 99 * SECOND)
    tracker.acknowledge(2, answered(None), NOW + 99 * SECOND)
    tracker.acknowledge(3, answered(at(30, 3)), NOW + 99 * SECOND)
    assert tracker.position is not None
    assert tracker.position.cursor == 30


def test_one_odd_time_does_not_move_the_position() -> None:
    tracker = AckTracker()
    for number in range(1, 10):
        odd = {4: -1e6, 7: 1e6}.get(number, 0)
        tracker.acknowledge(number, answered(at(number, number + odd)), NOW + 99 * SECOND)
    assert tracker.position == at(9, 5)


def test_the_position_is_never_in_the_future() -> None:
    tracker = AckTracker()
    tracker.acknowledge(1, answered(at(1, 500)), NOW)
    assert tracker.position == Position("a", 1, NOW)


def test_resuming_reads_two_blocks_again_however_much_time_they_are() -> None:
    assert REWIND_EVENTS == 2 * 4096
    assert resume_cursor(at(100_000, 0)) == 100_001 - REWIND_EVENTS, "a cursor is inclusive"
    assert resume_cursor(at(100, 0)) == 0


def test_resuming_goes_by_time_where_there_is_no_number_or_another_host() -> None:
    assert resume_cursor(at(None, 0)) == NOW - REWIND_US
    assert resume_elsewhere(at(100_000, 0)) == NOW - 300 * SECOND


def test_what_is_acknowledged_again_after_a_rewind_is_no_way_back() -> None:
    tracker = AckTracker()
    for number, cursor in enumerate((10, 20, 12, 18), start=1):
        tracker.acknowledge(number, answered(at(cursor, cursor)), NOW + 99 * SECOND)
        assert tracker.position is not None
        assert tracker.position.cursor == max(10, 20 if number > 1 else 0)
    tracker.acknowledge(5, answered(at(7, 40, "b")), NOW + 99 * SECOND)
    assert tracker.position is not None
    assert (tracker.position.host, tracker.position.cursor) == ("b", 7), "numbers of another host"


def test_a_position_is_beyond_another() -> None:
    assert at(8, 0).is_beyond(at(7, 0))
    assert at(8, -9999).is_beyond(at(7, 0)), "imports are back-dated"
    assert not at(7, 30).is_beyond(at(8, 0))
    assert at(7, 120).is_beyond(at(9_000_000, 0)), "a wiped server counts from 1 again"
    assert at(None, 1).is_beyond(at(None, 0))
    assert not at(7, 0).is_beyond(at(7, 0))


def test_the_tally_resumes_by_the_time_of_what_is_settled() -> None:
    counters = Counters()
    batch = Batch(1, "a", [b""] * 10, 0, at(10, 5))
    counters.received(batch)
    counters.acknowledged(batch, Outcome(indexed=10), answered(at(10, 5)))
    back_dated_by_nothing = at(20_000, 8)
    assert counters.resume(1, back_dated_by_nothing, host="a").cursor == 20_001 - REWIND_EVENTS
    elsewhere = counters.resume(1, back_dated_by_nothing, host="b")
    assert elsewhere == (at(10, 5 - 300).time_us, at(20_000, 5))
    assert counters.resume(1, back_dated_by_nothing, host="a", by_time=True) == elsewhere


def test_the_tally_adds_up() -> None:
    counters = Counters()
    one, two = (Batch(n, "a", [b""] * 10, 0, at(n, n)) for n in (1, 2))
    counters.received(one)
    counters.received(two)
    counters.acknowledged(one, Outcome(4, 2, 1, 1, 1, 1), answered(one.position))
    snapshot = counters.snapshot()
    assert snapshot.adds_up
    assert (snapshot.received, snapshot.in_flight, snapshot.indexed) == (20, 10, 4)
    counters.acknowledged(two, Outcome(indexed=9), answered(two.position))
    assert not counters.snapshot().adds_up, "an event without an answer must show"
