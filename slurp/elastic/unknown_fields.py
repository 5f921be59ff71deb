"""Drift: collections and fields that no lexicon of ours knows, counted so that a person sees them.

Counted in the indexers, for events that were indexed: a replay counts nothing twice. Written to
`skeetslurper-drift`, one document for each collection or field, where counts survive a restart.
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

from slurp.elastic.response_checks import UnexpectedAnswer
from slurp.elastic.setup import create_own_index
from slurp.elastic.templates import DRIFT_INDEX
from slurp.lexicons import Compiled, KnownFields

log = logging.getLogger(__name__)

# Strangers choose the names: beyond this many in a run they are counted as one.
MAX_NAMES = 10_000
# In characters: what the mapping indexes. Names stay in memory, and stand in the log.
_COLLECTION_LENGTH = 512
_URI_LENGTH = 4096
_NAMED = 3
_CHUNK = 500
_TRIES = 3


class Name(NamedTuple):
    """`kind` is collection, field or others; `field` is a dotted path below the record."""

    kind: str
    collection: str = ""
    field: str = ""

    def __str__(self) -> str:
        return f"{self.collection} {self.field}".strip() or self.kind


OTHERS = Name("others")


class UnknownFieldSeen(NamedTuple):
    """Names that one event has shown, and its record's at-uri."""

    names: list[Name]
    uri: str


@dataclass(slots=True)
class Seen:
    """What was not written yet. Times are UTC, ISO 8601."""

    first: str
    last: str
    count: int
    example: str


class UnknownFields:
    """Thread-safe. `look` costs what a look at the record costs, about 1 µs."""

    def __init__(
        self,
        compiled: Compiled,
        index: str,
        most: int = MAX_NAMES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._known = KnownFields(compiled)
        self._index = index
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._names: set[Name] = set()
        self._news: list[Name] = []
        self._untold = 0
        self._seen: dict[Name, Seen] = {}

    def look(self, event: Mapping[str, Any]) -> UnknownFieldSeen | None:
        """What of an event no lexicon knows; to be counted when the event is indexed."""
        commit = event.get("commit")
        if commit is None or type(record := commit.get("record")) is not dict:
            return None
        collection = commit["collection"]
        if collection not in self._known:
            names = [Name("collection", collection[:_COLLECTION_LENGTH])]
        elif paths := self._known.unknown(collection, record):
            names = [Name("field", collection, path) for path in paths]
        else:
            return None
        return UnknownFieldSeen(names, f"at://{event['did']}/{collection}/{commit['rkey']}"[:_URI_LENGTH])

    def count(self, unknown_field: UnknownFieldSeen) -> None:
        """An event was indexed just now."""
        now = self._clock().isoformat(timespec="milliseconds")
        with self._lock:
            for name in unknown_field.names:
                self._count(name, now, unknown_field.uri)

    def news(self) -> str:
        """One line about names that came up since the last call; '' when there are none."""
        with self._lock:
            newest, count = self._news, self._untold
            self._news, self._untold = [], 0
        more = f" and {count - len(newest)} more" if count > len(newest) else ""
        return f"not in our lexicons: {', '.join(map(str, newest))}{more}" if count else ""

    def flush(self, client: Elasticsearch) -> None:
        """Add the counts to what is stored. What can't be written stays for the next time.

        Raises what the client raises.
        """
        for _ in range(_TRIES):
            with self._lock:
                seen, self._seen = self._seen, {}
            names = list(seen)
            try:
                while names:
                    chunk = names[:_CHUNK]
                    written = self._write(client, {name: seen[name] for name in chunk})
                    for name in written:
                        del seen[name]
                    del names[:_CHUNK]
            finally:
                with self._lock:
                    for name, one in seen.items():
                        self._add(name, one)
            if not seen:
                return

    def _count(self, name: Name, now: str, uri: str) -> None:
        if name not in self._names:
            if len(self._names) < self._most:
                self._names.add(name)
                self._news = [*self._news, name][-_NAMED:]
                self._untold += 1
            else:
                name = OTHERS
        self._add(name, Seen(now, now, 1, uri))

    def _add(self, name: Name, new: Seen) -> None:
        old = self._seen.get(name)
        if old is None:
            self._seen[name] = new
            return
        if new.last >= old.last:
            old.last, old.example = new.last, new.example
        old.first = min(old.first, new.first)
        old.count += new.count

    def _write(self, client: Elasticsearch, seen: Mapping[Name, Seen]) -> Iterable[Name]:
        """Read, add, write under a condition: scripted updates are not everywhere. The names written."""
        ids = {name: self._id(name) for name in seen}
        found = client.mget(index=DRIFT_INDEX, ids=list(ids.values()))["docs"]
        gone = found[0].get("error", {}).get("type") == "index_not_found_exception"
        # Made by the write below it would guess its types.
        if gone and create_own_index(client, DRIFT_INDEX):
            log.warning("index %s was deleted, made it again", DRIFT_INDEX)
        there = {doc["_id"]: doc for doc in found if doc.get("found")}
        operations: list[dict[str, Any]] = []
        for name, one in seen.items():
            operations += self._operation(name, one, ids[name], there.get(ids[name]))
        answer = client.bulk(index=DRIFT_INDEX, operations=operations)
        if len(answer["items"]) != len(seen):
            raise UnexpectedAnswer("a bulk request to the drift index was answered in part")
        written = []
        for name, item in zip(seen, answer["items"], strict=True):
            ((_, result),) = item.items()
            if result["status"] < 300:
                written.append(name)
            elif result["status"] != 409:
                log.warning("drift of %s was not written: %s", name, result.get("error"))
        return written

    def _operation(self, name: Name, one: Seen, doc_id: str, doc: Any) -> list[dict[str, Any]]:
        source = {
            "index": self._index,
            **{key: value for key, value in name._asdict().items() if value},
            "first_seen": one.first,
            "last_seen": one.last,
            "count": one.count,
            "example_uri": one.example,
        }
        if doc is None:
            return [{"create": {"_id": doc_id}}, source]
        before = doc["_source"]
        source["first_seen"] = min(before["first_seen"], one.first)
        source["last_seen"] = max(before["last_seen"], one.last)
        source["count"] = before["count"] + one.count
        condition = {"if_seq_no": doc["_seq_no"], "if_primary_term": doc["_primary_term"]}
        return [{"index": {"_id": doc_id, **condition}}, source]

    def _id(self, name: Name) -> str:
        # Hashed: names are as long as strangers like, an `_id` has 512 bytes.
        text = "\n".join(name)
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return f"{self._index}:{name.kind}:{digest}"
