"""The two wires of Jetstream: frames to checked events of one shape. Pure, no I/O.

Events stay plain dictionaries in the shape of the v1 wire; `parse` makes sure that everything this
program relies on is there with the right type. Unknown fields of the v1 wire are left alone. A
message of the v2 wire says what it is, so nobody need know where a frame comes from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from slurp.errors import describe_bug
from slurp.events.position import FIRST_TIME_CURSOR, Position
from slurp.events.times import MAX_TIME_US, parse_time

# What a frame may hold, and what is left of a larger one. A legal record of 1 MB can make a frame of 14 MB:
# `<` is written in six bytes, an empty byte string in fourteen. 32 MiB is the limit of the official client.
MAX_FRAME = 32 * 2**20
# Beyond this size a frame may have so many commas and opening brackets; objects take 30 times their JSON.
_LARGE = 4_000_000
_MAX_PARTS = 1_000_000
# A notice is a sentence.
_MAX_NOTICE = 65_536
STUB = "skeetslurper.stub"
DIGEST_SIZE = 16

_OPERATIONS = ("create", "update", "delete")
_V2 = "network.bsky.jetstream.subscribeEvents#"
_V2_KINDS = {f"{_V2}{kind}": kind for kind in ("commit", "identity", "account", "sync")}
# A server begins every commit with these bytes. One that orders its keys otherwise costs a second look.
_COMMIT_HEAD = f'{{"$type":"message","payload":{{"$type":"{_V2}commit",'.encode()


class BadFrame(ValueError):
    """A frame that is no event; its text says why. It goes to the dead-letter file."""


class Notice(NamedTuple):
    """What a v2 server says about the stream. After an error the stream is over."""

    name: str
    message: str
    is_error: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


def parse(frame: bytes) -> dict[str, Any]:
    """The event in a frame, checked. Raises BadFrame, whatever is wrong with it."""
    try:
        return _parse(frame)
    except (BadFrame, MemoryError):
        raise
    except Exception as error:
        # Reader and indexers parse: anything else would stop the worker at the same frame each time.
        raise BadFrame(f"can't be decoded, which is a bug: {describe_bug(error)}") from error


def _parse(frame: bytes) -> dict[str, Any]:
    decoded = _decode(frame)
    if type(decoded) is not dict:
        raise BadFrame("not a JSON object")
    event: dict[str, Any] = decoded
    if "$type" in event and "kind" not in event:
        event = _from_v2(event)
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
    elif kind == "sync":
        _check_sync(event.get("sync"))
    else:
        raise BadFrame("unknown kind")
    return event


def notice_of(frame: bytes) -> Notice | None:
    """What the server says in a v2 frame that is no event."""
    if len(frame) > _MAX_NOTICE:
        return None
    try:
        said = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    if type(said) is not dict:
        return None
    if said.get("$type") == "error" and type(name := said.get("error")) is str:
        return Notice(shown(name), shown(said.get("message")), is_error=True)
    payload = said.get("payload")
    if type(payload) is dict and payload.get("$type") == f"{_V2}info":
        return Notice(shown(payload.get("name")), shown(payload.get("message")), is_error=False)
    return None


def is_plain_commit(frame: bytes) -> bool:
    """Whether a v2 frame is a commit for certain; for half a percent of the price of parsing it."""
    return frame.startswith(_COMMIT_HEAD)


def stub(received: int, digest: str, **more: int | None) -> bytes:
    """What stands for a frame that is too large; `parse` refuses it.

    `digest` is the BLAKE2b hash of the `received` bytes, in hexadecimal. Of a frame that is too large
    only when it is decompressed, `decompressed` says what it would have been, None where that is not known.
    """
    return orjson.dumps({"$type": STUB, "received": received, "blake2b": digest, **more})


def position_of(frames: Iterable[bytes], host: str) -> Position | None:
    """The position of the first frame that has one."""
    for frame in frames:
        try:
            event = parse(frame)
        except BadFrame:
            continue
        return position_in(event, host)
    return None


def position_in(event: dict[str, Any], host: str) -> Position:
    return Position(host, cursor_of(event), event["time_us"])


def cursor_of(event: dict[str, Any]) -> int | None:
    """The host's sequence number; older servers send none."""
    cursor = event.get("cursor")
    return cursor if type(cursor) is int and 0 <= cursor < FIRST_TIME_CURSOR else None


def time_us_of(text: str) -> int | None:
    """Unix microseconds. A server writes `2026-11-23T20:02:34.614449Z`, many events within each second."""
    if len(text) == 27 and text[19] == "." and text[26] == "Z" and (rest := text[20:26]).isdecimal():
        second = _second(text[:19])
        return None if second is None else second + int(rest)
    return parse_time(text)


def _decode(frame: bytes) -> Any:
    is_large = len(frame) > _LARGE
    if is_large and (parts := sum(map(frame.count, (b",", b"[", b"{")))) > _MAX_PARTS:
        raise BadFrame(f"{len(frame):,} bytes with {parts:,} commas and brackets, more than {_MAX_PARTS:,}")
    try:
        return orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        if is_large:
            raise BadFrame(f"no JSON: {error}") from None
        return _parse_leniently(frame)


def _from_v2(message: dict[str, Any]) -> dict[str, Any]:
    """The event of a v2 message in the shape of v1; its inner values are not checked yet."""
    if message["$type"] == STUB:
        when = " when decompressed" if "decompressed" in message else ""
        raise BadFrame(f"more than {MAX_FRAME:,} bytes{when}; only size and hash are kept")
    payload = message.get("payload")
    if message["$type"] != "message" or type(payload) is not dict:
        raise BadFrame("a message of an unknown type")
    name, time = payload.get("$type"), payload.get("time")
    kind = _V2_KINDS.get(name) if type(name) is str else None
    if kind is None:
        raise BadFrame("unknown kind")
    time_us = time_us_of(time) if type(time) is str else None
    if time_us is None:
        raise BadFrame("no time between the years 1970 and 9999")
    inner = payload.get(kind)
    if kind == "commit":
        # Spelt out, as this runs for every event.
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
def _second(text: str) -> int | None:
    return parse_time(f"{text}Z")


def shown(text: Any) -> str:
    """Return text of a server as it may stand in a line of the log: printable, 300 characters at most."""
    # Not str(): of anything nested deeply that is a RecursionError.
    return "".join(c if c.isprintable() else "?" for c in text[:300]) if type(text) is str else ""


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


def _check_sync(sync: Any) -> None:
    # Its time may be empty: a server that finds a broken chain by itself makes one up without it.
    if type(sync) is not dict or type(sync.get("rev")) is not str:
        raise BadFrame("a sync event without sync.rev")


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
