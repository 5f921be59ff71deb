"""Decode the frames of both Jetstream protocols into checked events of one shape. Pure, no I/O.

An event is a plain dictionary in the shape of the v1 protocol. `parse` checks the type of every value that
the program relies on and leaves unknown fields as they are. A v2 frame names its type, so the caller does not
need to know from which protocol a frame comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from slurp.errors import describe_bug
from slurp.events.position import FIRST_TIME_CURSOR, Position
from slurp.events.times import MAX_TIME_US, parse_time

# Largest frame that is accepted; a larger one is replaced by `oversized_frame`. A legal record of 1 MB can
# make a frame of 14 MB: `<` is written in six bytes, an empty byte string in fourteen. 32 MiB is the limit of
# the official client.
MAX_FRAME_BYTES = 32 * 2**20
# A frame larger than this may hold at most _MAX_PARTS commas and opening brackets: decoded objects need up to
# 30 times the memory of their JSON.
_LARGE_FRAME_BYTES = 4_000_000
_MAX_PARTS = 1_000_000
# A notice is one sentence; longer frames are not decoded to look for one.
_MAX_NOTICE_BYTES = 65_536
OVERSIZED_TYPE = "skeetslurper.stub"
# Of what replaces a row of the archive whose content is not DAG-CBOR.
UNREADABLE_TYPE = "skeetslurper.row"
DIGEST_SIZE = 16

_OPERATIONS = ("create", "update", "delete")
_V2 = "network.bsky.jetstream.subscribeEvents#"
_V2_KINDS = {f"{_V2}{kind}": kind for kind in ("commit", "identity", "account", "sync")}
# First bytes of a commit as servers write it. A commit whose keys are ordered otherwise is only parsed twice.
_COMMIT_HEAD = f'{{"$type":"message","payload":{{"$type":"{_V2}commit",'.encode()


class BadFrame(ValueError):
    """A frame that is not a valid event; the text is the reason. Such a frame becomes a dead letter."""


class Notice(NamedTuple):
    """A message of a v2 server about the stream. After an error the server ends the stream."""

    name: str
    message: str
    is_error: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


def parse(frame: bytes) -> dict[str, Any]:
    """Return the checked event in a frame. Raises BadFrame for any frame that is not a valid event."""
    try:
        return _parse(frame)
    except (BadFrame, MemoryError):
        raise
    except Exception as error:
        # The reader and the indexers call this: another exception would stop the worker at the same frame
        # after every restart.
        raise BadFrame(f"decoding failed, which is a bug: {describe_bug(error)}") from error


def _parse(frame: bytes) -> dict[str, Any]:
    decoded = _decode(frame)
    if type(decoded) is not dict:
        raise BadFrame("not a JSON object")
    event: dict[str, Any] = decoded
    if "$type" in event and "kind" not in event:
        event = _from_v2(event)
    if type(event.get("did")) is not str:
        raise BadFrame("did is missing or not a string")
    time_us = event.get("time_us")
    if type(time_us) is not int or not 0 <= time_us <= MAX_TIME_US:
        raise BadFrame("time_us is not an integer between the years 1970 and 9999")
    kind = event.get("kind")
    if kind == "commit":
        _check_commit(event.get("commit"))
    elif kind in ("identity", "account"):
        _check_status(kind, event.get(kind))
    elif kind == "sync":
        _check_sync(event.get("sync"))
    else:
        raise BadFrame("unknown kind")
    return event


def parse_notice(frame: bytes) -> Notice | None:
    """Return the notice in a v2 frame; None when the frame holds none."""
    if len(frame) > _MAX_NOTICE_BYTES:
        return None
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    if type(message) is not dict:
        return None
    if message.get("$type") == "error" and type(name := message.get("error")) is str:
        return Notice(printable(name), printable(message.get("message")), is_error=True)
    payload = message.get("payload")
    if type(payload) is dict and payload.get("$type") == f"{_V2}info":
        return Notice(printable(payload.get("name")), printable(payload.get("message")), is_error=False)
    return None


def is_v2_commit(frame: bytes) -> bool:
    """Return whether a frame is a v2 commit, without decoding it (0.5% of the cost of `parse`).

    False does not exclude a commit.
    """
    return frame.startswith(_COMMIT_HEAD)


def oversized_frame(received: int, digest: str, **more: int | None) -> bytes:
    """Return the frame that replaces one of more than MAX_FRAME_BYTES; `parse` rejects it.

    `digest` is the BLAKE2b hash of the `received` bytes, in hexadecimal. For a frame that exceeds the limit
    only when decompressed, pass `decompressed`: its size in bytes, None if unknown.
    """
    return orjson.dumps({"$type": OVERSIZED_TYPE, "received": received, "blake2b": digest, **more})


def first_position(frames: Iterable[bytes], host: str) -> Position | None:
    """Return the position of the first valid event among `frames`; None if there is none."""
    for frame in frames:
        try:
            event = parse(frame)
        except BadFrame:
            continue
        return event_position(event, host)
    return None


def event_position(event: dict[str, Any], host: str) -> Position:
    """Return the position of an event in the stream of `host`."""
    return Position(host, cursor_of(event), event["time_us"])


def cursor_of(event: dict[str, Any]) -> int | None:
    """Return the host's sequence number of an event; None from older servers, which send none."""
    cursor = event.get("cursor")
    return cursor if type(cursor) is int and 0 <= cursor < FIRST_TIME_CURSOR else None


