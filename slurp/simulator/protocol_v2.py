"""The v2 protocol, `subscribeEvents`: parameters, frames built from stored events, errors. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from slurp.simulator.filters import (
    BadRequest,
    Filter,
    is_nsid,
    last_value,
    make_filter,
    parse_cursor,
    parse_number,
)

PATH = "/xrpc/network.bsky.jetstream.subscribeEvents"
DICTIONARY_PATH = "/xrpc/network.bsky.jetstream.getZstdDictionary"
KINDS = ("commit", "identity", "account", "sync")

_TYPE = "network.bsky.jetstream.subscribeEvents#"
_V1_ONLY = ("wantedCollections", "wantedDids", "requireHello", "compress")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Subscription:
    """A parsed query string. Raises BadRequest."""

    def __init__(self, params: Mapping[str, list[str]]) -> None:
        for name in _V1_ONLY:
            if name in params:
                raise BadRequest(f"{name} belongs to /subscribe (v1)")
        self.kinds = frozenset(params.get("kinds", ()))
        for kind in sorted(self.kinds - {*KINDS}):
            raise BadRequest(f"unknown kind {kind[:80]!r}")
        for name in params.get("collections", ()):
            # Stricter than v1: the part before the wildcard must be the start of an NSID.
            if name.endswith(".*") and not is_nsid(f"{name[:-1]}x"):
                raise BadRequest(f"invalid collection wildcard: {name[:80]}")
        size, dictionary = last_value(params, "maxMessageSizeBytes"), last_value(params, "zstdDictionary")
        self.cursor = parse_cursor(params)
        self.dictionary = parse_number("zstdDictionary", dictionary) if dictionary else None
        self.filter: Filter = make_filter(
            params.get("collections", []),
            params.get("dids", []),
            parse_number("maxMessageSizeBytes", size) if size else 0,
            names=("collections", "dids"),
        )
        if self.kinds and "commit" not in self.kinds and (self.filter.collections or self.filter.prefixes):
            raise BadRequest("the collections can never apply: kinds excludes commit")


def frame(event: Mapping[str, Any], seq: int) -> bytes:
    """Return the v2 frame of a stored event, with its keys in the order of a real server."""
    did, kind = event["did"], event["kind"]
    body, time = event[kind], _time(event["time_us"])
    payload: dict[str, Any] = {"$type": f"{_TYPE}{kind}"}
    if kind == "commit":
        if "cid" in body:
            payload["cid"] = body["cid"]
        payload |= {"collection": body["collection"], "did": did, "operation": body["operation"]}
        if "record" in body:
            payload["record"] = body["record"]
        payload |= {"rev": body["rev"], "rkey": body["rkey"]}
    elif kind == "account":
        payload |= {"account": body, "did": did}
    elif kind == "sync":
        return _message(payload | {"did": did, "seq": seq, "sync": body, "time": time})
    else:
        payload |= {"did": did, kind: body}
    return _message(payload | {"seq": seq, "time": time})


def to_v1_event(message: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a v2 message to the v1 event that is stored. Raises ValueError."""
    try:
        payload = message["payload"]
        kind = payload["$type"].removeprefix(_TYPE)
        time_us = (datetime.fromisoformat(payload["time"]) - _EPOCH) // timedelta(microseconds=1)
        order = ("rev", "operation", "collection", "rkey", "record", "cid")
        body = {name: payload[name] for name in order if name in payload}
        return {
            "did": payload["did"],
            "time_us": time_us,
            "cursor": payload["seq"],
            "kind": kind,
            kind: body if kind == "commit" else payload[kind],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a message of the v2 protocol: {error!r}") from error


def info(name: str, message: str) -> bytes:
    """Return an #info frame."""
    return _message({"$type": f"{_TYPE}info", "message": message, "name": name})


def error(name: str, message: str) -> bytes:
    """Return an error frame; the server closes the stream after it."""
    return orjson.dumps({"$type": "error", "error": name, "message": message})


def error_body(name: str, message: str) -> str:
    """Return the JSON body of an HTTP error response to the handshake."""
    return orjson.dumps({"error": name, "message": message}).decode()


def _message(payload: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"$type": "message", "payload": payload})


def _time(micros: int) -> str:
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
