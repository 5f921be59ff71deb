"""Daily indices that could not be searched while deletions were applied: they get what they missed later.

An index may be closed, or for a longer time without a shard that responds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from slurp.deletions.accounts import Accounts
from slurp.deletions.records import IS_REMOVAL, Redaction, redact, removal_pages
from slurp.deletions.versions import Versions, utc_now
from slurp.elastic import state_documents
from slurp.elastic.client import Elastic
from slurp.elastic.days import day_of_index
from slurp.elastic.templates import STATE_INDEX
from slurp.events.removals import TOLERANCE_US
from slurp.events.times import DAY_US, utc

log = logging.getLogger(__name__)

Json = dict[str, Any]

_TYPE = "unavailable-day"
_MAX_DAYS = 10_000
# Deletions are applied to an index in parts: those that arrived within so long, while seconds are left.
_PART = timedelta(minutes=1)
_SECONDS = 5.0
# A deletion arrives at most so long before its time, by a clock that is behind.
_BEFORE = timedelta(hours=1)
# Deletions that arrive later are applied to all indices, also if the clocks of two workers differ.
_AFTER = timedelta(minutes=5)


@dataclass(frozen=True)
class _Day:
    """An index that was recorded; it has got what arrived before `progress`.

    `available_at` is when it could be searched again; None while it cannot be. Then its accounts are renewed
    by DID, up to `renewed`. At last it waits for the indices in `waits_for`, which could not be searched
    meanwhile and may have deletions for it.
    """

    name: str
    progress: datetime
    available_at: datetime | None = None
    renewed: str = ""
    waits_for: tuple[str, ...] = ()


class UnavailableDays:
    """The daily indices of one `--index` that cannot be searched. All methods raise the exceptions of the
    client."""

    def __init__(
        self,
        elastic: Elastic,
        versions: Versions,
        accounts: Accounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._elastic = elastic
        self._versions = versions
        self._accounts = accounts
        self._clock = clock
        # Those that this worker has found to be unavailable.
        self._seen: set[str] = set()

    def step(self, applied_until_us: int, *, is_failing: bool) -> None:
        """Find out which indices cannot be searched, record new ones, and exclude them from searches.

        To be called before deletions are applied to the others; those up to `applied_until_us` (Unix
        microseconds) have been applied to all indices. An index without a shard that responds is only
        excluded if searches have failed for a longer time (`is_failing`), or if it is excluded already.
        """
        stored = self._stored()
        closed = set(self._versions.days("closed"))
        failed = self._versions.without_shards() if is_failing or stored else set()
        if not is_failing:
            failed &= stored.keys()
        self._versions.excluded = frozenset(failed)
        unavailable = closed | failed
        for name in sorted(unavailable):
            if name in self._seen and name in stored and stored[name].available_at is None:
                continue
            if name not in stored:
                reason = "closed" if name in closed else "without a shard that responds"
                log.warning("%s is %s: deletions will be applied to it once it can be searched", name, reason)
            self._record(name, applied_until_us, stored.get(name))
        self._seen = unavailable

    def catch_up(self) -> tuple[Redaction, bool]:
        """Apply to an index that can be searched again what it missed, for some seconds; return the result,
        and whether there is more."""
        result = Redaction()
        stored = self._stored()
        if not stored:
            return result, False
        unavailable = {*self._versions.days("closed"), *self._versions.excluded}
        existing = self._versions.days("open")
        for name in sorted(stored.keys() - unavailable):
            if name not in existing:
                self._delete(name)  # the index does not exist any more
                continue
            if self._catch_up(stored[name], unavailable, result):
                return result, True
        return result, False

    def _catch_up(self, day: _Day, unavailable: set[str], result: Redaction) -> bool:
        if day.waits_for:
            opened = set(day.waits_for) - unavailable
            if not opened:
                return False
            day = replace(day, progress=self._first_arrival(opened), available_at=None, waits_for=())
        if (available_at := day.available_at) is None:
            available_at = utc_now()
            day = replace(day, available_at=available_at)
            log.info("%s can be searched again: applying the deletions that it missed", day.name)
        end, until = available_at + _AFTER, self._clock() + _SECONDS
        while (start := self._next_arrival(day.progress)) is not None and start <= end:
            if not self._apply_part(day.name, start, result):
                self._save(day)
                return False  # tried again with the next step
            day = replace(day, progress=start + _PART)
            if self._clock() >= until:
                self._save(day)
                return True
        first_us = self._first_us(day.name)
        since_us = first_us - TOLERANCE_US
        while (last := self._accounts.renew(day.name, since_us, day.renewed)) is not None:
            day = replace(day, renewed=last)
            if self._clock() >= until:
                self._save(day)
                return True
        waits_for = sorted(name for name in unavailable if self._start_us(name) >= first_us)
        if waits_for:
            self._save(replace(day, available_at=available_at, waits_for=tuple(waits_for)))
            log.info(
                "%s has got the deletions that it missed, except those in %s", day.name, ", ".join(waits_for)
            )
            return True
        self._delete(day.name)
        log.info("%s has got the deletions that it missed; accounts follow", day.name)
        return True

    def _apply_part(self, name: str, start: datetime, result: Redaction) -> bool:
        """Apply to one index what arrived from `start` on; return False if some must be tried again."""
        arrived = {"range": {"event.ingested": {"gte": _text(start), "lt": _text(start + _PART)}}}
        for _, removals in removal_pages(self._versions, [{"bool": {"filter": [IS_REMOVAL, arrived]}}]):
            result.add(redact(self._versions, removals, name))
        return not result.failed

    def _next_arrival(self, start: datetime) -> datetime | None:
        """Return when the first deletion or update from `start` on arrived."""
        arrived = {"range": {"event.ingested": {"gte": _text(start)}}}
        return self._versions.first_time({"bool": {"filter": [IS_REMOVAL, arrived]}}, "event.ingested")

    def _first_arrival(self, days: Iterable[str]) -> datetime:
        """Return when the first deletion that is stored in one of these indices arrived at the earliest."""
        return utc(min(map(self._first_us, days))) - _BEFORE

    def _record(self, name: str, applied_until_us: int, stored: _Day | None) -> None:
        progress = utc(max(self._first_us(name), applied_until_us)) - _BEFORE
        # Another worker, or an earlier run, may have applied less.
        if stored is None or progress < stored.progress or stored.available_at is not None:
            if stored is not None:
                progress = min(progress, stored.progress)
                if stored.waits_for:
                    progress = min(progress, self._first_arrival(stored.waits_for))
            self._save(_Day(name, progress))

    def _save(self, day: _Day) -> None:
        document = {
            "type": _TYPE,
            "index": self._versions.index,
            "day": day.name,
            "progress": day.progress,
            "available_at": day.available_at,
            "renewed": day.renewed,
            "waits_for": day.waits_for,
            "updated_at": utc_now(),
        }
        self._elastic.client.index(index=STATE_INDEX, id=self._id(day.name), document=document, refresh=True)

    def _delete(self, name: str) -> None:
        client = self._elastic.client.options(ignore_status=404)
        client.delete(index=STATE_INDEX, id=self._id(name), refresh=True)

    def _stored(self) -> dict[str, _Day]:
        """Return the recorded indices by name."""
        found = self._elastic.client.search(
            index=STATE_INDEX,
            query=state_documents.of_kind(_TYPE, self._versions.index),
            size=_MAX_DAYS,
        )
        days = [_day(hit["_source"]) for hit in found["hits"]["hits"]]
        return {day.name: day for day in days}

    def _start_us(self, name: str) -> int:
        return (day_of_index(self._versions.index, name) or 0) * DAY_US

    def _first_us(self, name: str) -> int:
        """Return the earliest time of a deletion of a record in an index: a rev may be a day ahead, and so
        its deletion a day before the day of the index."""
        return self._start_us(name) - DAY_US

    def _id(self, name: str) -> str:
        return f"{_TYPE}:{name}"


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def _day(source: Json) -> _Day:
    available_at = source["available_at"]
    return _Day(
        source["day"],
        datetime.fromisoformat(source["progress"]),
        None if available_at is None else datetime.fromisoformat(available_at),
        source.get("renewed", ""),
        tuple(source.get("waits_for", ())),
    )
