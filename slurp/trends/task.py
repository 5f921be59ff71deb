"""Keep the trends of one `--index` current: which hours and days are computed, and when."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from slurp.elastic.client import Elastic
from slurp.elastic.days import day_of_index
from slurp.elastic.pages import OPEN
from slurp.events.times import DAY_US, isoformat, parse_time
from slurp.trends.computing import Trends
from slurp.trends.intervals import HOUR, HOUR_US, Interval
from slurp.trends.state import Lease, LeaseLost, TrendState

log = logging.getLogger(__name__)

_EVERY, _FIRST = 300.0, 15.0
# Of each step, the seconds for hours and days but the running hour: 3% of one core at most.
_SECONDS = 9.0


class TrendsTask:
    """Computes trends. `step` is to be called every second; one thread calls it."""

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        trends: Trends,
        newest_us: Callable[[], int],
        *,
        stop: threading.Event | None = None,
        retention: float | None = None,
        every: float = _EVERY,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`newest_us` returns the time of the stream (Unix microseconds), 0 while it is not known.
        `retention` is for how many seconds hours are kept; None for ever.
        """
        self._elastic = elastic
        self._index = index
        self._trends = trends
        self._newest_us = newest_us
        self._stop = stop or threading.Event()
        self._retention = retention
        self._every = every
        self._clock = clock
        self._monotonic = monotonic
        self._lease = Lease(elastic, index, clock)
        self._began = monotonic()
        # The start has enough to do.
        self._due = self._began + _FIRST

    def step(self) -> bool:
        """Compute what is due; return whether anything was to be done.

        Raises the exceptions of the client.
        """
        newest_us = self._newest_us()
        if self._monotonic() < self._due or not newest_us:
            return False
        # More often in the first minutes, so that a new installation soon has something to show.
        passed = self._monotonic() - self._began
        self._due = self._monotonic() + min(self._every, max(_FIRST, passed))
        if (state := self._lease.acquire()) is None:
            return False
        try:
            self._look(state, newest_us)
            self._compute_due(state, newest_us)
            self._remove_old(newest_us)
            self._lease.release(state)
        except LeaseLost:
            log.info("another worker computes trends")
        return True

    def rebuild(
        self, start_us: int, end_us: int, done: Callable[[Interval], None] = lambda interval: None
    ) -> int | None:
        """Compute all hours that begin in a period, and their days, again; return their number, None while
        another worker computes.

        Hours and days whose events are not there any more keep their rows.
        """
        if (state := self._lease.acquire()) is None:
            return None
        count = 0
        try:
            self._look(state, end_us)
            hours = [Interval(hour) for hour in range(start_us - start_us % HOUR_US, end_us, HOUR_US)]
            for interval in [*hours, *sorted({hour.its_day for hour in hours})]:
                count += self._compute(state, interval)
                done(interval)
        finally:
            self._lease.release(state)
        return count

    def _look(self, state: TrendState, newest_us: int) -> None:
        """Find the hours with new documents."""
        now = self._clock()
        found = self._documents()
        for day in state.schedule.days_to_look_at(found, newest_us, now):
            state.schedule.looked_at(day, *self._hours(day), now)

    def _compute_due(self, state: TrendState, newest_us: int) -> None:
        until = self._monotonic() + _SECONDS
        running = Interval.hour_of(newest_us)
        for interval in list(state.schedule.due(newest_us, self._clock())):
            if self._stop.is_set() or (interval < running and self._monotonic() >= until):
                return
            self._compute(state, interval)

    def _compute(self, state: TrendState, interval: Interval) -> bool:
        if not state.schedule.has(interval):
            return False
        generation = self._lease.next_generation(state)
        if not self._trends.compute(interval, generation):
            return False
        state.schedule.computed(interval, self._clock())
        self._lease.save(state)
        return True

    def _remove_old(self, newest_us: int) -> None:
        if self._retention is not None:
            self._trends.rows.remove_before(HOUR, isoformat(newest_us - int(self._retention * 1e6)))

    def _documents(self) -> dict[int, int]:
        """Return the number of documents of each open day that can be searched."""
        stats = self._elastic.client.indices.stats(
            index=f"{self._index}-*",
            metric="docs",
            expand_wildcards=OPEN,
            filter_path="indices.*.primaries.docs",
        ).body.get("indices", {})
        days = ((day_of_index(self._index, name), one) for name, one in stats.items())
        return {day: one["primaries"]["docs"]["count"] for day, one in days if day is not None}

    def _hours(self, day: int) -> tuple[int, dict[int, int]]:
        """Return the number of documents of a day, and of each of its hours by start (Unix microseconds)."""
        response = self._elastic.client.search(
            index=self._trends.day_index(day),
            size=0,
            aggs={
                "hours": {
                    "date_histogram": {
                        "field": "@timestamp",
                        "fixed_interval": "1h",
                        "min_doc_count": 1,
                        "format": "strict_date_time",
                    }
                }
            },
            track_total_hits=True,
            allow_partial_search_results=False,
        )
        buckets = response["aggregations"]["hours"]["buckets"]
        times = ((parse_time(bucket["key_as_string"]), bucket["doc_count"]) for bucket in buckets)
        hours = {at: count for at, count in times if at is not None and at // DAY_US == day}
        return response["hits"]["total"]["value"], hours
