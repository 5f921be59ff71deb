"""The v1 wire of Jetstream: frames to checked events. Pure, no I/O.

Events stay plain dictionaries; `parse` only makes sure that everything this program relies on is
there with the right type. Unknown fields may appear and are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson

from slurp.documents.identity import MAX_TIME_US
from slurp.position import FIRST_TIME_CURSOR, Position

_OPERATIONS = ("create", "update", "delete")


class BadFrame(ValueError):
    """A frame that is no event; its text says why. It goes to the dead-letter file."""


def parse(frame: bytes) -> dict[str, Any]:
    """The event in a frame, checked. Raises BadFrame."""
    try:
        event = orjson.loads(frame)
    except orjson.JSONDecodeError:
        event = _parse_leniently(frame)
    if type(event) is not dict:
        raise BadFrame("not a JSON object")
    if type(event.get("did")) is not str:
        raise BadFrame("no did")
    time_us = event.get("time_us")
    if type(time_us) is not int or not 0 <= time_us <= MAX_TIME_US:
        raise BadFrame("no time_us between the years 1970 and 9999")
    kind = event.get("kind")
    if kind == "commit":
        _check_commit(event.get("commit"))
    elif kind in ("identity", "account"):
        _check_status(kind, event.get(kind))
    else:
        raise BadFrame("unknown kind")
    return event


def position_of(frames: Iterable[bytes], host: str) -> Position | None:
    """The position of the first frame that has one."""
    for frame in frames:
        try:
            event = parse(frame)
        except BadFrame:
            continue
        return Position(host, cursor_of(event), event["time_us"])
    return None


def cursor_of(event: dict[str, Any]) -> int | None:
    """The host's sequence number; older servers send none."""
    cursor = event.get("cursor")
    return cursor if type(cursor) is int and 0 <= cursor < FIRST_TIME_CURSOR else None


def _check_commit(commit: Any) -> None:
    if type(commit) is not dict:
        raise BadFrame("a commit event without commit")
    for name in ("rev", "collection", "rkey"):
        if type(commit.get(name)) is not str:
            raise BadFrame(f"a commit without {name}")
    if commit.get("operation") not in _OPERATIONS:
        raise BadFrame("a commit with an unknown operation")


def _check_status(kind: str, status: Any) -> None:
    if type(status) is not dict or type(status.get("time")) is not str:
        raise BadFrame(f"an {kind} event without {kind}.time")
    if kind == "account" and type(status.get("active")) is not bool:
        raise BadFrame("an account event without account.active")
    name = "handle" if kind == "identity" else "status"
    if not isinstance(status.get(name), str | None):
        raise BadFrame(f"an {kind} event whose {name} is no text")


def _parse_leniently(frame: bytes) -> Any:
    """What is JSON to Python but not to orjson: lone surrogates and NaN must not cost an event."""
    try:
        return _mended(json.loads(frame, parse_constant=lambda _: None))
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"no JSON: {error}") from None


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(item) for name, item in value.items()}
    return value
