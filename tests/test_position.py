from __future__ import annotations

from slurp.flow import Batch
from slurp.position import (
    REWIND_EVENTS,
    REWIND_US,
    Answered,
    Ledger,
    Position,
    Trail,
    resume_cursor,
    resume_elsewhere,
)
from slurp.tally import Outcome, Tally

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


def at(cursor: int | None, seconds: float, host: str = "a") -> Position:
    return Position(host, cursor, NOW + int(seconds * SECOND))


def answered(position: Position | None) -> Answered:
    time_us = position.time_us if position else None
    return Answered(position, time_us)


def test_the_ledger_stands_before_the_first_batch_that_is_open() -> None:
    ledger = Ledger()
    ledger.answer(2, answered(at(20, 2)), NOW + 99 * SECOND)
    assert ledger.position is None
    ledger.answer(1, answered(at(10, 1)), NOW + 99 * SECOND)
    assert ledger.position is not None
    assert ledger.position.cursor == 20
    ledger.answer(4, answered(at(40, 4)), NOW + 99 * SECOND)
    assert ledger.position.cursor == 20


def test_a_batch_of_garbage_does_not_hold_the_ledger_up() -> None:
    ledger = Ledger()
    ledger.answer(1, answered(at(10, 1)), NOW + 99 * SECOND)
    ledger.answer(2, answered(None), NOW + 99 * SECOND)
    ledger.answer(3, answered(at(30, 3)), NOW + 99 * SECOND)
    assert ledger.position is not None
    assert ledger.position.cursor == 30


def test_one_odd_time_does_not_move_the_position() -> None:
    ledger = Ledger()
    for number in range(1, 10):
        odd = {4: -1e6, 7: 1e6}.get(number, 0)
        ledger.answer(number, answered(at(number, number + odd)), NOW + 99 * SECOND)
    assert ledger.position == at(9, 5)


def test_the_position_is_never_in_the_future() -> None:
    ledger = Ledger()
    ledger.answer(1, answered(at(1, 500)), NOW)
    assert ledger.position == Position("a", 1, NOW)


def test_rewinding_goes_back_a_block_or_a_minute_whichever_is_more() -> None:
    slow, fast = Trail(), Trail()
    for second in range(0, 300, 5):
        slow.add(at(100_000 + second, second))
        fast.add(at(100_000 + second * 1000, second))
    assert slow.rewound(at(100_295, 295)) == 100_295 - REWIND_EVENTS
    back = fast.rewound(at(395_000, 295))
    assert 395_000 - 75_000 <= back <= 395_000 - 60_000


def test_rewinding_a_short_trail_goes_to_its_beginning() -> None:
    trail = Trail()
    trail.add(at(50_000, 0))
    trail.add(at(90_000, 20))
    assert trail.rewound(at(90_000, 20)) == 50_000


def test_rewinding_never_goes_below_zero_and_works_without_cursors() -> None:
    assert Trail().rewound(at(100, 0)) == 0
    assert Trail().rewound(at(None, 0)) == NOW - REWIND_US


def test_the_trail_stays_short_and_survives_a_rewind() -> None:
    trail = Trail()
    for second in range(0, 10_000, 10):
        trail.add(at(second, second))
    assert len(trail.entries()) < 10
    trail.add(at(9_900, 9_900))
    assert trail.entries()[-1][0] == 9_900


def test_resuming_in_order_is_inclusive_and_elsewhere_goes_by_time() -> None:
    assert resume_cursor(at(7, 0)) == 7
    assert resume_cursor(at(None, 0)) == NOW
    assert resume_elsewhere(at(7, 0)) == NOW - 300 * SECOND


def test_a_position_is_beyond_another() -> None:
    assert at(8, 0).is_beyond(at(7, 0))
    assert at(8, -9999).is_beyond(at(7, 0)), "imports are back-dated"
    assert not at(7, 30).is_beyond(at(8, 0))
    assert at(7, 120).is_beyond(at(9_000_000, 0)), "a wiped server counts from 1 again"
    assert at(None, 1).is_beyond(at(None, 0))
    assert not at(7, 0).is_beyond(at(7, 0))


def test_the_tally_resumes_by_the_time_of_what_is_settled() -> None:
    tally = Tally()
    batch = Batch(1, "a", [b""] * 10, 0, at(10, 5))
    tally.received(batch)
    tally.answered(batch, Outcome(indexed=10), answered(at(10, 5)))
    back_dated_by_nothing = at(20, 8)
    assert tally.resume(1, back_dated_by_nothing, clean=True, host="a").cursor == 20
    elsewhere = tally.resume(1, back_dated_by_nothing, clean=True, host="b")
    assert elsewhere == (at(10, 5 - 300).time_us, at(20, 5))
    assert tally.resume(1, back_dated_by_nothing, clean=True, host="a", by_time=True) == elsewhere


def test_the_tally_adds_up() -> None:
    tally = Tally()
    one, two = (Batch(n, "a", [b""] * 10, 0, at(n, n)) for n in (1, 2))
    tally.received(one)
    tally.received(two)
    tally.answered(one, Outcome(4, 3, 1, 1, 1), answered(one.position))
    snapshot = tally.snapshot()
    assert snapshot.adds_up
    assert (snapshot.received, snapshot.in_flight, snapshot.indexed) == (20, 10, 4)
    tally.answered(two, Outcome(indexed=9), answered(two.position))
    assert not tally.snapshot().adds_up, "an event without an answer must show"
