"""Take out of a record the values that do not fit the mapping, so that all its other fields stay searchable.

Records are user-written and lexicons change: a field may hold text where the lexicon has an object, and an
open union may hold a type of another application whose fields have the names of Bluesky's. Elasticsearch
rejects the whole document for one such value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from slurp.lexicons.mapping import Compiled

# Fields of an object: a dictionary for an object, None for a field with a value.
Fields = dict[str, "Fields | None"]

Mistyped = dict[str, list[Any]]

_NOTHING: Any = object()
# Characters of an NSID with a fragment. https://atproto.com/specs/nsid
_MAX_TYPE = 512

# Records may embed objects of these, and of the authority of their own type.
_AUTHORITIES = ("app.bsky", "chat.bsky", "com.atproto", "tools.ozone")


class RecordShapes:
    """The mapped fields of all record types."""

    def __init__(self, compiled: Compiled) -> None:
        self._fields = {nsid: _fields(compiled.mapping_of(nsid)) for nsid in compiled.record_types}
        self._known = {nsid: frozenset((*_AUTHORITIES, _authority(nsid))) for nsid in compiled.record_types}

    def __contains__(self, nsid: object) -> bool:
        return nsid in self._fields

    def fits(self, nsid: str, record: dict[str, Any], is_storable: Callable[[Any], bool]) -> bool:
        """Return whether the record can be stored as it is: mapped values fit, and others are storable.

        Raises KeyError if the record type has no mapping.
        """
        return _fits(record, self._fields[nsid], self._known[nsid], is_storable)

    def separate(self, nsid: str, record: dict[str, Any]) -> tuple[dict[str, Any], Mistyped]:
        """Return the record without the values that do not fit, and lists of those values by path.

        Raises KeyError if the record type has no mapping.
        """
        mistyped: Mistyped = {}
        kept = _without_mistyped(record, self._fields[nsid], self._known[nsid], "", mistyped)
        return kept, mistyped


def _fields(mapping: Mapping[str, Any]) -> Fields:
    return {
        name: _fields(child) if "properties" in child else None
        for name, child in mapping.get("properties", {}).items()
    }


@lru_cache(maxsize=4096)
def _authority(nsid: str) -> str:
    """Return the domain of an NSID without the names below it: `app.bsky` of `app.bsky.feed.post`."""
    return ".".join(nsid.split(".", 2)[:2])


def _is_foreign(value: dict[str, Any], fields: Fields, known: frozenset[str]) -> bool:
    """Return whether an object in an open union is of another application's type.

    A union of which the lexicon names no member has only `$type` mapped, which any member has.
    """
    return (
        "$type" in fields
        and len(fields) > 1
        and type(kind := value.get("$type")) is str
        and (len(kind) > _MAX_TYPE or _authority(kind) not in known)
    )


# The recursion ends with the fields, which are finite, for every record. Written out for speed: it runs for
# every record that does not take the fast path.
def _fits(
    value: dict[str, Any], fields: Fields, known: frozenset[str], is_storable: Callable[[Any], bool]
) -> bool:
    if "$type" in value and _is_foreign(value, fields, known):
        return False
    for name, item in value.items():
        kind = type(item)
        if name not in fields:
            if (kind is dict or kind is list) and not is_storable(item):
                return False
            if not name.isidentifier() and name != "$type":
                return False
            continue
        inner = fields[name]
        for element in item if kind is list else (item,):
            if type(element) is dict:
                if inner is None or not _fits(element, inner, known, is_storable):
                    return False
            # Lists in lists are rare, and may be deeper than the interpreter can follow.
            elif type(element) is list or (inner is not None and element is not None):
                return False
    return True


def _without_mistyped(
    value: dict[str, Any], fields: Fields, known: frozenset[str], prefix: str, mistyped: Mistyped
) -> dict[str, Any]:
    kept = {}
    for name, item in value.items():
        fitting = item
        if name in fields:
            fitting = _without_mistyped_values(item, fields[name], known, prefix + name, mistyped)
        if fitting is not _NOTHING:
            kept[name] = fitting
    return kept


def _without_mistyped_values(
    item: Any, inner: Fields | None, known: frozenset[str], path: str, mistyped: Mistyped
) -> Any:
    """Return what fits of the value of a field, _NOTHING if nothing does."""
    kind = type(item)
    if kind is list:
        fitting = []
        for element in item:
            if (value := _without_mistyped_values(element, inner, known, path, mistyped)) is not _NOTHING:
                fitting.append(value)
        return fitting
    if inner is None:
        if kind is not dict:
            return item
    elif item is None:
        return None
    elif kind is dict and not _is_foreign(item, inner, known):
        return _without_mistyped(item, inner, known, f"{path}.", mistyped)
    mistyped.setdefault(path, []).append(item)
    return _NOTHING
