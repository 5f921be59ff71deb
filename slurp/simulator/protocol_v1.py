"""The v1 protocol, `GET /subscribe`: parameters, options updates, and the event JSON. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from slurp.simulator.filters import (
    BadRequest,
    Filter,
    last_value,
    make_filter,
    parse_boolean,
    parse_cursor,
    parse_number,
)

PATH = "/subscribe"


class BadUpdate(ValueError):
    """An invalid options_update, for which the server closes the connection with `code`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Subscription:
    """A parsed query string."""

    cursor: int | None = None
    filter: Filter = field(default_factory=Filter)
    require_hello: bool = False


def parse_target(target: str) -> tuple[str, dict[str, list[str]]]:
    """Return path and query parameters of a request target."""
    parts = urlsplit(target)
    return parts.path, parse_qs(parts.query, keep_blank_values=True)


def parse_subscription(params: Mapping[str, list[str]]) -> Subscription:
    """Parse the query parameters of a subscription. Raises BadRequest."""
    if parse_boolean(params, "compress"):
        raise BadRequest("compress=true is not supported by the simulator: it has no zstd dictionary")
    size = last_value(params, "maxMessageSizeBytes")
    return Subscription(
        cursor=parse_cursor(params),
        filter=make_filter(
            params.get("wantedCollections", []),
            params.get("wantedDids", []),
            parse_number("maxMessageSizeBytes", size) if size else 0,
        ),
        require_hello=parse_boolean(params, "requireHello"),
    )


def parse_update(message: bytes) -> Filter:
    """Return the filter of an options_update; it replaces the previous one completely. Raises BadUpdate."""
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
        return make_filter(
            _strings(payload, "wantedCollections"),
            _strings(payload, "wantedDids"),
            parse_number("maxMessageSizeBytes", str(size)),
        )
    except BadRequest as error:
        raise BadUpdate(1008, str(error)) from error


def parse_envelope(event: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return DID, collection (empty unless a commit) and time_us. Raises ValueError for other JSON."""
    try:
        did, time_us = event["did"], event["time_us"]
        collection = event["commit"]["collection"] if event["kind"] == "commit" else ""
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a Jetstream event, {error} is missing") from error
    if not (isinstance(did, str) and isinstance(time_us, int) and isinstance(collection, str)):
        raise ValueError("not a Jetstream event: did, time_us or collection has the wrong type")
    return did, collection, time_us


def with_cursor(frame: bytes, old: int, new: int) -> bytes:
    """Replace the cursor of a frame, keeping all other bytes. The envelope precedes the record."""
    return frame.replace(b'"cursor":%d' % old, b'"cursor":%d' % new, 1)


def _strings(payload: Mapping[str, Any], name: str) -> list[str]:
    values = payload.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadRequest(f"{name} is not a list of strings")
    return values
