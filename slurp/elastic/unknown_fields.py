"""Counts of collections and fields that no known lexicon contains, so that an operator notices new ones.

The indexers count them for events that were stored, so a replay counts nothing twice. The index
`skeetslurper-drift` has one document for each collection or field, and the counts survive a restart.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from elasticsearch import Elasticsearch

from slurp.elastic.response_checks import UnexpectedResponse
from slurp.elastic.setup import create_own_index
from slurp.elastic.templates import DRIFT_INDEX
from slurp.events.frames import uri_of
from slurp.lexicons import Compiled, KnownFields

log = logging.getLogger(__name__)

# Users choose the names. Names beyond this many in a run are counted together.
MAX_NAMES = 10_000
# Characters; longer values are not indexed by the mapping. Names are kept in memory and written to the log.
_MAX_COLLECTION = 512
_MAX_URI = 4096
# New names that one log message lists.
_MAX_LISTED = 3
# Documents in one bulk request.
_CHUNK_SIZE = 500
# Attempts of one `flush`, for counts that another worker has changed at the same time.
_MAX_ATTEMPTS = 3


class UnknownName(NamedTuple):
    """The name of an unknown collection or field."""

    kind: str
    """`collection`, `field`, or `others` for the names beyond the limit."""
    collection: str = ""
    field: str = ""
    """A dotted path below the record."""

    def __str__(self) -> str:
        return f"{self.collection} {self.field}".strip() or self.kind


OTHERS = UnknownName("others")


class UnknownFieldSeen(NamedTuple):
    """The unknown names in one event, and the at-uri of its record."""

    names: list[UnknownName]
    uri: str


@dataclass(slots=True)
class _Count:
    """The occurrences of one name that are not written yet. Times are UTC, ISO 8601."""

    first_seen: str
    last_seen: str
    count: int
    example_uri: str


class UnknownFields:
    """The counts of one `--index`. Thread-safe."""

    def __init__(
        self,
        compiled: Compiled,
        index: str,
        max_names: int = MAX_NAMES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._known = KnownFields(compiled)
        self._index = index
        self._max_names = max_names
        self._clock = clock
        self._lock = threading.Lock()
        self._names: set[UnknownName] = set()
        # The last names that appeared since `new_names`, and how many appeared.
        self._new_names: list[UnknownName] = []
        self._new_count = 0
        self._counts: dict[UnknownName, _Count] = {}

    def find(self, event: Mapping[str, Any]) -> UnknownFieldSeen | None:
        """Return the unknown names in an event, None if there are none. Takes about 1 µs.

        Pass the result to `count` when the event is stored.
        """
        commit = event.get("commit")
        if commit is None or type(record := commit.get("record")) is not dict:
            return None
        collection = commit["collection"]
        if collection not in self._known:
            names = [UnknownName("collection", collection[:_MAX_COLLECTION])]
        elif paths := self._known.unknown(collection, record):
            names = [UnknownName("field", collection, path) for path in paths]
        else:
            return None
        return UnknownFieldSeen(names, uri_of(event)[:_MAX_URI])

    def count(self, seen: UnknownFieldSeen) -> None:
        """Count the names in an event that was just stored."""
        now = self._clock().isoformat(timespec="milliseconds")
        with self._lock:
            for name in seen.names:
                self._count(name, now, seen.uri)

    def new_names(self) -> str:
        """Return one line about the names that appeared since the last call, '' if there are none."""
        with self._lock:
            listed, count = self._new_names, self._new_count
            self._new_names, self._new_count = [], 0
        more = f" and {count - len(listed)} more" if count > len(listed) else ""
        return f"not in any known lexicon: {', '.join(map(str, listed))}{more}" if count else ""

    def flush(self, client: Elasticsearch) -> None:
        """Add the counts to the stored ones. Counts that cannot be written are kept for the next call.

        Raises the exceptions of the client.
        """
        for _ in range(_MAX_ATTEMPTS):
            with self._lock:
                counts, self._counts = self._counts, {}
            names = list(counts)
            try:
                while names:
                    chunk = names[:_CHUNK_SIZE]
                    written = self._write(client, {name: counts[name] for name in chunk})
                    for name in written:
                        del counts[name]
                    del names[:_CHUNK_SIZE]
            finally:
                with self._lock:
                    for name, count in counts.items():
                        self._add(name, count)
            if not counts:
                return

    def _count(self, name: UnknownName, now: str, uri: str) -> None:
        if name not in self._names:
            if len(self._names) < self._max_names:
                self._names.add(name)
                self._new_names = [*self._new_names, name][-_MAX_LISTED:]
                self._new_count += 1
            else:
                name = OTHERS
        self._add(name, _Count(now, now, 1, uri))

    def _add(self, name: UnknownName, new: _Count) -> None:
        old = self._counts.get(name)
        if old is None:
            self._counts[name] = new
            return
        if new.last_seen >= old.last_seen:
            old.last_seen, old.example_uri = new.last_seen, new.example_uri
        old.first_seen = min(old.first_seen, new.first_seen)
        old.count += new.count

    def _write(self, client: Elasticsearch, counts: Mapping[UnknownName, _Count]) -> Iterable[UnknownName]:
        """Add counts to the stored ones and return the names that were written.

        Uses optimistic concurrency control, because not every cluster supports scripted updates.
        """
        ids = {name: self._id(name) for name in counts}
        found = client.mget(index=DRIFT_INDEX, ids=list(ids.values()))["docs"]
        is_index_missing = found[0].get("error", {}).get("type") == "index_not_found_exception"
        # If the write below created the index, its field types would be guessed.
        if is_index_missing and create_own_index(client, DRIFT_INDEX):
            log.warning("index %s was deleted, created it again", DRIFT_INDEX)
        stored = {doc["_id"]: doc for doc in found if doc.get("found")}
        operations: list[dict[str, Any]] = []
        for name, count in counts.items():
            operations += self._operation(name, count, ids[name], stored.get(ids[name]))
        response = client.bulk(index=DRIFT_INDEX, operations=operations)
        if len(response["items"]) != len(counts):
            raise UnexpectedResponse(f"the response to a bulk request to {DRIFT_INDEX} is incomplete")
        written = []
        for name, item in zip(counts, response["items"], strict=True):
            ((_, result),) = item.items()
            if result["status"] < 300:
                written.append(name)
            elif result["status"] != 409:
                log.warning("cannot write the count of %s: %s", name, result.get("error"))
        return written

    def _operation(self, name: UnknownName, count: _Count, doc_id: str, stored: Any) -> list[dict[str, Any]]:
        source = {
            "index": self._index,
            **{key: value for key, value in name._asdict().items() if value},
            "first_seen": count.first_seen,
            "last_seen": count.last_seen,
            "count": count.count,
            "example_uri": count.example_uri,
        }
        if stored is None:
            return [{"create": {"_id": doc_id}}, source]
        before = stored["_source"]
        source["first_seen"] = min(before["first_seen"], count.first_seen)
        source["last_seen"] = max(before["last_seen"], count.last_seen)
        source["count"] = before["count"] + count.count
        condition = {"if_seq_no": stored["_seq_no"], "if_primary_term": stored["_primary_term"]}
        return [{"index": {"_id": doc_id, **condition}}, source]

    def _id(self, name: UnknownName) -> str:
        # Hashed, because users choose the length of names and an `_id` has at most 512 bytes.
        text = "\n".join(name)
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return f"{self._index}:{name.kind}:{digest}"
