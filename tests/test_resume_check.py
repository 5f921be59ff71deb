"""The check of a connection by its first events against the requested cursor."""

from __future__ import annotations

import pytest

from slurp.events.position import Position, ResumePoint
from slurp.jetstream.resume_check import CheckResult, ResumeCheck, Verdict

SECOND = 1_000_000
HOUR = 3600
NOW = 1_795_000_000 * SECOND
KNOWN = Position("a", 10_000, NOW)


def at(cursor: int | None, seconds: float) -> Position:
    return Position("a", cursor, NOW + int(seconds * SECOND))


def consecutive(cursor: int, seconds: float, step: float = 0.01, count: int = 9) -> list[Position]:
    """Return consecutive events from a cursor and a time on."""
    return [at(cursor + n, seconds + n * step) for n in range(count)]


def evaluate(first: list[Position], cursor: int = 10_000, newest: float = 0, **more: bool) -> CheckResult:
    return check(cursor, newest, **more).evaluate(first)


def check(cursor: int = 10_000, newest: float = 0, *, filtered: bool = False, **more: bool) -> ResumeCheck:
    return ResumeCheck(ResumePoint(cursor, KNOWN), NOW + int(newest * SECOND), filtered, **more)


BACK_DATED = [at(10_000, 0), *(at(10_001 + n, -50 * HOUR) for n in range(8))]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(consecutive(10_000, 0), id="inclusive"),
        pytest.param(consecutive(5_904, -8), id="rewound"),
        pytest.param(consecutive(10_007, 0.2), id="missing numbers among the first events"),
        pytest.param(BACK_DATED, id="imported events"),
        pytest.param([at(10_000, 9 * HOUR), *consecutive(10_001, 0, count=8)], id="one from the future"),
        pytest.param(consecutive(10_000, 0, step=HOUR), id="a quiet stream after a long outage"),
        pytest.param([at(10_000, 0)], id="only known events"),
    ],
)
@pytest.mark.parametrize("filtered", [False, True])
def test_the_requested_events_are_ok(first: list[Position], filtered: bool) -> None:
    cursor = min(10_000, first[0].cursor or 0)
    assert evaluate(first, cursor, filtered=filtered).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        pytest.param(
            consecutive(17, HOUR),
            "sends 17 for requested cursor 10000; its numbering seems to have restarted",
            id="beyond the newest event",
        ),
        pytest.param([at(9_999, HOUR)], "sends 9999", id="a single event"),
        pytest.param(
            consecutive(10_000, HOUR), "1h later than the newest known event", id="other events, same numbers"
        ),
        pytest.param(consecutive(10_500, 100), "1m40s later", id="the known events are gone"),
        pytest.param(
            [*consecutive(10_000, HOUR, count=6), *consecutive(10_006, -HOUR, count=3)],
            "1h later",
            id="a few with old times",
        ),
        pytest.param([at(None, 0)], "no sequence numbers", id="an older server"),
    ],
)
def test_other_events_under_the_requested_number_are_the_wrong_stream(
    first: list[Position], reason: str
) -> None:
    result = evaluate(first)
    assert result.verdict is Verdict.WRONG_STREAM
    assert reason in result.reason


def test_the_newest_received_time_counts_if_it_is_not_acknowledged_yet() -> None:
    """The known time is that of acknowledged events, which is a little older."""
    assert evaluate(consecutive(10_000, 200)).verdict is Verdict.WRONG_STREAM
    assert evaluate(consecutive(10_000, 200), newest=195).verdict is Verdict.OK


@pytest.mark.parametrize("cursor", [None, 7])
def test_any_beginning_is_ok_for_a_request_from_the_beginning(cursor: int | None) -> None:
    requested = ResumePoint(0, Position("a", 0, 0))
    assert ResumeCheck(requested, 0, False).evaluate([at(cursor, 0)]).verdict is Verdict.OK


def test_a_number_from_the_user_is_checked_without_a_time() -> None:
    requested = ResumePoint(10_000, Position("a", 10_000, 0))
    assert ResumeCheck(requested, 0, False).evaluate(consecutive(10_300, 0)).verdict is Verdict.OK
    assert ResumeCheck(requested, 0, False).evaluate(consecutive(17, 0)).verdict is Verdict.WRONG_STREAM


FIVE_MINUTES_BACK = NOW - 300 * SECOND


@pytest.mark.parametrize(
    ("first", "filtered", "found"),
    [
        (consecutive(1, -300), False, Verdict.OK),
        (consecutive(1, 30), False, Verdict.OK),
        (consecutive(1, 100), False, Verdict.GAP),
        (consecutive(1, 100), True, Verdict.UNSURE),
        (consecutive(1, 40, step=HOUR), False, Verdict.UNSURE),
        ([*consecutive(1, 100, count=5), *consecutive(6, -HOUR, count=4)], False, Verdict.UNSURE),
        ([*consecutive(1, 100, count=8), at(9, -HOUR)], False, Verdict.GAP),
    ],
)
def test_a_request_by_time_is_checked_by_times(first: list[Position], filtered: bool, found: Verdict) -> None:
    assert evaluate(first, FIVE_MINUTES_BACK, filtered=filtered).verdict is found


def test_a_gap_ends_at_the_median_time_of_the_first_events() -> None:
    assert evaluate(consecutive(1, 7200), FIVE_MINUTES_BACK).begins_us == NOW + 7200 * SECOND + 40_000


