"""Compare published events with the documents in Elasticsearch: delivery by content, deletions with a model.

An event that is stored twice under two ids would pass a comparison of ids. A tombstone has no content, so
it is identified by its `_id`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from slurp.simulator import protocol_v2
from tests.chaos.deletion_model import DeletionModel, Deletions, Expected, Version
from tests.worker import record_in

ContentHash = bytes

# Fields of events other than commits that belong to the event; the others depend on its delivery.
_INNER_FIELDS = {"identity": ("handle", "time"), "account": ("active", "status", "time"), "sync": ("rev",)}

# Fields of a tombstone. A later change of the account may also hide it or show it again.
_TOMBSTONE = {"@timestamp", "kind", "event", "redacted"}
_COMMIT = {"collection", "operation", "rev"}


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


def _hash_hit(hit: Mapping[str, Any]) -> ContentHash:
    """Return the hash of a document, also of one that lacks fields."""
    try:
        return hash_document(hit["_source"])
    except (LookupError, TypeError):
        return _hash("incomplete", hit["_id"])


def _hash_commit(did: str, inner: Mapping[str, Any], record: Any) -> ContentHash:
    names = ("rev", "operation", "collection", "rkey", "cid")
    return _hash("commit", did, {name: inner.get(name) for name in names}, record)


def _hash(*parts: Any) -> ContentHash:
    return blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=12).digest()


class PublishedEvents:
    """The `_id` of every published event by the hash of its content, and what deletions leave of it."""

    def __init__(self, deletions: Deletions = Deletions.KEEP) -> None:
        self._ids: dict[ContentHash, str] = {}
        self._model = DeletionModel(deletions)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, frame: bytes, *, invalid: bool = False) -> None:
        """Add an event; an `invalid` one is rejected by the mapping and must be quarantined."""
        event = orjson.loads(frame)
        self._ids[hash_event(event)] = self._model.add(event, quarantined=invalid)

    def compare(self, hits: Iterable[Mapping[str, Any]]) -> Verdict:
        """Compare with all hits of a scan over the daily indices."""
        # By `_id`; what was never published by its content, or by the `_id` of a tombstone.
        found: Counter[str | ContentHash] = Counter()
        verdict = Verdict()
        for hit in hits:
            source = hit["_source"]
            if "redacted" in source:
                key: str | ContentHash = hit["_id"]
                self._check_tombstone(hit["_id"], source, verdict)
            else:
                content = _hash_hit(hit)
                key = self._ids.get(content, content)
                self._check_content(key, hit, verdict)
            found[key] += 1
        verdict.documents = found.total()
        verdict.lost = sum(doc_id not in found for doc_id in self._ids.values())
        verdict.duplicates = found.total() - len(found)
        return verdict

    def _check_content(self, key: str | ContentHash, hit: Mapping[str, Any], verdict: Verdict) -> None:
        source = hit["_source"]
        is_quarantined = "quarantine" in source
        verdict.quarantined += is_quarantined
        if not isinstance(key, str):
            verdict.wrongly_quarantined += is_quarantined
            verdict.unknown += 1
            return
        verdict.wrong_id += key != hit["_id"]
        verdict.wrongly_quarantined += is_quarantined and not self._model.version(key).quarantined
        expected = self._model.expected(key)
        hidden = source.get("hidden")
        verdict.hidden += hidden is not None
        if not expected.content:
            verdict.unredacted += 1
        elif expected.hidden is not None:
            verdict.not_hidden += expected.hidden and hidden is not True
            verdict.wrongly_hidden += not expected.hidden and hidden is not None

    def _check_tombstone(self, doc_id: str, source: Mapping[str, Any], verdict: Verdict) -> None:
        verdict.redacted += 1
        if doc_id not in self._model:
            verdict.unknown += 1
            return
        expected = self._model.expected(doc_id)
        if not expected.reasons:
            verdict.wrongly_redacted += 1
        elif not _is_tombstone(source, self._model.version(doc_id), expected):
            verdict.bad_tombstones += 1


def _is_tombstone(source: Mapping[str, Any], version: Version, expected: Expected) -> bool:
    """Return whether a `_source` is a tombstone of `version`, with nothing else in it."""
    redacted = source["redacted"]
    if type(redacted) is not dict or redacted.keys() != {"at", "reason"}:
        return False
    if (reason := redacted["reason"]) not in expected.reasons or type(source.get("event")) is not dict:
        return False
    names, inner = _TOMBSTONE, _COMMIT
    if reason != "account":
        names, inner = names | {"did", "uri"}, inner | {"rkey"}
        uri = f"at://{version.did}/{version.collection}/{version.rkey}"
        if (source.get("did"), source.get("uri")) != (version.did, uri):
            return False
    if version.kind == "commit":
        names = names | {"commit"}
        if source.get("commit") != {name: getattr(version, name) for name in inner}:
            return False
    return source.get("kind") == version.kind and source.keys() - {"hidden"} == names


def digest(hits: Iterable[Mapping[str, Any]]) -> str:
    """Return a digest of all documents in any order: the same one before and after a replay.

    It has the indices, ids and contents, without the arrival of the events. `hidden: null` is no `hidden`.
    """
    count = total = 0
    for hit in hits:
        source = {name: value for name, value in hit["_source"].items() if (name, value) != ("hidden", None)}
        event = source.get("event", {})
        source["event"] = {name: event[name] for name in event.keys() - {"ingested", "lag_ms"}}
        # A sum: two equal documents do not cancel each other out.
        total += int.from_bytes(_hash(hit["_index"], hit["_id"], source))
        count += 1
    return f"{count} {total % 2**96:024x}"


@dataclass
class Verdict:
    """Counts of documents; all except the first four must be 0."""

    documents: int = 0
    quarantined: int = 0
    redacted: int = 0
    """Tombstones."""
    hidden: int = 0
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
    unredacted: int = 0
    """With content, below a deletion or update of the record, or of a deleted account."""
    wrongly_redacted: int = 0
    """Tombstones of what was neither deleted nor updated."""
    bad_tombstones: int = 0
    """With another reason than the model allows, or with fields missing or left over."""
    not_hidden: int = 0
    """Of an inactive account."""
    wrongly_hidden: int = 0
    """Of an active account, or written after the account was deactivated."""

    @property
    def delivered(self) -> bool:
        """Whether every event is stored exactly once and under its own id, unchanged or redacted."""
        return not (self.wrongly_quarantined or self.lost or self.duplicates or self.unknown or self.wrong_id)

    @property
    def pending(self) -> int:
        """The number of documents with a deletion or account change that is not applied, or only in part."""
        return self.unredacted + self.not_hidden + self.wrongly_hidden

    @property
    def passed(self) -> bool:
        """Whether every event is stored exactly once, and all deletions are applied, and no others."""
        return self.delivered and not (self.pending or self.wrongly_redacted or self.bad_tombstones)
