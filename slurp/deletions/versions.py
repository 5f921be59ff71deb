"""Stored versions in the daily indices: search them all, and overwrite some.

An index is searched at a point in time, page by page. A write has the sequence number that was read, so it
never replaces what another program has written since.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from elastic_transport import TransportError

from slurp.deletions.derived import DerivedContent
from slurp.elastic.bulk import Action, replace_hit, send
from slurp.elastic.client import Elastic
from slurp.elastic.days import day_of_index
from slurp.elastic.error_classes import Item, ItemClass, classify
from slurp.elastic.pages import OPEN, pages
from slurp.elastic.response_checks import UnexpectedResponse

Json = dict[str, Any]

# Hits of a page, and documents of a write: each page repeats the search, and each write has a cost for each
# index, so 2000 take half the CPU time of 500.
_PAGE = 2000
# Documents of a page are written within this many seconds, so that the point in time does not expire.
_PAGE_SECONDS = 10
# The user's ingest pipeline has processed the event before; it must not see it again, nor drop it.
_NO_PIPELINE = "_none"
# The day was deleted meanwhile.
_GONE = "index_not_found_exception"
# The status of a write to a document that another program has changed since it was read.
CONFLICT = 409


class MissingPrivilege(TransportError):
    """A privilege on the daily indices is missing: Elasticsearch searches and refreshes none of them then."""


class NotWritten(TransportError):
    """Some documents could not be written; a later attempt finds them again."""


class Versions:
    """The documents of the daily indices of one `--index` that can be searched.

    Attributes:
        excluded: daily indices that are open but cannot be searched now.
        derived: content outside the daily indices that comes from these documents.
    """

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        pause: RatePause,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """`heartbeat` is called before each request."""
        self.index = index
        self.excluded: frozenset[str] = frozenset()
        self.derived = DerivedContent(elastic, index)
        self._elastic = elastic
        self._pause = pause
        self._heartbeat = heartbeat
        # Number of open daily indices at the last refresh.
        self._open = 0

    def refresh(self) -> None:
        """Make all acknowledged documents visible to `search`."""
        self._open = self._count_open()
        self._heartbeat()
        shards = self._elastic.client.indices.refresh(index=self._searched, expand_wildcards=OPEN)["_shards"]
        if shards["failed"]:
            raise UnexpectedResponse("a refresh did not reach all shards")
        self._check_privilege("maintenance", shards)

    def check_privileges(self) -> None:
        """Raise the exception of a later `refresh` or `search` if a privilege is missing.

        Daily indices without a shard that responds are left out.
        """
        self.excluded = frozenset(self.without_shards())
        try:
            self.refresh()
            response = self._elastic.client.search(
                index=self._searched, expand_wildcards=OPEN, query={"match_none": {}}, size=0
            )
            self._check_privilege("read", response["_shards"])
        finally:
            self.excluded = frozenset()

    def search(self, query: Json, fields: Sequence[str], day: str | None = None) -> Iterator[list[Json]]:
        """Yield pages of the hits for a query with these fields of `_source`, in all daily indices or that
        of one `day`.

        Raises the exceptions of the client, also if a shard did not respond.
        """
        for _, hits in self.search_each([query], fields, day):
            yield hits

    def search_each(
        self, queries: Iterable[Json], fields: Sequence[str], day: str | None = None
    ) -> Iterator[tuple[int, list[Json]]]:
        """Yield pages for several queries at the same point in time, each with the number of its query."""
        for number, response in pages(
            self._elastic.client,
            day or self._searched,
            queries,
            heartbeat=self._heartbeat,
            source_includes=list(fields),
            size=self.page,
        ):
            if day is None:
                self._check_privilege("read", response["_shards"])
            elif not response["_shards"]["total"]:
                raise UnexpectedResponse(f"{day} cannot be searched")
            if hits := response["hits"]["hits"]:
                yield number, [hit for hit in hits if self._is_day(hit["_index"])]

    def count(self, query: Json) -> int:
        """Return the number of documents for which a query holds."""
        response = self._elastic.client.count(index=self._searched, expand_wildcards=OPEN, query=query)
        if response["_shards"]["failed"]:
            raise UnexpectedResponse("a count did not reach all shards")
        return int(response["count"])

    def accounts(self, query: Json, limit: int, day: str | None = None, after: str = "") -> list[str]:
        """Return the first accounts after `after` by DID, at most `limit`, of the documents for which a query
        holds, in all daily indices or that of one `day`."""
        # An ingest pipeline of the user may have given a document several DIDs.
        composite = {
            "size": limit,
            "sources": [{"did": {"terms": {"field": "did"}}}],
            "after": {"did": after},
        }
        response = self._search_once(query, 0, day, aggs={"accounts": {"composite": composite}})
        return [str(bucket["key"]["did"]) for bucket in response["aggregations"]["accounts"]["buckets"]]

    def first_time(self, query: Json, field: str) -> datetime | None:
        """Return the earliest value of a date field of the documents for which a query holds."""
        order = {"order": "asc", "format": "strict_date_time", "unmapped_type": "date"}
        hits = self._search_once(query, 1, None, sort=[{field: order}])["hits"]["hits"]
        return next((datetime.fromisoformat(hit["sort"][0]) for hit in hits), None)

    def _search_once(self, query: Json, size: int, day: str | None, **options: Any) -> Any:
        """Return the response of a search without sources."""
        self._heartbeat()
        return self._elastic.client.search(
            index=day or self._searched,
            expand_wildcards=OPEN,
            query=query,
            source=False,
            size=size,
            track_total_hits=False,
            allow_partial_search_results=False,
            **options,
        )

    def write(self, actions: Sequence[Action]) -> list[Item | None]:
        """Send actions; return None for each that was carried out or whose index is gone, else its error.

        Raises the exceptions of the client.
        """
        results: list[Item | None] = []
        if not actions:
            return results
        self._pause(len(actions))
        for item in send(self._elastic.client, actions, self._heartbeat):
            done = classify(item) is ItemClass.INDEXED or item.type == _GONE
            results.append(None if done else item)
        return results

    def days(self, state: str = "open,closed") -> list[str]:
        """Return the names of the daily indices, or of those that are `open` or `closed`."""
        self._heartbeat()
        found = self._elastic.client.indices.get_settings(
            index=f"{self.index}-*", name="index.uuid", expand_wildcards=f"{state},hidden"
        )
        return sorted(filter(self._is_day, found))

    def without_shards(self) -> set[str]:
        """Return the names of the open daily indices that have a shard without an active copy."""
        self._heartbeat()
        health = self._elastic.client.cluster.health(
            index=f"{self.index}-*", level="indices", expand_wildcards=OPEN
        )
        red = {name for name, one in health["indices"].items() if one["status"] == "red"}
        return set(filter(self._is_day, red))

    @property
    def page(self) -> int:
        """Number of hits of a page, and of documents to write with one request."""
        return min(_PAGE, self._pause.documents_in(_PAGE_SECONDS))

    @property
    def _searched(self) -> str:
        return ",".join([f"{self.index}-*", *(f"-{name}" for name in sorted(self.excluded))])

    def _count_open(self) -> int:
        return len(set(self.days("open")) - self.excluded)

    def _check_privilege(self, privilege: str, shards: Json) -> None:
        # A wildcard omits indices for which the privilege is missing.
        if shards["total"] >= self._open:
            return
        self._open = self._count_open()  # some may have been deleted meanwhile
        if shards["total"] < self._open:
            raise MissingPrivilege(f"the index privilege {privilege!r} on {self.index}-* is missing")

    def _is_day(self, name: str) -> bool:
        return day_of_index(self.index, name) is not None


class RatePause:
    """Waits so that at most `rate` documents per second are written, until `stop`."""

    def __init__(self, rate: int, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._stop = stop
        self._clock = clock
        self._free_at = 0.0

    def documents_in(self, seconds: int) -> int:
        """Return the number of documents that are written within some seconds, at least 1."""
        return max(1, self._rate * seconds)

    def __call__(self, count: int) -> None:
        now = self._clock()
        if self._free_at > now:
            self._stop.wait(self._free_at - now)
        self._free_at = max(now, self._free_at) + count / self._rate


def overwrite(hit: Json, document: Json) -> Action:
    """Return the action that replaces a hit by a tombstone, unless it has changed."""
    return replace_hit(hit, orjson.dumps(document), pipeline=_NO_PIPELINE)


def not_written(errors: Mapping[str, Item]) -> NotWritten:
    """Return the exception for documents that were not written, by their records (URI) or accounts (DID)."""
    name, item = next(iter(errors.items()))
    return NotWritten(f"documents of {len(errors):,} record(s) or account(s), the first {name}: {item}")


def rejected(errors: Mapping[str, Item]) -> dict[str, Item]:
    """Return the errors that another attempt does not solve: all but conflicts with another program."""
    return {name: item for name, item in errors.items() if item.status != CONFLICT}


def text_in(hit: Json, name: str) -> str:
    """Return a text of `_source`; '' if an ingest pipeline of the user has removed or changed it."""
    value = hit["_source"].get(name)
    return value if isinstance(value, str) else ""


def utc_now() -> datetime:
    return datetime.now(UTC)
