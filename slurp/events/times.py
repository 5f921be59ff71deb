"""Times of events: Unix microseconds, ISO 8601, and the name of a UTC day. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

DAY_US = 86_400_000_000

# The last microsecond of the year 9999, the limit of ISO 8601 and of dates in Elasticsearch.
MAX_TIME_US = 253_402_300_799_999_999

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=4096)
def day_of(day: int) -> str:
    """Return the name (`YYYY.MM.DD`) of a day, given as its number since 1970-01-01."""
    return (_EPOCH + timedelta(days=day)).strftime("%Y.%m.%d")


def isoformat(micros: int) -> str:
    """Return a time as `2026-11-23T20:02:48.637452Z`: UTC, with all six decimals, as `_source` stores it."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


def parse_time(text: str) -> int | None:
    """Return the Unix microseconds of an ISO 8601 time between 1970 and 9999; None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        micros = (moment - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        return None
    return micros if 0 <= micros <= MAX_TIME_US else None


def utc(micros: int) -> datetime:
    """Return a time, given in Unix microseconds."""
    return _EPOCH + timedelta(microseconds=micros)


def format_period(from_us: int, to_us: int) -> str:
    """Return a period as `2026-11-23 20:02:48 to 2026-11-23 21:00:00 UTC`."""
    begin, end = (utc(moment).strftime("%Y-%m-%d %H:%M:%S") for moment in (from_us, to_us))
    return f"{begin} to {end} UTC"


def median(times: Iterable[int]) -> int:
    """Return the median, the lower one of two. Raises IndexError if there are no times."""
    return middle(sorted(times))


def middle(values: Sequence[T]) -> T:
    """Return the middle element in the given order, the first of two. Raises IndexError if there is none."""
    return values[(len(values) - 1) // 2]


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
