"""The dashboard "Long-term trends" over a year, beside the same lists from the raw events of one day."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from elasticsearch import Elasticsearch, helpers

from slurp.elastic.templates import TRENDS_INDEX
from slurp.kibana.dashboards.long_term import LONG_TERM_TRENDS
from slurp.kibana.panel_queries import search_bodies
from slurp.trends.measures import MEASURES, query

Json = dict[str, Any]

DAYS, HOURS = 365, 35 * 24
_ROUNDS = 5
_POSTS = frozenset(measure.name for measure in MEASURES if measure.kind.value == "post")


@dataclass(frozen=True)
class Size:
    """The rows of one `--index`, and their bytes on disk."""

    rows: int
    day_rows: int
    """Of one day; `hour_rows` of one hour."""
    hour_rows: int
    disk: int


def fill_year(es: Elasticsearch, index: str) -> Size:
    """Copy the computed rows of a day and an hour to a year of days and 35 days of hours."""
    es.indices.refresh(index=TRENDS_INDEX)
    days, hours = (_rows(es, index, name) for name in ("day", "hour"))
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    actions = _copies(days, end.replace(hour=0), timedelta(days=1), DAYS)
    helpers.bulk(es, actions, index=TRENDS_INDEX, chunk_size=2000)
    helpers.bulk(es, _copies(hours, end, timedelta(hours=1), HOURS), index=TRENDS_INDEX, chunk_size=2000)
    es.indices.refresh(index=TRENDS_INDEX)
    es.options(request_timeout=600).indices.forcemerge(index=TRENDS_INDEX, max_num_segments=1)
    stats = es.indices.stats(index=TRENDS_INDEX, metric="docs,store")["_all"]["primaries"]
    return Size(stats["docs"]["count"], len(days), len(hours), stats["store"]["size_in_bytes"])


def _rows(es: Elasticsearch, index: str, interval: str) -> list[Json]:
    """Return the rows of the last computed interval."""
    conditions = [{"term": {"index": index}}, {"term": {"interval": interval}}]
    hits = helpers.scan(es, index=TRENDS_INDEX, query={"query": {"bool": {"filter": conditions}}})
    rows = [hit["_source"] for hit in hits]
    last = max(row["@timestamp"] for row in rows)
    return [row for row in rows if row["@timestamp"] == last]


def _copies(rows: Sequence[Json], end: datetime, step: timedelta, number: int) -> Iterator[Json]:
    for ago in range(1, number + 1):
        for row in rows:
            copy = row | {"@timestamp": (end - ago * step).isoformat()}
            if row["measure"] in _POSTS:  # each day has posts of its own
                copy |= {"key": f"{row['key']}{ago}", "uri": f"{row['uri']}{ago}"}
                copy |= {"text": f"{ago} {_text(row['key'], ago)}"}
            yield copy


def _text(key: str, ago: int) -> str:
    """Return a text of 150 characters that does not repeat: the size depends on it."""
    return hashlib.shake_128(f"{key}{ago}".encode()).hexdigest(75)


def panels(es: Elasticsearch, index: str) -> dict[str, float]:
    """Return the milliseconds of each panel of the dashboard, the median of several requests."""
    since = {"range": {"@timestamp": {"gte": "now-1y"}}}
    found = {}
    for chart in LONG_TERM_TRENDS.charts:
        bodies = [
            {**body, "query": {"bool": {"filter": [body["query"], since]}}}
            for body in search_bodies(chart, index)
        ]
        found[chart.title] = _milliseconds(es, TRENDS_INDEX, bodies)
    return found


def raw(es: Elasticsearch, index: str, day: datetime, names: Sequence[str]) -> dict[str, float]:
    """Return the milliseconds of some measures over the events of one day."""
    start, end = day.isoformat(), (day + timedelta(days=1)).isoformat()
    found = {}
    for measure in MEASURES:
        if measure.name in names:
            body = {
                "size": 0,
                "track_total_hits": False,
                "query": query(start, end, *measure.conditions),
                "aggs": measure.aggregation(is_long=True),
            }
            found[measure.name] = _milliseconds(es, f"{index}-*", [body])
    return found


def _milliseconds(es: Elasticsearch, index: str, bodies: Sequence[Json]) -> float:
    """Return the time of some searches together, the median of several rounds."""
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for body in bodies:
            es.search(index=index, request_cache=False, **body)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