def test_an_expired_cursor_is_a_gap_if_events_are_missing() -> None:
    original = ResumeCheck(ResumePoint(10_000, KNOWN), NOW, False)
    oldest = original.for_oldest_event()
    assert oldest is not None
    assert oldest.is_expired
    assert oldest.evaluate(consecutive(10_500, HOUR)).verdict is Verdict.GAP
    assert oldest.evaluate(consecutive(10_001, 1)).verdict is Verdict.OK
    unknown = ResumeCheck(ResumePoint(7, Position("a", 7, 0)), NOW, False)
    assert unknown.for_oldest_event() is None, "the time of the known position is unknown"


# Gaps that are visible in sequence numbers


REPLAYED = 10_001 - 8192


@pytest.mark.parametrize("seconds", [0, 0.2, 30])
def test_a_missing_number_on_v2_is_a_gap_of_any_length(seconds: float) -> None:
    first = consecutive(10_002, seconds, step=0)
    assert evaluate(first, REPLAYED, v2=True).verdict is Verdict.GAP
    gap = check(REPLAYED, v2=True).gap_before(first[0])
    assert (gap.from_cursor, gap.to_cursor) == (10_001, 10_001)
    assert (gap.from_us, gap.to_us) == (NOW, first[0].time_us)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(consecutive(10_001, 30), id="the next event"),
        pytest.param(consecutive(9_990, 0), id="some known events"),
        pytest.param([at(10_000, 0), *consecutive(10_900, 30)], id="missing numbers later on"),
    ],
)
def test_a_stream_that_begins_at_the_known_position_has_no_gap(first: list[Position]) -> None:
    for v2 in (False, True):
        assert evaluate(first, REPLAYED, v2=v2).verdict is Verdict.OK


@pytest.mark.parametrize(("seconds", "found"), [(4.5, Verdict.OK), (6, Verdict.GAP), (59, Verdict.GAP)])
def test_on_v1_missing_numbers_are_a_gap_only_if_time_is_missing_too(seconds: float, found: Verdict) -> None:
    """A resync of 50,000 records is hidden there, and its events have one time."""
    assert evaluate(consecutive(60_000, seconds), REPLAYED).verdict is found
    assert evaluate(consecutive(60_000, seconds + 100), REPLAYED, newest=100).verdict is found, (
        "relative to the newest received event"
    )


@pytest.mark.parametrize("v2", [False, True])
def test_on_a_filtered_stream_missing_numbers_are_not_a_gap(v2: bool) -> None:
    assert evaluate(consecutive(60_000, 30), REPLAYED, filtered=True, v2=v2).verdict is Verdict.OK


@pytest.mark.parametrize("seconds", [-3, 0, 3, 30, HOUR])
def test_an_oldest_event_beyond_the_known_position_is_a_gap_of_any_length(seconds: float) -> None:
    """Even if its time is not later: the known time is a median, which may be off."""
    expired = check(REPLAYED, is_expired=True)
    first = consecutive(10_500, seconds, step=0)
    assert expired.evaluate(first).verdict is Verdict.GAP
    gap = expired.gap_before(first[0])
    assert (gap.from_cursor, gap.to_cursor) == (10_001, 10_499)
    assert gap.from_us == NOW <= gap.to_us == max(NOW, first[0].time_us)
    assert check(REPLAYED, is_expired=True, filtered=True).evaluate(first).verdict is Verdict.UNSURE


def test_an_oldest_event_that_is_older_than_the_known_position_is_ok() -> None:
    assert check(REPLAYED, is_expired=True).evaluate(consecutive(10_000_000, -HOUR)).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("oldest", "is_expired", "is_gap"),
    [
        (at(10_500, 30), True, True),
        (at(10_500, -1), True, True),
        (at(9_000, -30), True, False),
        (at(10_500, 4), False, False),
        (at(10_500, 6), False, True),
        (at(None, 50), False, False),
        (at(None, 70), False, True),
    ],
)
def test_the_oldest_event_determines_whether_there_is_a_gap(
    oldest: Position, is_expired: bool, is_gap: bool
) -> None:
    assert check(REPLAYED, filtered=True, is_expired=is_expired).is_gap_before(oldest) is is_gap


def test_a_gap_after_a_request_by_time_has_no_cursors() -> None:
    gap = check(FIVE_MINUTES_BACK).gap_before(at(60_000, 100))
    assert (gap.from_cursor, gap.to_cursor) == (None, None)


# Streams that begin too early


@pytest.mark.parametrize(
    ("first", "found"),
    [
        (consecutive(1, -2 * HOUR), Verdict.EARLY),
        (consecutive(1, -300 - 130), Verdict.EARLY),
        (consecutive(1, -300 - 110), Verdict.OK),
        ([at(None, -2 * HOUR)], Verdict.OK),
        ([*consecutive(1, -300, count=5), *consecutive(6, -50 * HOUR, count=4)], Verdict.OK),
    ],
)
def test_events_from_long_before_the_requested_time_are_early(first: list[Position], found: Verdict) -> None:
    assert evaluate(first, FIVE_MINUTES_BACK).verdict is found


@pytest.mark.parametrize(
    ("first", "found"),
    [
        (consecutive(777, -370), Verdict.OK),
        (consecutive(779, -370), Verdict.OK),
        (consecutive(776, -370), Verdict.WRONG_STREAM),
        (consecutive(777, -299), Verdict.WRONG_STREAM),
        ([at(None, -370)], Verdict.WRONG_STREAM),
    ],
)
def test_a_searched_number_is_the_wrong_stream_if_the_events_have_changed(
    first: list[Position], found: Verdict
) -> None:
    requested = ResumePoint(FIVE_MINUTES_BACK, Position("elsewhere", 5, NOW))
    assert ResumeCheck(requested, NOW, filtered=False, searched=777).evaluate(first).verdict is found
