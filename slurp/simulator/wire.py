"""The v1 wire of `GET /subscribe`: what a client may ask for, and frames as bytes. No I/O.

Filters and frames serve the v2 wire as well: `slurp.simulator.wire2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

PATH = "/subscribe"
FIRST_TIME_CURSOR = 10**15
"""A cursor from here on is Unix µs (September 2001), below it a sequence number."""
MAX_COLLECTIONS = 100
MAX_DIDS = 10_000

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_PREFIX = re.compile(rf"[a-zA-Z](?:[a-zA-Z0-9-]{{0,61}}[a-zA-Z0-9])?(?:\.{_LABEL})*\.\*").fullmatch
_NSID = re.compile(
    rf"[a-zA-Z](?:[a-zA-Z0-9-]{{0,61}}[a-zA-Z0-9])?(?:\.{_LABEL})+\.[a-zA-Z][a-zA-Z0-9]{{0,62}}"
).fullmatch
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]").fullmatch
_DIGITS = re.compile(r"[0-9]{1,19}").fullmatch
_MAX_INT64 = 2**63 - 1


class BadRequest(ValueError):
    """What the client asked for is wrong; the text is meant for it."""


class BadUpdate(ValueError):
    """An options_update that ends the connection with `code`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Filter:
    """Which events a subscriber wants. An empty set wants everything."""

    collections: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    dids: frozenset[str] = frozenset()
    max_size: int = 0

    @property
    def everything(self) -> bool:
        return not (self.collections or self.prefixes or self.dids or self.max_size)

    def wants(self, collection: str, did: str, size: int) -> bool:
        """Whether an event passes; `collection` is empty for identity and account events."""
        if self.max_size and size > self.max_size:
            return False
        if self.dids and did not in self.dids:
            return False
        if not collection or not (self.collections or self.prefixes):
            return True
        return collection in self.collections or collection.startswith(self.prefixes)


@dataclass(frozen=True)
class Subscription:
    """A parsed query string."""

    cursor: int | None = None
    filter: Filter = Filter()
    require_hello: bool = False


def parse_target(target: str) -> tuple[str, dict[str, list[str]]]:
    """Path and parameters of a request target."""
    parts = urlsplit(target)
    return parts.path, parse_qs(parts.query, keep_blank_values=True)


def parse_subscription(params: Mapping[str, list[str]]) -> Subscription:
    """Raises BadRequest with a text for the client."""
    if _boolean(params, "compress"):
        raise BadRequest("compress=true is not supported by the simulator: it has no zstd dictionary")
    size = last(params, "maxMessageSizeBytes")
    return Subscription(
        cursor=cursor_of(params),
        filter=filter_of(
            params.get("wantedCollections", []),
            params.get("wantedDids", []),
            number("maxMessageSizeBytes", size) if size else 0,
        ),
        require_hello=_boolean(params, "requireHello"),
    )


def parse_update(message: bytes) -> Filter:
    """The filter of an options_update, which replaces the one before as a whole."""
    try:
        update = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise BadUpdate(1007, f"not JSON: {error}") from error
    if not isinstance(update, dict) or update.get("type") != "options_update":
        raise BadUpdate(1007, "expected a message of type options_update")
    payload = update.get("payload")
    if not isinstance(payload, dict):
        raise BadUpdate(1007, "options_update needs a payload")
    try:
        size = payload.get("maxMessageSizeBytes") or 0
        return filter_of(
            _strings(payload, "wantedCollections"),
            _strings(payload, "wantedDids"),
            number("maxMessageSizeBytes", str(size)),
        )
    except BadRequest as error:
        raise BadUpdate(1008, str(error)) from error


def text_head(size: int) -> bytes:
    """The first bytes of an unmasked WebSocket text frame with `size` bytes of payload."""
    return _head(0x81, size)


