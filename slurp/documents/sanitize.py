"""Sanitize records: change what Elasticsearch would reject with 400, without losing any value.

Nearly all records need no change; checking one costs about as much as reading its names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import orjson

# `flattened` rejects more than 20 levels, and a term (path, NUL, value) of more than 32,766 bytes: 18 names
# of 400 four-byte characters and a value of 1,024 three-byte characters are below that.
FLAT_DEPTH = 18
FLAT_NAME_LENGTH = 400
FLAT_VALUE_LENGTH = 1024

# orjson serializes at most 254 levels, including those around the record.
_MAX_DEPTH = 200

_JSON_INTEGERS = range(-(2**63), 2**64)

# In a mapped object a dot in a name is a path, which may lead through a leaf or nowhere. The percent sign
# itself is encoded as well, so that the encoding is unambiguous.
_INVALID_IN_NAMES = re.compile(r"[.%\x00]")


def for_mapped_type(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a mapped type in which names that are blank or contain a dot are percent-encoded."""
    return record if is_storable(record) else _encode_names(record, 0)


def is_storable(value: Any) -> bool:
    """Return whether `for_mapped_type` changes nothing in an object or list."""
    return not _has_invalid_name(value, 0)


def for_flattened(record: Any) -> dict[str, Any]:
    """Return a record for a `flattened` field: an object of bounded depth, names bounded and without NUL."""
    if type(record) is not dict:
        return {"value": _flatten(record, 1)}
    return record if _is_flat(record, 1) else _flatten(record, 0)


def dumps(source: dict[str, Any]) -> bytes:
    """Return JSON, also of what orjson rejects: more than 254 levels, or integers of more than 64 bits."""
    try:
        return orjson.dumps(source)
    except orjson.JSONEncodeError:
        return orjson.dumps(_bounded(source, 0))


def json_text(value: Any) -> str:
    """Return JSON of any depth, serialized without recursion."""
    return "".join(_json_parts(value))


def _has_invalid_name(value: Any, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return True
    if type(value) is dict:
        for name, item in value.items():
            if not name.isidentifier() and name != "$type" and name != "$link" and _is_invalid(name):
                return True
            kind = type(item)
            if (kind is dict or kind is list) and _has_invalid_name(item, depth + 1):
                return True
    else:
        for item in value:
            kind = type(item)
            if (kind is dict or kind is list) and _has_invalid_name(item, depth + 1):
                return True
    return False


def _is_invalid(name: str) -> bool:
    return not name.strip() or _INVALID_IN_NAMES.search(name) is not None


def _encode_names(value: Any, depth: int) -> Any:
    if type(value) is dict:
        if depth > _MAX_DEPTH:
            return json_text(value)
        return {_encode_name(name): _encode_names(item, depth + 1) for name, item in value.items()}
    if type(value) is list:
        return json_text(value) if depth > _MAX_DEPTH else [_encode_names(item, depth + 1) for item in value]
    return value


def _encode_name(name: str) -> str:
    if not name:
        return "%"
    if not name.strip():
        return "".join(f"%{ord(character):02X}" for character in name)
    return _INVALID_IN_NAMES.sub(lambda match: f"%{ord(match[0]):02X}", name)


def _is_flat(value: Any, depth: int) -> bool:
    if depth > FLAT_DEPTH:
        return False
    if type(value) is dict:
        for name, item in value.items():
            if len(name) > FLAT_NAME_LENGTH or "\0" in name:
                return False
            kind = type(item)
            if (kind is dict or kind is list) and not _is_flat(item, depth + 1):
                return False
        return True
    return all(_is_flat(item, depth + 1) for item in value if type(item) is dict or type(item) is list)


def _flatten(value: Any, depth: int) -> Any:
    if type(value) is dict:
        if depth >= FLAT_DEPTH:
            return json_text(value)
        return {_shorten_name(name): _flatten(item, depth + 1) for name, item in value.items()}
    if type(value) is list:
        return json_text(value) if depth >= FLAT_DEPTH else [_flatten(item, depth + 1) for item in value]
    return value


def _shorten_name(name: str) -> str:
    """Return a name without NUL. One that is too long is cut and gets a hash, so that it stays distinct."""
    name = name.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if len(name) <= FLAT_NAME_LENGTH:
        return name
    digest = blake2b(name.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return f"{name[: FLAT_NAME_LENGTH - 20]}…{digest}"


def _bounded(value: Any, depth: int) -> Any:
    if type(value) is dict:
        if depth > _MAX_DEPTH:
            return json_text(value)
        return {_replace_surrogates(name): _bounded(item, depth + 1) for name, item in value.items()}
    if type(value) is list:
        return json_text(value) if depth > _MAX_DEPTH else [_bounded(item, depth + 1) for item in value]
    if type(value) is str:
        return _replace_surrogates(value)
    if type(value) is int and value not in _JSON_INTEGERS:
        return str(value)
    return value


def _replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _json_parts(value: Any) -> Iterator[str]:
    # A stack of open containers: the rest of the items, each with the text before it, and the closing
    # bracket.
    open_: list[tuple[Iterator[tuple[str, Any]], str]] = [(iter((("", value),)), "")]
    while open_:
        items, bracket = open_[-1]
        if (step := next(items, None)) is None:
            yield bracket
            open_.pop()
            continue
        before, item = step
        if type(item) is dict:
            yield f"{before}{{"
            open_.append((_object_items(item), "}"))
        elif type(item) is list:
            yield f"{before}["
            open_.append((_array_items(item), "]"))
        else:
            yield before + _scalar(item)


def _object_items(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for position, (name, item) in enumerate(value.items()):
        yield f"{',' if position else ''}{_scalar(name)}:", item


def _array_items(value: list[Any]) -> Iterator[tuple[str, Any]]:
    for position, item in enumerate(value):
        yield "," if position else "", item


def _scalar(value: Any) -> str:
    return orjson.dumps(_bounded(value, 0)).decode()
