"""What was published, what Elasticsearch holds, and the difference: judged by content and not by `_id`.

An event that is there twice under two names would pass a comparison of names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from slurp.events.identity import event_id
from slurp.simulator import wire_v2
from tests.worker import record_in

Hash = bytes

# What identity and account events say themselves; the rest of a document belongs to the delivery.
_INNER = {"identity": ("handle", "time"), "account": ("active", "status", "time")}


def of_event(event: Mapping[str, Any]) -> Hash:
    """Hash of what an event of the v1 wire says, without when and by whom it was sent."""
    kind = event["kind"]
    inner = event[kind]
    if kind != "commit":
        return _hash(kind, event["did"], {name: inner.get(name) for name in _INNER[kind]})
    return _commit(event["did"], inner, inner.get("record"))


def of_document(document: Mapping[str, Any]) -> Hash:
    """The same of a `_source`, also of one in quarantine."""
    if "quarantine" in document:
        # As it came, by either wire.
        raw = orjson.loads(document["quarantine"]["raw"])
        return of_event(wire_v2.to_v1_event(raw) if "payload" in raw else raw)
    kind = document["kind"]
    inner = document[kind]
    if kind != "commit":
        return _hash(kind, document["did"], {name: inner.get(name) for name in _INNER[kind]})
    held = "record" in document or "other_record" in document
    return _commit(document["did"], inner, record_in(dict(document)) if held else None)


def _commit(did: str, inner: Mapping[str, Any], record: Any) -> Hash:
    names = ("rev", "operation", "collection", "rkey", "cid")
    return _hash("commit", did, {name: inner.get(name) for name in names}, record)


def _hash(*parts: Any) -> Hash:
    return blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=12).digest()


class Published:
    """Hash to `_id` of every event that a server of the run has sent or would have."""

    def __init__(self) -> None:
        self._ids: dict[Hash, str] = {}
        self._odd: set[Hash] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, frame: bytes, *, odd: bool = False) -> None:
        """An `odd` one is such as Elasticsearch refuses: its place is quarantine."""
        event = orjson.loads(frame)
        content = of_event(event)
        self._ids[content] = event_id(event)
        if odd:
            self._odd.add(content)

    def compare(self, hits: Iterable[Mapping[str, Any]]) -> ItemClass:
        """Judge everything that a scan over the day indices gives."""
        found: Counter[Hash] = Counter()
        verdict = ItemClass()
        for hit in hits:
            content = of_document(hit["_source"])
            found[content] += 1
            if "quarantine" in hit["_source"]:
                verdict.quarantined += 1
                verdict.wronged += content not in self._odd
            if content not in self._ids:
                verdict.strange += 1
            elif self._ids[content] != hit["_id"]:
                verdict.misnamed += 1
        verdict.documents = found.total()
        verdict.lost = len(self._ids.keys() - found.keys())
        verdict.double = found.total() - len(found)
        return verdict


@dataclass
class ItemClass:
    """Counts of documents; all but the first two ought to be 0."""

    documents: int = 0
    quarantined: int = 0
    wronged: int = 0
    """In quarantine without a reason."""
    lost: int = 0
    """Published and not found."""
    double: int = 0
    """Found once more than once."""
    strange: int = 0
    """Found and never published."""
    misnamed: int = 0
    """Found under another `_id` than the event's own."""

    @property
    def holds(self) -> bool:
        return not (self.wronged or self.lost or self.double or self.strange or self.misnamed)
