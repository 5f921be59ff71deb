"""Tombstones: what remains of a stored version after its content was removed. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Json = dict[str, Any]

_COMMIT_FIELDS = ("collection", "operation", "rkey", "rev")
_EVENT_FIELDS = ("ingested", "lag_ms", "hour", "weekday")
_NAMES = ("@timestamp", "kind", "did", "uri")
# Those that name the account.
_IDENTIFIERS = frozenset(("did", "uri", "rkey"))

# The fields of a stored version from which its tombstone is built.
SOURCE_FIELDS = [*_NAMES, *(f"commit.{name}" for name in _COMMIT_FIELDS), "event.*"]


def tombstone(source: Mapping[str, Any], reason: str, now: datetime, *, anonymous: bool = False) -> Json:
    """Return what remains of a stored version; without the names of its account if `anonymous`."""
    left_out = _IDENTIFIERS if anonymous else frozenset()
    result = _picked(source, _NAMES, left_out)
    for name, fields in (("commit", _COMMIT_FIELDS), ("event", _EVENT_FIELDS)):
        if isinstance(inner := source.get(name), dict):
            result[name] = _picked(inner, fields, left_out)
    result["redacted"] = {"at": now.isoformat(timespec="milliseconds"), "reason": reason}
    return result


def _picked(source: Mapping[str, Any], names: tuple[str, ...], left_out: frozenset[str]) -> Json:
    return {name: source[name] for name in names if name in source and name not in left_out}
