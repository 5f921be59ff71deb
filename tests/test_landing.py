"""Where a connection begins, against what was asked for: all that can be told from the first events."""

from __future__ import annotations

import pytest

from slurp.events.position import Position, Resume
from slurp.jetstream.resume_check import CheckResult, Outcome, ResumeCheck

SECOND = 1_000_000
HOUR = 3600
NOW = 1_795_000_000 * SECOND
KNOWN = Position("a", 10_000, NOW)


def at(cursor: int | None, seconds: float) -> Position:
    return Position("a", cursor, NOW + int(seconds * SECOND))


def run_of(cursor: int, seconds: float, step: float = 0.01, count: int = 9) -> list[Position]:
    """Events one after the other, from a cursor and a time on."""
    return [at(cursor + n, seconds + n * step) for n in range(count)]


def look(first: list[Position], cursor: int = 10_000, newest: float = 0, **more: bool) -> CheckResult:
    return landing(cursor, newest, **more).evaluate(first)


def landing(cursor: int = 10_000, newest: float = 0, *, filtered: bool = False, **more: bool) -> ResumeCheck:
    return ResumeCheck(Resume(cursor, KNOWN), NOW + int(newest * SECOND), filtered, **more)


BACK_DATED = [at(10_000, 0), *(at(10_001 + n, -50 * HOUR) for n in range(8))]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(run_of(10_000, 0), id="inclusive"),
        pytest.param(run_of(5_904, -8), id="rewound"),
        pytest.param(run_of(10_007, 0.2), id="holes mean nothing"),
        pytest.param(BACK_DATED, id="imported events"),
        pytest.param([at(10_000, 9 * HOUR), *run_of(10_001, 0, count=8)], id="one from the future"),
        pytest.param(run_of(10_000, 0, step=HOUR), id="a quiet stream, away for long"),
        pytest.param([at(10_000, 0)], id="nothing but what we had"),
    ],
)
@pytest.mark.parametrize("filtered", [False, True])
def test_the_place_asked_for_by_number(first: list[Position], filtered: bool) -> None:
    cursor = min(10_000, first[0].cursor or 0)
    assert look(first, cursor, filtered=filtered).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        pytest.param(
            run_of(17, HOUR),
            "sends 17 for requested cursor 10000; its numbering seems to have restarted",
            id="beyond the tip",
        ),
        pytest.param([at(9_999, HOUR)], "sends 9999", id="a single event"),
        pytest.param(
            run_of(10_000, HOUR), "1h later than the newest known event", id="other events, same numbers"
        ),
        pytest.param(run_of(10_500, 100), "1m40s later", id="what we had is gone"),
        pytest.param([*run_of(10_000, HOUR, count=6), *run_of(10_006, -HOUR, count=3)], "1h later", id="odd"),
        pytest.param([at(None, 0)], "no sequence numbers", id="an older server"),
    ],
)
def test_a_place_that_is_none(first: list[Position], reason: str) -> None:
    result = look(first)
    assert result.outcome is Outcome.WRONG_STREAM
    assert reason in result.reason


def test_what_is_still_on_its_way_is_no_news() -> None:
    """The known time is that of acknowledged events, which may lie a little back."""
    assert look(run_of(10_000, 200)).outcome is Outcome.WRONG_STREAM
    assert look(run_of(10_000, 200), newest=195).outcome is Outcome.OK


@pytest.mark.parametrize("cursor", [None, 7])
def test_the_beginning_is_wherever_it_is(cursor: int | None) -> None:
    asked = Resume(0, Position("a", 0, 0))
    assert ResumeCheck(asked, 0, False).evaluate([at(cursor, 0)]).outcome is Outcome.OK


def test_of_a_number_that_the_user_names_no_time_is_known() -> None:
    asked = Resume(10_000, Position("a", 10_000, 0))
    assert ResumeCheck(asked, 0, False).evaluate(run_of(10_300, 0)).outcome is Outcome.OK
    assert ResumeCheck(asked, 0, False).evaluate(run_of(17, 0)).outcome is Outcome.WRONG_STREAM


FIVE_MINUTES_BACK = NOW - 300 * SECOND


@pytest.mark.parametrize(
    ("first", "filtered", "found"),
    [
        (run_of(1, -300), False, Outcome.OK),
        (run_of(1, 30), False, Outcome.OK),
        (run_of(1, 100), False, Outcome.GAP),
        (run_of(1, 100), True, Outcome.UNSURE),
        (run_of(1, 40, step=HOUR), False, Outcome.UNSURE),
        ([*run_of(1, 100, count=5), *run_of(6, -HOUR, count=4)], False, Outcome.UNSURE),
        ([*run_of(1, 100, count=8), at(9, -HOUR)], False, Outcome.GAP),
    ],
)
def test_asked_by_time(first: list[Position], filtered: bool, found: Outcome) -> None:
    assert look(first, FIVE_MINUTES_BACK, filtered=filtered).outcome is found


def test_a_gap_ends_where_the_events_begin() -> None:
    assert look(run_of(1, 7200), FIVE_MINUTES_BACK).begins_us == NOW + 7200 * SECOND + 40_000


