"""Stored versions in the daily indices: search them all, and overwrite some.

An index is searched at a point in time, page by page. A write has the sequence number that was read, so it
never replaces what another program has written since.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
from elastic_transport import TransportError

from slurp.elastic.bulk import Action, replace_hit, send
from slurp.elastic.client import FAILURES, Elastic
from slurp.elastic.days import day_of_index
from slurp.elastic.error_classes import Item, ItemClass, classify
from slurp.elastic.response_checks import UnexpectedResponse

Json = dict[str, Any]
T = TypeVar("T")

# Records, accounts or removals of one request or document.
CHUNK = 1000
_PAGE = 500
_KEEP_ALIVE = "2m"
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
    """The documents of all open daily indices of one `--index`."""

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        pause: Callable[[int], None] = lambda count: None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """`pause` is called with the number of documents before they are written; it limits the load.
        `heartbeat` is called before each request.
        """
        self.index = index
        self._elastic = elastic
        self._pause = pause
        self._heartbeat = heartbeat
        # Number of open daily indices at the last refresh.
        self._open = 0

    def refresh(self) -> None:
        """Make all acknowledged documents visible to `search`."""
        self._heartbeat()
        self._open = len(self.days("open"))
        self._heartbeat()
        shards = self._elastic.client.indices.refresh(index=f"{self.index}-*")["_shards"]
        if shards["failed"]:
            raise UnexpectedResponse("a refresh did not reach all shards")
        self._check_privilege("maintenance", shards)

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
        pit = self._elastic.client.open_point_in_time(
            index=day or f"{self.index}-*", keep_alive=_KEEP_ALIVE, ignore_unavailable=True
        )["id"]
        try:
            for number, query in enumerate(queries):
                after: list[Any] | None = None
                while True:
                    self._heartbeat()
                    found = self._elastic.client.search(
                        pit={"id": pit, "keep_alive": _KEEP_ALIVE},
                        query=query,
                        source_includes=list(fields),
                        seq_no_primary_term=True,
                        sort=["_shard_doc"],
                        search_after=after,
                        size=_PAGE,
                        track_total_hits=False,
                    )
                    pit = found["pit_id"]
                    if found["_shards"]["failed"] or found["timed_out"]:
                        raise UnexpectedResponse("a search for stored versions did not reach all shards")
                    if day is None:
                        self._check_privilege("read", found["_shards"])
                    hits = found["hits"]["hits"]
                    if hits:
                        yield number, [hit for hit in hits if self._is_day(hit["_index"])]
                    if len(hits) < _PAGE:
                        break
                    after = hits[-1]["sort"]
        finally:
            with contextlib.suppress(*FAILURES):  # it expires by itself
                self._elastic.client.close_point_in_time(id=pit)

    def count(self, query: Json) -> int:
        """Return the number of documents for which a query holds."""
        response = self._elastic.client.count(index=f"{self.index}-*", query=query)
        if response["_shards"]["failed"]:
            raise UnexpectedResponse("a count did not reach all shards")
        return int(response["count"])

    def write(self, actions: Sequence[Action]) -> list[Item | None]:
        """Send actions; return None for each that was carried out or whose index is gone, else its error.

        Raises the exceptions of the client.
        """
        self._pause(len(actions))
        results: list[Item | None] = []
        for item in send(self._elastic.client, actions, self._heartbeat):
            done = classify(item) is ItemClass.INDEXED or item.type == _GONE
            results.append(None if done else item)
        return results

    def days(self, state: str = "open,closed") -> list[str]:
        """Return the names of the daily indices, or of those that are `open` or `closed`."""
        found = self._elastic.client.indices.get_settings(
            index=f"{self.index}-*", name="index.uuid", expand_wildcards=state
        )
        return sorted(filter(self._is_day, found))

    def _check_privilege(self, privilege: str, shards: Json) -> None:
        # A wildcard omits indices for which the privilege is missing.
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

    def __call__(self, count: int) -> None:
        now = self._clock()
        if self._free_at > now:
            self._stop.wait(self._free_at - now)
        self._free_at = max(now, self._free_at) + count / self._rate


def overwrite(hit: Json, document: Json) -> Action:
    """Return the action that replaces a hit by a tombstone, unless it has changed."""
    return replace_hit(hit, orjson.dumps(document), pipeline=_NO_PIPELINE)


def not_written(what: str, errors: Mapping[str, Item]) -> NotWritten:
    """Return the exception for documents that were not written, by the names of their records or accounts."""
    name, item = next(iter(errors.items()))
    return NotWritten(f"{what}, the first {name}: {item}")


def rejected(errors: Mapping[str, Item]) -> dict[str, Item]:
    """Return the errors that another attempt does not solve: all but conflicts with another program."""
    return {name: item for name, item in errors.items() if item.status != CONFLICT}


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items in parts, each small enough for a request or document."""
    for first in range(0, len(items), CHUNK):
        yield items[first : first + CHUNK]


def text_in(hit: Json, name: str) -> str:
    """Return a text of `_source`; '' if an ingest pipeline of the user has removed or changed it."""
    value = hit["_source"].get(name)
    return value if isinstance(value, str) else ""


def utc_now() -> datetime:
    return datetime.now(UTC)
