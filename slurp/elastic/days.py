"""Days as numbers, the names of their indices, and the clocks by which days are created and expire.

A day is a number of days since 1970-01-01, UTC.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from elasticsearch import Elasticsearch

from slurp.elastic.templates import is_managed

SECONDS_PER_DAY = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Clocks:
    """Functions that return the time in seconds."""

    now: Callable[[], float] = time.time
    """Unix time."""
    earliest: Callable[[], float | None] = time.time
    """A lower bound of the Unix time, by which days expire; None while no bound is known."""
    monotonic: Callable[[], float] = time.monotonic
    """For intervals: setting the clock of the machine must neither shorten nor extend them."""


def date_of(day: int) -> str:
    """Return a day as `2026-11-26`."""
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")


def day_of_date(text: str) -> int:
    """Return the day of a date such as `2026-11-26`. Raises ValueError for other text."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH).days


def day_of_index(index: str, name: str) -> int | None:
    """Return the day of an index named `<index>-YYYY.MM.DD`, None for any other name."""
    match = re.fullmatch(rf"{re.escape(index)}-([0-9]{{4}})\.([0-9]{{2}})\.([0-9]{{2}})", name)
    if match is None:
        return None
    try:
        year, month, day = map(int, match.groups())
        return (datetime(year, month, day, tzinfo=UTC) - _EPOCH).days
    except ValueError:
        return None


def managed_day_indices(client: Elasticsearch, index: str) -> dict[str, Any]:
    """Return the names of the daily indices that this program created, with the `_meta` of their mappings.

    An index counts only if both its name and its `_meta` match.
    """
    found = client.indices.get_mapping(index=f"{index}-*", allow_no_indices=True)
    metas = {name: body["mappings"].get("_meta") for name, body in found.items()}
    return {
        name: meta
        for name, meta in metas.items()
        if day_of_index(index, name) is not None and is_managed(meta)
    }