def _head(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return bytes((first, 0x7E)) + size.to_bytes(2, "big")
    return bytes((first, 0x7F)) + size.to_bytes(8, "big")


# Nearly all frames are this short; a list index is a fifth of the cost of the call.
_HEADS = [_head(0x81, size) for size in range(4096)]
_BINARY_HEADS = [_head(0x82, size) for size in range(4096)]


def text_frames(payloads: Iterable[bytes]) -> bytes:
    """All payloads as WebSocket text frames in one piece, ready to be sent."""
    return _frames(payloads, 0x81, _HEADS)


def binary_frames(payloads: Iterable[bytes]) -> bytes:
    """The same as binary frames."""
    return _frames(payloads, 0x82, _BINARY_HEADS)


def _frames(payloads: Iterable[bytes], first: int, heads: list[bytes]) -> bytes:
    parts: list[bytes] = []
    add = parts.append
    for payload in payloads:
        size = len(payload)
        add(heads[size] if size < 4096 else _head(first, size))
        add(payload)
    return b"".join(parts)


def event_key(event: Mapping[str, Any]) -> tuple[str, str, int]:
    """DID, collection (empty when it is no commit) and time_us; raises ValueError for no event."""
    try:
        did, time_us = event["did"], event["time_us"]
        collection = event["commit"]["collection"] if event["kind"] == "commit" else ""
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a Jetstream event, {error} is missing") from error
    if not (isinstance(did, str) and isinstance(time_us, int) and isinstance(collection, str)):
        raise ValueError("not a Jetstream event: did, time_us or collection has the wrong type")
    return did, collection, time_us


def with_cursor(frame: bytes, old: int, new: int) -> bytes:
    """`frame` with another cursor, all other bytes kept. The envelope comes before the record."""
    return frame.replace(b'"cursor":%d' % old, b'"cursor":%d' % new, 1)


def is_nsid(name: str) -> bool:
    return _NSID(name) is not None


def cursor_of(params: Mapping[str, list[str]]) -> int | None:
    text = last(params, "cursor")
    return None if text is None or text == "" else number("cursor", text)


def number(name: str, text: str) -> int:
    """Raises BadRequest."""
    if _DIGITS(text) is None or int(text) > _MAX_INT64:
        raise BadRequest(f"{name}: {text[:80]!r} is no non-negative integer")
    return int(text)


def _boolean(params: Mapping[str, list[str]], name: str) -> bool:
    text = (last(params, name) or "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise BadRequest(f"{name}: {text[:80]!r} is neither true nor false")
    return text in ("true", "1")


def last(params: Mapping[str, list[str]], name: str) -> str | None:
    values = params.get(name)
    return values[-1] if values else None


def _strings(payload: Mapping[str, Any], name: str) -> list[str]:
    values = payload.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadRequest(f"{name} is no list of strings")
    return values


def filter_of(
    collections: list[str],
    dids: list[str],
    max_size: int,
    names: tuple[str, str] = ("wantedCollections", "wantedDids"),
) -> Filter:
    """Raises BadRequest."""
    if len(collections) > MAX_COLLECTIONS:
        raise BadRequest(f"{names[0]}: {len(collections)} are more than {MAX_COLLECTIONS}")
    if len(dids) > MAX_DIDS:
        raise BadRequest(f"{names[1]}: {len(dids)} are more than {MAX_DIDS}")
    for name in collections:
        if not is_nsid(name) and _PREFIX(name) is None:
            raise BadRequest(f"{names[0]}: {name[:80]!r} is neither an NSID nor a prefix like a.b.*")
    for did in dids:
        if _DID(did) is None:
            raise BadRequest(f"{names[1]}: {did[:80]!r} is no DID")
    return Filter(
        collections=frozenset(name for name in collections if not name.endswith("*")),
        prefixes=tuple(sorted({name[:-1] for name in collections if name.endswith("*")})),
        dids=frozenset(dids),
        max_size=max_size,
    )