def test_the_floor_that_a_server_tells_is_looked_at_by_time() -> None:
    landing = ResumeCheck(Resume(10_000, KNOWN), NOW, False)
    floor = landing.for_oldest_event()
    assert floor is not None
    assert floor.is_expired
    assert floor.evaluate(run_of(10_500, HOUR)).outcome is Outcome.GAP
    assert floor.evaluate(run_of(10_001, 1)).outcome is Outcome.OK
    unknown = ResumeCheck(Resume(7, Position("a", 7, 0)), NOW, False)
    assert unknown.for_oldest_event() is None, "nobody knows of what time it was"


# Gaps that sequence numbers show


REWOUND = 10_001 - 8192


@pytest.mark.parametrize("seconds", [0, 0.2, 30])
def test_a_missing_number_on_v2_is_a_gap_of_any_length(seconds: float) -> None:
    first = run_of(10_002, seconds, step=0)
    assert look(first, REWOUND, v2=True).outcome is Outcome.GAP
    gap = landing(REWOUND, v2=True).gap_before(first[0])
    assert (gap.from_cursor, gap.to_cursor) == (10_001, 10_001)
    assert (gap.from_us, gap.to_us) == (NOW, first[0].time_us)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(run_of(10_001, 30), id="the next one"),
        pytest.param(run_of(9_990, 0), id="some of what we had"),
        pytest.param([at(10_000, 0), *run_of(10_900, 30)], id="a hole later on"),
    ],
)
def test_what_begins_where_we_were_is_no_gap(first: list[Position]) -> None:
    for v2 in (False, True):
        assert look(first, REWOUND, v2=v2).outcome is Outcome.OK


@pytest.mark.parametrize(("seconds", "found"), [(4.5, Outcome.OK), (6, Outcome.GAP), (59, Outcome.GAP)])
def test_on_v1_time_must_be_missing_too(seconds: float, found: Outcome) -> None:
    """A resync of 50,000 records is hidden there, and takes no time."""
    assert look(run_of(60_000, seconds), REWOUND).outcome is found
    assert look(run_of(60_000, seconds + 100), REWOUND, newest=100).outcome is found, "from the newest we had"


@pytest.mark.parametrize("v2", [False, True])
def test_behind_a_filter_numbers_are_missing_everywhere(v2: bool) -> None:
    assert look(run_of(60_000, 30), REWOUND, filtered=True, v2=v2).outcome is Outcome.OK


@pytest.mark.parametrize("seconds", [-3, 0, 3, 30, HOUR])
def test_a_floor_behind_us_is_a_gap_of_any_length(seconds: float) -> None:
    """Also where its time is no later: that of what we have is a median, and may be off."""
    refused = landing(REWOUND, is_expired=True)
    first = run_of(10_500, seconds, step=0)
    assert refused.evaluate(first).outcome is Outcome.GAP
    gap = refused.gap_before(first[0])
    assert (gap.from_cursor, gap.to_cursor) == (10_001, 10_499)
    assert gap.from_us == NOW <= gap.to_us == max(NOW, first[0].time_us)
    assert landing(REWOUND, is_expired=True, filtered=True).evaluate(first).outcome is Outcome.UNSURE


def test_a_floor_that_is_older_than_what_we_have_is_of_another_store() -> None:
    assert landing(REWOUND, is_expired=True).evaluate(run_of(10_000_000, -HOUR)).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("floor", "refused", "is_gap"),
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
def test_the_floor_that_was_asked_for_tells_whether_there_is_a_gap(
    floor: Position, refused: bool, is_gap: bool
) -> None:
    assert landing(REWOUND, filtered=True, is_expired=refused).is_gap_before(floor) is is_gap


def test_asked_by_time_numbers_say_nothing() -> None:
    gap = landing(FIVE_MINUTES_BACK).gap_before(at(60_000, 100))
    assert (gap.from_cursor, gap.to_cursor) == (None, None)


# Too early


@pytest.mark.parametrize(
    ("first", "found"),
    [
        (run_of(1, -2 * HOUR), Outcome.EARLY),
        (run_of(1, -300 - 130), Outcome.EARLY),
        (run_of(1, -300 - 110), Outcome.OK),
        ([at(None, -2 * HOUR)], Outcome.OK),
        ([*run_of(1, -300, count=5), *run_of(6, -50 * HOUR, count=4)], Outcome.OK),
    ],
)
def test_a_time_that_is_answered_with_far_older_events(first: list[Position], found: Outcome) -> None:
    assert look(first, FIVE_MINUTES_BACK).outcome is found


@pytest.mark.parametrize(
    ("first", "found"),
    [
        (run_of(777, -370), Outcome.OK),
        (run_of(779, -370), Outcome.OK),
        (run_of(776, -370), Outcome.WRONG_STREAM),
        (run_of(777, -299), Outcome.WRONG_STREAM),
        ([at(None, -370)], Outcome.WRONG_STREAM),
    ],
)
def test_a_number_that_was_found_for_a_time(first: list[Position], found: Outcome) -> None:
    asked = Resume(FIVE_MINUTES_BACK, Position("elsewhere", 5, NOW))
    assert ResumeCheck(asked, NOW, filtered=False, searched=777).evaluate(first).outcome is found
