"""Which hours and days have to be computed. Pure: it compares numbers of documents.

A document is never removed from its day, only overwritten, so a day or hour whose number of documents is the
same as when it was computed has no late events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from slurp.events.times import DAY_US
from slurp.trends.intervals import DAY, HOUR_US, Interval

Json = dict[str, Any]

# Seconds between two computations of a day, and between two looks at the hours of an earlier day.
_EVERY_HOUR = 3600.0
# An earlier hour with few late events waits for more of them for so many seconds.
_LATE = 3 * 3600.0
# Few are less than this share.
_FEW = 1 / 200


@dataclass
class _Computed:
    """When an hour or day was computed (Unix seconds), and from how many documents."""

    documents: int = 0
    at: float = 0.0


@dataclass
class _Day:
    whole: _Computed = field(default_factory=_Computed)
    # The number of documents at the last look at its hours.
    documents: int = 0
    looked_at: float = 0.0
    hours: dict[int, _Computed] = field(default_factory=dict)
    # The numbers of documents of its hours, by start; what they were at the last look.
    found: dict[int, int] = field(default_factory=dict)


class Schedule:
    """The computed hours and days of one `--index`, and those that are due."""

    def __init__(self) -> None:
        self._days: dict[int, _Day] = {}

    def days_to_look_at(self, documents: Mapping[int, int], newest_us: int, now: float) -> list[int]:
        """Return the days with new documents, the newest first.

        `documents` are the numbers of documents by day, for all days that exist; others are forgotten.
        `newest_us` is the time of the stream.
        """
        self._days = {number: self._days.get(number, _Day()) for number in documents}
        return sorted(
            (
                number
                for number, day in self._days.items()
                if day.documents != documents[number]
                and (_is_recent(number, newest_us) or now - day.looked_at >= _EVERY_HOUR)
            ),
            reverse=True,
        )

    def looked_at(self, number: int, documents: int, hours: Mapping[int, int], now: float) -> None:
        """Record the numbers of documents of a day and of its hours, by start (Unix microseconds)."""
        day = self._days[number]
        day.documents, day.looked_at, day.found = documents, now, dict(hours)

    def has(self, interval: Interval) -> bool:
        """Return whether the day of an interval existed at the last call of `days_to_look_at`."""
        return interval.day in self._days

    def due(self, newest_us: int, now: float) -> Iterator[Interval]:
        """Yield what is due, the most recent first: an hour before its day."""
        for number in sorted(self._days, reverse=True):
            day = self._days[number]
            for start_us in sorted(day.found, reverse=True):
                computed = day.hours.get(start_us, _Computed())
                if _is_due(day.found[start_us], computed, start_us, newest_us, now):
                    yield Interval(start_us)
            if day.whole.documents != day.documents and now - day.whole.at >= _EVERY_HOUR:
                yield Interval(number * DAY_US, DAY)

    def computed(self, interval: Interval, now: float) -> None:
        """Record that an hour or day was computed from the documents that were found."""
        day = self._days[interval.day]
        if interval.name == DAY:
            day.whole = _Computed(day.documents, now)
        else:
            day.hours[interval.start_us] = _Computed(day.found.get(interval.start_us, 0), now)

    def as_json(self) -> Json:
        """Return what `from_json` reads."""
        return {
            str(number): {
                "whole": [day.whole.documents, day.whole.at],
                "documents": day.documents,
                "looked_at": day.looked_at,
                "hours": {str(start): [one.documents, one.at] for start, one in day.hours.items()},
                "found": {str(start): count for start, count in day.found.items()},
            }
            for number, day in self._days.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Schedule:
        schedule = cls()
        for number, day in value.items():
            schedule._days[int(number)] = _Day(
                _Computed(*day["whole"]),
                day["documents"],
                day["looked_at"],
                {int(start): _Computed(*one) for start, one in day["hours"].items()},
                {int(start): count for start, count in day["found"].items()},
            )
        return schedule


def _is_due(documents: int, computed: _Computed, start_us: int, newest_us: int, now: float) -> bool:
    if documents == computed.documents:
        return False
    # The running hour, and the one before it.
    if start_us >= newest_us - newest_us % HOUR_US - HOUR_US:
        return True
    return documents - computed.documents >= documents * _FEW or now - computed.at >= _LATE


def _is_recent(day: int, newest_us: int) -> bool:
    return day >= (newest_us - HOUR_US) // DAY_US
