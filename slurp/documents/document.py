"""Build the document of a checked event, the content of `_source`."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from slurp import lexicons
from slurp.documents import sanitize
from slurp.documents.common_fields import add_common_fields
from slurp.documents.rejection import generic_reason
from slurp.documents.times import hour_and_weekday
from slurp.events.frames import cursor_of, uri_of
from slurp.events.identity import Identity, identify
from slurp.events.times import DAY_US, MAX_TIME_US, isoformat

# The records that have mapped fields, unless `--lexicons` adds to them.
SHAPES = lexicons.RecordShapes(lexicons.committed())


# Fields kept of events other than commits. The blocks of a sync serve only to verify signatures.
_KEPT_NAMES = {
    "identity": ("handle", "time"),
    "account": ("active", "status", "time"),
    "sync": ("rev", "time"),
}


# All events of a batch share one time of arrival.
format_arrival = lru_cache(maxsize=16)(isoformat)


class Form(Enum):
    """How much of an event its document has. Elasticsearch may reject one form and accept the next."""

    FULL = "envelope, common fields and record"
    COMMON_FIELDS = "envelope and common fields, in quarantine"
    ENVELOPE = "envelope, in quarantine"


class Document(NamedTuple):
    """An event ready for a bulk request; `body` is JSON."""

    identity: Identity
    body: bytes

    @property
    def id(self) -> str:
        """The `_id`."""
        return self.identity.id

    @property
    def day(self) -> int:
        """The UTC day that chooses the index, as its number since 1970-01-01."""
        return self.identity.instant_us // DAY_US


def build(
    event: dict[str, Any],
    host: str,
    arrived_us: int,
    shapes: lexicons.RecordShapes = SHAPES,
    now_us: int = MAX_TIME_US,
) -> Document:
    """Return the document of a checked `event` that `host` sent and that arrived at `arrived_us` (Unix µs).

    A rev more than a day after `now_us` does not choose the day (see `identity.instant_us`).

    The record is stored under `record` and its NSID if the collection is in `shapes`, else in the `flattened`
    field `other_record`. Values that do not fit the mapping are in `mistyped`. No record raises an exception
    here.
    """
    identity = identify(event, now_us)
    source = envelope(event, identity.instant_us, host, arrived_us)
    if event["kind"] == "commit":
        record = event["commit"].get("record")
        if record is not None:
            _add_record(source, event["commit"]["collection"], record, shapes)
    return Document(identity, sanitize.dumps(source))


def _add_record(source: dict[str, Any], collection: str, record: Any, shapes: lexicons.RecordShapes) -> None:
    if type(record) is not dict:
        # Mapped types are objects.
        source["other_record"] = sanitize.for_flattened(record)
        return
    add_common_fields(source, collection, record)
    if collection not in shapes:
        source["other_record"] = sanitize.for_flattened(record)
    elif shapes.fits(collection, record, sanitize.is_storable):
        source["record"] = {collection: record}
    else:
        fitting, mistyped = shapes.separate(collection, sanitize.for_mapped_type(record))
        source["record"] = {collection: fitting}
        if mistyped:
            source["mistyped"] = mistyped


def quarantined(
    event: dict[str, Any],
    frame: bytes,
    host: str,
    arrived_us: int,
    error: str,
    now_us: int = MAX_TIME_US,
    form: Form = Form.COMMON_FIELDS,
) -> Document:
    """Return the document of an event whose full document was rejected, with the reason and the event as JSON
    text. Its record is not mapped.
    """
    identity = identify(event, now_us)
    source = envelope(event, identity.instant_us, host, arrived_us)
    if form is Form.COMMON_FIELDS and event["kind"] == "commit":
        record = event["commit"].get("record")
        if type(record) is dict:
            add_common_fields(source, event["commit"]["collection"], record)
    source["quarantine"] = {
        "error": generic_reason(error),
        "detail": error[:1000],
        "raw": frame.decode("utf-8", "replace"),
    }
    return Document(identity, sanitize.dumps(source))


def envelope(event: dict[str, Any], instant: int, host: str, arrived_us: int) -> dict[str, Any]:
    """Return the fields that every document has, independent of its record."""
    kind = event["kind"]
    did = event["did"]
    inner = event[kind]
    source: dict[str, Any] = {"@timestamp": isoformat(instant), "did": did, "kind": kind}
    time_us = event["time_us"]
    if kind == "commit":
        collection, rkey = inner["collection"], inner["rkey"]
        source["uri"] = uri_of(event)
        source["commit"] = commit = {
            "rev": inner["rev"],
            "operation": inner["operation"],
            "collection": collection,
            "rkey": rkey,
        }
        if type(cid := inner.get("cid")) is str:
            commit["cid"] = cid
        if inner.get("resync") is True:
            commit["resync"] = True
        if inner.get("bootstrap") is True:
            commit["bootstrap"] = True
    else:
        source[kind] = status = {
            name: inner[name] for name in _KEPT_NAMES[kind] if inner.get(name) is not None
        }
        if status.get("time") == "":
            del status["time"]
        if type(seq := inner.get("seq")) is int and 0 <= seq < 2**63:
            status["seq"] = seq
    source["jetstream"] = {"host": host, "time_us": time_us, "cursor": cursor_of(event)}
    hour, weekday = hour_and_weekday(instant)
    source["event"] = {
        "ingested": format_arrival(arrived_us),
        "lag_ms": (arrived_us - instant) // 1000,
        "hour": hour,
        "weekday": weekday,
    }
    return source
