"""A checked event becomes a document: what stands in `_source`."""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from typing import Any, NamedTuple

from slurp import lexicons
from slurp.documents import sanitize
from slurp.documents.common_fields import lift
from slurp.documents.rejection import bare_reason
from slurp.documents.times import hour_and_weekday
from slurp.events.frames import cursor_of
from slurp.events.identity import Identity, identify
from slurp.events.times import DAY_US, MAX_TIME_US, isoformat

# The collections whose records have mapped fields, unless `--lexicons` adds to them.
TYPED: Container[str] = frozenset(lexicons.committed().record_types)


# What is kept of an event that is no commit. The blocks of a sync are for whoever verifies signatures.
_NAMES = {"identity": ("handle", "time"), "account": ("active", "status", "time"), "sync": ("rev", "time")}


# One moment for all events of a batch.
arrival = lru_cache(maxsize=16)(isoformat)


class Document(NamedTuple):
    """An event ready for a bulk request; `body` is JSON."""

    identity: Identity
    body: bytes

    @property
    def id(self) -> str:
        return self.identity.id

    @property
    def day(self) -> int:
        """The day since 1970-01-01 (UTC) whose index it belongs to."""
        return self.identity.instant_us // DAY_US


def build(
    event: dict[str, Any],
    host: str,
    arrived_us: int,
    typed: Container[str] = TYPED,
    now_us: int = MAX_TIME_US,
) -> Document:
    """Return the document of a checked `event` that `host` sent and that came at `arrived_us` (Unix µs).

    A rev more than a day after `now_us` does not choose the day (see `identity.instant_us`).

    The record stands under `record` and its NSID if the collection is `typed`, else in the
    `flattened` field `other_record`. Whatever a record holds, this does not raise.
    """
    identity = identify(event, now_us)
    source = envelope(event, identity.instant_us, host, arrived_us)
    if event["kind"] == "commit":
        record = event["commit"].get("record")
        if record is not None:
            _add_record(source, event["commit"]["collection"], record, typed)
    return Document(identity, sanitize.dumps(source))


def _add_record(source: dict[str, Any], collection: str, record: Any, typed: Container[str]) -> None:
    if type(record) is not dict:
        # Only an object can be typed.
        source["other_record"] = sanitize.flat(record)
        return
    lift(source, collection, record)
    if collection in typed:
        source["record"] = {collection: sanitize.typed(record)}
    else:
        source["other_record"] = sanitize.flat(record)


def quarantined(
    event: dict[str, Any],
    frame: bytes,
    host: str,
    arrived_us: int,
    error: str,
    now_us: int = MAX_TIME_US,
) -> Document:
    """Return the document of an event whose full one Elasticsearch rejected: envelope, raw JSON, reason."""
    identity = identify(event, now_us)
    source = envelope(event, identity.instant_us, host, arrived_us)
    source["quarantine"] = {
        "error": bare_reason(error),
        "detail": error[:1000],
        "raw": frame.decode("utf-8", "replace"),
    }
    return Document(identity, sanitize.dumps(source))


def envelope(event: dict[str, Any], instant: int, host: str, arrived_us: int) -> dict[str, Any]:
    """What every document has, whatever the record holds."""
    kind = event["kind"]
    did = event["did"]
    inner = event[kind]
    source: dict[str, Any] = {"@timestamp": isoformat(instant), "did": did, "kind": kind}
    time_us = event["time_us"]
    if kind == "commit":
        collection, rkey = inner["collection"], inner["rkey"]
        source["uri"] = f"at://{did}/{collection}/{rkey}"
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
        source[kind] = status = {name: inner[name] for name in _NAMES[kind] if inner.get(name) is not None}
        if status.get("time") == "":
            del status["time"]
        if type(seq := inner.get("seq")) is int and 0 <= seq < 2**63:
            status["seq"] = seq
    source["jetstream"] = {"host": host, "time_us": time_us, "cursor": cursor_of(event)}
    hour, weekday = hour_and_weekday(instant)
    source["event"] = {
        "ingested": arrival(arrived_us),
        "lag_ms": (arrived_us - instant) // 1000,
        "hour": hour,
        "weekday": weekday,
    }
    return source
