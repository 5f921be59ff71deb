"""Take out of a record the values that do not fit the mapping, so that all its other fields stay searchable.

Records are user-written and lexicons change: a field may hold text where the lexicon has an object, and an
open union may hold a type of another application whose fields have the names of Bluesky's. Elasticsearch
rejects the whole document for one such value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurp.lexicons.mapping import Compiled

# Fields of an object: a dictionary for an object, None for a field with a value.
Fields = dict[str, "Fields | None"]

Mistyped = dict[str, list[Any]]

# Lexicons of these belong together, besides those of the authority of the record itself.
_AUTHORITIES = ("app.bsky", "chat.bsky", "com.atproto", "tools.ozone")


class RecordShapes:
    """The mapped fields of all record types."""

    def __init__(self, compiled: Compiled) -> None:
        self._fields = {nsid: _fields(compiled.mapping_of(nsid)) for nsid in compiled.record_types}
        self._known = {nsid: frozenset((*_AUTHORITIES, _authority(nsid))) for nsid in compiled.record_types}

    def __contains__(self, nsid: object) -> bool:
        return nsid in self._fields

    def separate(self, nsid: str, record: dict[str, Any]) -> tuple[dict[str, Any], Mistyped]:
        """Return the record without the values that do not fit, and lists of those values by path.

        Returns the record itself if everything fits. Raises KeyError if the record type has no mapping.
        """
        fields, known = self._fields[nsid], self._known[nsid]
        if _fits(record, fields, known):
            return record, {}
        mistyped: Mistyped = {}
        return _without_mistyped(record, fields, known, "", mistyped), mistyped


def _fields(mapping: Mapping[str, Any]) -> Fields:
    return {
        name: _fields(child) if "properties" in child else None
        for name, child in mapping.get("properties", {}).items()
    }


def _authority(nsid: str) -> str:
    return ".".join(nsid.split(".", 2)[:2])


def _is_foreign(value: dict[str, Any], fields: Fields, known: frozenset[str]) -> bool:
    """Return whether an object in an open union is of another application's type."""
    return "$type" in fields and type(kind := value.get("$type")) is str and _authority(kind) not in known


# The recursion ends with the fields, which are finite, for every record.
def _fits(value: dict[str, Any], fields: Fields, known: frozenset[str]) -> bool:
    if _is_foreign(value, fields, known):
        return False
    for name, item in value.items():
        if name in fields and not _fits_field(item, fields[name], known):
            return False
    return True


def _fits_field(item: Any, inner: Fields | None, known: frozenset[str]) -> bool:
    kind = type(item)
    if kind is list:
        return all(_fits_field(element, inner, known) for element in item)
    if inner is None:
        return kind is not dict
    return item is None or (kind is dict and _fits(item, inner, known))


def _without_mistyped(
    value: dict[str, Any], fields: Fields, known: frozenset[str], prefix: str, mistyped: Mistyped
) -> dict[str, Any]:
    kept = {}
    for name, item in value.items():
        if name not in fields or _fits_field(item, fields[name], known):
            kept[name] = item
        elif type(item) is list:
            kept[name] = _fitting_elements(item, fields[name], known, prefix + name, mistyped)
        else:
            for one in _fitting_elements([item], fields[name], known, prefix + name, mistyped):
                kept[name] = one
    return kept


def _fitting_elements(
    items: list[Any], inner: Fields | None, known: frozenset[str], path: str, mistyped: Mistyped
) -> list[Any]:
    kept: list[Any] = []
    for item in items:
        if _fits_field(item, inner, known):
            kept.append(item)
        elif type(item) is list:
            kept.append(_fitting_elements(item, inner, known, path, mistyped))
        elif type(item) is dict and inner is not None and not _is_foreign(item, inner, known):
            kept.append(_without_mistyped(item, inner, known, f"{path}.", mistyped))
        else:
            mistyped.setdefault(path, []).append(item)
    return kept