def uri_of(event: Mapping[str, Any]) -> str:
    """Return the AT URI of the record of a commit."""
    commit = event["commit"]
    return f"at://{event['did']}/{commit['collection']}/{commit['rkey']}"


def account_of(uri: str) -> str:
    """Return the DID in the URI of a record."""
    return uri.removeprefix("at://").split("/", 1)[0]


def parse_v2_time(text: str) -> int | None:
    """Return the Unix microseconds of the `time` of a v2 message, None if it is not a time.

    Servers write `2026-11-23T20:02:34.614449Z`. Many events share a second, so seconds are cached.
    """
    if len(text) == 27 and text[19] == "." and text[26] == "Z" and (rest := text[20:26]).isdecimal():
        second = _second_us(text[:19])
        return None if second is None else second + int(rest)
    return parse_time(text)


def _decode(frame: bytes) -> Any:
    is_large = len(frame) > _LARGE_FRAME_BYTES
    if is_large and (parts := sum(map(frame.count, (b",", b"[", b"{")))) > _MAX_PARTS:
        raise BadFrame(f"{len(frame):,} bytes with {parts:,} commas and brackets, more than {_MAX_PARTS:,}")
    try:
        return orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        if is_large:
            raise BadFrame(f"invalid JSON: {error}") from None
        return _parse_leniently(frame)


def _from_v2(message: dict[str, Any]) -> dict[str, Any]:
    """Return the event of a v2 message in the shape of v1. Its inner values are not checked yet."""
    if message["$type"] == OVERSIZED_TYPE:
        when = " when decompressed" if "decompressed" in message else ""
        raise BadFrame(f"more than {MAX_FRAME_BYTES:,} bytes{when}; only size and hash are kept")
    if message["$type"] == UNREADABLE_TYPE:
        raise BadFrame(f"the content of a row of the archive is invalid: {printable(message.get('reason'))}")
    payload = message.get("payload")
    if message["$type"] != "message" or type(payload) is not dict:
        raise BadFrame("message type is neither event nor notice")
    name, time = payload.get("$type"), payload.get("time")
    kind = _V2_KINDS.get(name) if type(name) is str else None
    if kind is None:
        raise BadFrame("unknown kind")
    time_us = parse_v2_time(time) if type(time) is str else None
    if time_us is None:
        raise BadFrame("time is not between the years 1970 and 9999")
    inner = payload.get(kind)
    if kind == "commit":
        # Written out for speed: this runs for every event.
        inner = {
            "rev": payload.get("rev"),
            "operation": payload.get("operation"),
            "collection": payload.get("collection"),
            "rkey": payload.get("rkey"),
        }
        if "record" in payload:
            inner["record"] = payload["record"]
        if "cid" in payload:
            inner["cid"] = payload["cid"]
    return {
        "did": payload.get("did"),
        "time_us": time_us,
        "cursor": payload.get("seq"),
        "kind": kind,
        kind: inner,
    }


@lru_cache(maxsize=256)
def _second_us(text: str) -> int | None:
    return parse_time(f"{text}Z")


def printable(text: Any) -> str:
    """Return text of a server in a form that is safe to log: printable, at most 300 characters.

    Anything but a string becomes an empty string: str() of a deeply nested value is a RecursionError.
    """
    return "".join(c if c.isprintable() else "?" for c in text[:300]) if type(text) is str else ""


def _check_commit(commit: Any) -> None:
    if type(commit) is not dict:
        raise BadFrame("commit event without a commit object")
    for name in ("rev", "collection", "rkey"):
        if type(commit.get(name)) is not str:
            raise BadFrame(f"commit.{name} is missing or not a string")
    if commit.get("operation") not in _OPERATIONS:
        raise BadFrame("commit.operation is not create, update or delete")


def _check_status(kind: str, status: Any) -> None:
    if type(status) is not dict or type(status.get("time")) is not str:
        raise BadFrame(f"{kind}.time is missing or not a string")
    if kind == "account" and type(status.get("active")) is not bool:
        raise BadFrame("account.active is missing or not a boolean")
    name = "handle" if kind == "identity" else "status"
    if not isinstance(status.get(name), str | None):
        raise BadFrame(f"{kind}.{name} is not a string")


def _check_sync(sync: Any) -> None:
    # Its time may be empty: a server that detects a broken chain itself creates a #sync without one.
    if type(sync) is not dict or type(sync.get("rev")) is not str:
        raise BadFrame("sync.rev is missing or not a string")


def _parse_leniently(frame: bytes) -> Any:
    """Parse with Python's parser, which accepts the lone surrogates and NaN that orjson rejects.

    Surrogates become U+FFFD and NaN becomes None, so that they do not cost the whole event.
    """
    try:
        return _replace_surrogates(json.loads(frame, parse_constant=lambda _: None))
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"invalid JSON: {error}") from None


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_surrogates(name): _replace_surrogates(item) for name, item in value.items()}
    return value
