"""Records made fit for Elasticsearch: what it would refuse with 400 is changed, and nothing is lost.

Nearly every record is left as it is; looking costs about as much as reading its names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import orjson

# `flattened` refuses more than 20 levels, and a term (path, NUL, value) of more than 32,766 bytes:
# 18 names of 400 characters of four bytes, and a value of 1,024 characters of three, stay below.
FLAT_DEPTH = 18
FLAT_NAME_LENGTH = 400
FLAT_VALUE_LENGTH = 1024

# orjson writes at most 254 levels; some are ours.
_DEPTH = 200

_LONG = range(-(2**63), 2**64)

# In a mapped object a dot in a name is a path, which may lead through a leaf or nowhere. The
# percent sign is what we write for them, so it has to be written as well.
_REFUSED_IN_NAMES = re.compile(r"[.%\x00]")


def typed(record: dict[str, Any]) -> dict[str, Any]:
    """A record of a mapped type: names that are blank or have a dot are percent-encoded."""
    return _renamed(record, 0) if _has_odd_name(record, 0) else record


def flat(record: Any) -> dict[str, Any]:
    """A record for a `flattened` field: an object of bounded depth, its names bounded and without NUL."""
    if type(record) is not dict:
        return {"value": _flat(record, 1)}
    return record if _is_flat(record, 1) else _flat(record, 0)


def dumps(source: dict[str, Any]) -> bytes:
    """JSON, also of what orjson refuses: more than 254 levels, or integers of more than 64 bits."""
    try:
        return orjson.dumps(source)
    except orjson.JSONEncodeError:
        return orjson.dumps(_bounded(source, 0))


def json_text(value: Any) -> str:
    """JSON of any depth, written without recursion."""
    return "".join(_pieces(value))


def _has_odd_name(value: Any, depth: int) -> bool:
    if depth > _DEPTH:
        return True
    if type(value) is dict:
        for name, item in value.items():
            if not name.isidentifier() and name != "$type" and name != "$link" and _is_odd(name):
                return True
            kind = type(item)
            if (kind is dict or kind is list) and _has_odd_name(item, depth + 1):
                return True
    else:
        for item in value:
            kind = type(item)
            if (kind is dict or kind is list) and _has_odd_name(item, depth + 1):
                return True
    return False


def _is_odd(name: str) -> bool:
    return not name.strip() or _REFUSED_IN_NAMES.search(name) is not None


def _renamed(value: Any, depth: int) -> Any:
    if type(value) is dict:
        if depth > _DEPTH:
            return json_text(value)
        return {_encoded(name): _renamed(item, depth + 1) for name, item in value.items()}
    if type(value) is list:
        return json_text(value) if depth > _DEPTH else [_renamed(item, depth + 1) for item in value]
    return value


def _encoded(name: str) -> str:
    if not name:
        return "%"
    if not name.strip():
        return "".join(f"%{ord(character):02X}" for character in name)
    return _REFUSED_IN_NAMES.sub(lambda match: f"%{ord(match[0]):02X}", name)


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


def _flat(value: Any, depth: int) -> Any:
    if type(value) is dict:
        if depth >= FLAT_DEPTH:
            return json_text(value)
        return {_short(name): _flat(item, depth + 1) for name, item in value.items()}
    if type(value) is list:
        return json_text(value) if depth >= FLAT_DEPTH else [_flat(item, depth + 1) for item in value]
    return value


def _short(name: str) -> str:
    """A name without NUL; one that is too long keeps its beginning and gets a hash, to stay distinct."""
    name = name.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if len(name) <= FLAT_NAME_LENGTH:
        return name
    digest = blake2b(name.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return f"{name[: FLAT_NAME_LENGTH - 20]}…{digest}"


def _bounded(value: Any, depth: int) -> Any:
    if type(value) is dict:
        if depth > _DEPTH:
            return json_text(value)
        return {_whole(name): _bounded(item, depth + 1) for name, item in value.items()}
    if type(value) is list:
        return json_text(value) if depth > _DEPTH else [_bounded(item, depth + 1) for item in value]
    if type(value) is str:
        return _whole(value)
    if type(value) is int and value not in _LONG:
        return str(value)
    return value


def _whole(text: str) -> str:
    """Without lone surrogates, which UTF-8 cannot say."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _pieces(value: Any) -> Iterator[str]:
    # What is open: the rest of its items, each with the text before it, and its closing bracket.
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
            open_.append((_members(item), "}"))
        elif type(item) is list:
            yield f"{before}["
            open_.append((_elements(item), "]"))
        else:
            yield before + _scalar(item)


def _members(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for position, (name, item) in enumerate(value.items()):
        yield f"{',' if position else ''}{_scalar(name)}:", item


def _elements(value: list[Any]) -> Iterator[tuple[str, Any]]:
    for position, item in enumerate(value):
        yield "," if position else "", item


def _scalar(value: Any) -> str:
    return orjson.dumps(_bounded(value, 0)).decode()
