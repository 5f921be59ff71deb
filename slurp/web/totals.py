"""Numbers of the last hours and days on the page, from the totals of trends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slurp.events.times import parse_time

Json = dict[str, Any]

HOURS, DAYS = 24, 30
_HOUR, _DAY = 3600, 86_400
_POSTS, _PEOPLE = "posts", "active_people"


@dataclass(frozen=True)
class Curve:
    """A number for each hour or day, oldest first; `ago` is in seconds, None stands for no number."""

    ago: Sequence[float] = ()
    values: Sequence[int | None] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there are fewer than two numbers, too few for a line."""
        return sum(value is not None for value in self.values) < 2

    @property
    def highest(self) -> int:
        return max((value for value in self.values if value is not None), default=0)


@dataclass(frozen=True)
class Totals:
    """Posts of each of the last HOURS, and active people of each of the last DAYS; only complete ones."""

    posts: Curve = field(default_factory=Curve)
    people: Curve = field(default_factory=Curve)


def search_for(index: str) -> Json:
    """Return the parameters of the search for the rows of an `--index`."""
    rows = [_rows("hour", _POSTS, HOURS, "h"), _rows("day", _PEOPLE, DAYS, "d")]
    return {
        "query": {
            "bool": {
                "filter": [
                    {"term": {"index": index}},
                    {"term": {"measure": "totals"}},
                    {"bool": {"should": rows}},
                ]
            }
        },
        "source": ["@timestamp", "interval", "count"],
        "size": 2 * (HOURS + DAYS),
        "track_total_hits": False,
    }


def totals(rows: Iterable[Mapping[str, Any]], now: float) -> Totals:
    """Return the numbers in the rows that the search has found; `now` in Unix seconds."""
    found: dict[tuple[str, int], int] = {}
    for row in rows:
        start_us, count = parse_time(str(row.get("@timestamp"))), row.get("count")
        if start_us is not None and isinstance(count, int):
            found[str(row.get("interval")), start_us // 1_000_000] = count
    return Totals(_curve(found, "hour", _HOUR, HOURS, now), _curve(found, "day", _DAY, DAYS, now))


def _rows(interval: str, key: str, number: int, unit: str) -> Json:
    # The running hour or day is not complete.
    time = {"gte": f"now-{number}{unit}/{unit}", "lt": f"now/{unit}"}
    conditions = [{"term": {"interval": interval}}, {"term": {"key": key}}, {"range": {"@timestamp": time}}]
    return {"bool": {"filter": conditions}}


def _curve(
    found: Mapping[tuple[str, int], int], interval: str, seconds: int, number: int, now: float
) -> Curve:
    end = int(now) // seconds * seconds
    starts = range(end - number * seconds, end, seconds)
    return Curve([now - start for start in starts], [found.get((interval, start)) for start in starts])
