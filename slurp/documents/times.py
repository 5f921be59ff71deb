"""The time that a record claims for itself, and the hour and weekday of an event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_HOUR_US = 3_600_000_000

# Numbered, so that a chart sorts the days as people do.
_WEEKDAYS = ("1 Mon", "2 Tue", "3 Wed", "4 Thu", "5 Fri", "6 Sat", "7 Sun")

# For every hour of a week that begins as the Unix time does, on a Thursday.
_HOURS_OF_WEEK = tuple((f"{hour % 24:02}", _WEEKDAYS[(hour // 24 + 3) % 7]) for hour in range(7 * 24))


def hour_and_weekday(micros: int) -> tuple[str, str]:
    """`"20", "1 Mon"` in UTC. Stored, because a runtime field would run a script for every document asked."""
    return _HOURS_OF_WEEK[micros // _HOUR_US % 168]


def created_at(value: Any, timestamp: str) -> str | None:
    """A claimed time as ISO 8601 in UTC; None if it is no time, `timestamp` if it lies later.

    `timestamp` is the event's `@timestamp` as `identity.isoformat` writes it. It does not depend on
    the host or on the moment of arrival, so neither does the clamped time.
    """
    if type(value) is not str:
        return None
    # What the app writes, 2026-07-04T14:38:08.999Z, is kept as it is: nine records of ten.
    text, kept = value, _is_apps(value)
    if not kept:
        text = value.strip().upper()
        kept = _is_apps(text)
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
    return text if text[:-1] <= timestamp[:-1] else timestamp


def _is_apps(text: str) -> bool:
    return len(text) == 24 and text[4] == text[7] == "-" and text[10] == "T" and text[19::4] == ".Z"
