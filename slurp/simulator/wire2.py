"""The v2 wire, `subscribeEvents`: parameters, frames made of what the store holds, errors. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from slurp.simulator.wire import BadRequest, Filter, cursor_of, filter_of, is_nsid, last, number

PATH = "/xrpc/network.bsky.jetstream.subscribeEvents"
DICTIONARY_PATH = "/xrpc/network.bsky.jetstream.getZstdDictionary"
KINDS = ("commit", "identity", "account", "sync")

_TYPE = "network.bsky.jetstream.subscribeEvents#"
_LEGACY = ("wantedCollections", "wantedDids", "requireHello", "compress")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Subscription:
    """A parsed query string. Raises BadRequest with a text for the client."""

    def __init__(self, params: Mapping[str, list[str]]) -> None:
        for name in _LEGACY:
            if name in params:
                raise BadRequest(f"{name} belongs to /subscribe (v1)")
        self.kinds = frozenset(params.get("kinds", ()))
        for kind in sorted(self.kinds - {*KINDS}):
            raise BadRequest(f"unknown kind {kind[:80]!r}")
        for name in params.get("collections", ()):
            # Stricter than v1: the head of a wildcard must be that of an NSID.
            if name.endswith(".*") and not is_nsid(f"{name[:-1]}x"):
                raise BadRequest(f"invalid collection wildcard: {name[:80]}")
        size, dictionary = last(params, "maxMessageSizeBytes"), last(params, "zstdDictionary")
        self.cursor = cursor_of(params)
        self.dictionary = number("zstdDictionary", dictionary) if dictionary else None
        self.filter: Filter = filter_of(
            params.get("collections", []),
            params.get("dids", []),
            number("maxMessageSizeBytes", size) if size else 0,
            names=("collections", "dids"),
        )
        if self.kinds and "commit" not in self.kinds and (self.filter.collections or self.filter.prefixes):
            raise BadRequest("the collections can never apply: kinds excludes commit")


def frame(event: Mapping[str, Any], seq: int) -> bytes:
    """A v2 frame of an event as the store holds it, keys in the order of a real server."""
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


def event_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round: what the store holds of a v2 message. Raises ValueError."""
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
        raise ValueError(f"not a message of the v2 wire: {error!r}") from error


def info(name: str, message: str) -> bytes:
    return _message({"$type": f"{_TYPE}info", "message": message, "name": name})


def error(name: str, message: str) -> bytes:
    """After this frame the stream ends."""
    return orjson.dumps({"$type": "error", "error": name, "message": message})


def refusal(name: str, message: str) -> str:
    """The body of a handshake's HTTP error."""
    return orjson.dumps({"error": name, "message": message}).decode()


def _message(payload: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"$type": "message", "payload": payload})


def _time(micros: int) -> str:
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
