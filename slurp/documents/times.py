"""The time that a record claims for itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def created_at(value: Any, timestamp: str) -> str | None:
    """A claimed time as ISO 8601 in UTC; None if it is no time, `timestamp` if it lies later.

    `timestamp` is the event's `@timestamp` as `identity.isoformat` writes it. It does not depend on
    the host or on the moment of arrival, so neither does the clamped time.
    """
    if type(value) is not str:
        return None
    text = value.strip().upper()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    # What the app writes, 2026-07-04T14:38:08.999Z, is kept as it is: nine records of ten.
    if not (len(text) == 24 and text[4] == text[7] == "-" and text[10] == "T" and text[19::4] == ".Z"):
        try:
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except OverflowError:
            return None
        text = f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    return text if text[:-1] <= timestamp[:-1] else timestamp
