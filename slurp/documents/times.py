"""Parse the time that a record claims, and name the hour and weekday of an event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

_HOUR_US = 3_600_000_000
_EARLIEST = "1990-01-01T"

# Numbered, so that charts sort them in calendar order.
_WEEKDAYS = ("1 Mon", "2 Tue", "3 Wed", "4 Thu", "5 Fri", "6 Sat", "7 Sun")

# One entry for every hour of a week that starts on a Thursday, as Unix time does.
_HOURS_OF_WEEK = tuple((f"{hour % 24:02}", _WEEKDAYS[(hour // 24 + 3) % 7]) for hour in range(7 * 24))


def hour_and_weekday(micros: int) -> tuple[str, str]:
    """Return hour and weekday in UTC, for example `"20", "1 Mon"`.

    They are stored because a runtime field would run a script for every document of a query.
    """
    return _HOURS_OF_WEEK[micros // _HOUR_US % 168]


def parse_created_at(value: Any, timestamp: str) -> str | None:
    """Return a claimed time as ISO 8601 in UTC.

    None if it is not a time, or before 1990, or more than a day later than `timestamp`: a histogram over
    wrong times would have millions of buckets. Posts imported from other networks have true old dates.

    `timestamp` is the event's `@timestamp` as `events.times.isoformat` writes it. It does not depend on the
    host or on the time of arrival, and so neither does the result.
    """
    if type(value) is not str:
        return None
    # The format of the official app, 2026-07-04T14:38:08.999Z, is kept as it is: nine of ten records.
    text, kept = value, _has_app_format(value)
    if not kept:
        text = value.strip().upper()
        kept = _has_app_format(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not kept:
        try:
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except OverflowError:
            return None
        text = f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    return (
        text if text >= _EARLIEST and text[:-1] <= _a_day_after(timestamp[:10]) + timestamp[10:-1] else None
    )


@lru_cache(maxsize=64)
def _a_day_after(date: str) -> str:
    try:
        return (datetime.fromisoformat(date) + timedelta(days=1)).strftime("%Y-%m-%d")
    except OverflowError:  # the last day of the calendar
        return date


def _has_app_format(text: str) -> bool:
    return len(text) == 24 and text[4] == text[7] == "-" and text[10] == "T" and text[19::4] == ".Z"
