"""Compare published events with the documents in Elasticsearch, by content and not by `_id`.

An event that is stored twice under two ids would pass a comparison of ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from slurp.events.identity import event_id
from slurp.simulator import protocol_v2
from tests.worker import record_in

ContentHash = bytes

# Fields of identity and account events that belong to the event; the others depend on its delivery.
_INNER_FIELDS = {"identity": ("handle", "time"), "account": ("active", "status", "time")}


def hash_event(event: Mapping[str, Any]) -> ContentHash:
    """Return the hash of a v1 event, without time and source of its delivery."""
    kind = event["kind"]
    inner = event[kind]
    if kind != "commit":
        return _hash(kind, event["did"], {name: inner.get(name) for name in _INNER_FIELDS[kind]})
    return _hash_commit(event["did"], inner, inner.get("record"))


def hash_document(document: Mapping[str, Any]) -> ContentHash:
    """Return the same hash for a `_source`, also of a quarantined document."""
    if "quarantine" in document:
        # The frame as received, from either protocol.
        raw = orjson.loads(document["quarantine"]["raw"])
        return hash_event(protocol_v2.to_v1_event(raw) if "payload" in raw else raw)
    kind = document["kind"]
    inner = document[kind]
    if kind != "commit":
        return _hash(kind, document["did"], {name: inner.get(name) for name in _INNER_FIELDS[kind]})
    has_record = "record" in document or "other_record" in document
    return _hash_commit(document["did"], inner, record_in(dict(document)) if has_record else None)


def _hash_commit(did: str, inner: Mapping[str, Any], record: Any) -> ContentHash:
    names = ("rev", "operation", "collection", "rkey", "cid")
    return _hash("commit", did, {name: inner.get(name) for name in names}, record)


def _hash(*parts: Any) -> ContentHash:
    return blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=12).digest()


class PublishedEvents:
    """The `_id` of every published event, by the hash of its content."""

    def __init__(self) -> None:
        self._ids: dict[ContentHash, str] = {}
        self._invalid: set[ContentHash] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, frame: bytes, *, invalid: bool = False) -> None:
        """Add an event; an `invalid` one is rejected by the mapping and must be quarantined."""
        event = orjson.loads(frame)
        content = hash_event(event)
        self._ids[content] = event_id(event)
        if invalid:
            self._invalid.add(content)

    def compare(self, hits: Iterable[Mapping[str, Any]]) -> Verdict:
        """Compare with all hits of a scan over the daily indices."""
        found: Counter[ContentHash] = Counter()
        verdict = Verdict()
        for hit in hits:
            content = hash_document(hit["_source"])
            found[content] += 1
            if "quarantine" in hit["_source"]:
                verdict.quarantined += 1
                verdict.wrongly_quarantined += content not in self._invalid
            if content not in self._ids:
                verdict.unknown += 1
            elif self._ids[content] != hit["_id"]:
                verdict.wrong_id += 1
        verdict.documents = found.total()
        verdict.lost = len(self._ids.keys() - found.keys())
        verdict.duplicates = found.total() - len(found)
        return verdict


@dataclass
class Verdict:
    """Counts of documents; all except the first two must be 0."""

    documents: int = 0
    quarantined: int = 0
    wrongly_quarantined: int = 0
    """Quarantined although the mapping accepts them."""
    lost: int = 0
    """Published but not found."""
    duplicates: int = 0
    """Found more than once."""
    unknown: int = 0
    """Found but never published."""
    wrong_id: int = 0
    """Found under another `_id` than that of the event."""

    @property
    def passed(self) -> bool:
        """Whether every event is stored exactly once, unchanged and under its own id."""
        return not (self.wrongly_quarantined or self.lost or self.duplicates or self.unknown or self.wrong_id)
