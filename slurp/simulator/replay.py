"""Events from elsewhere: dictionaries of tests, lines of a .jsonl file, moved in time if asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from slurp import tid
from slurp.simulator import wire2
from slurp.simulator.store import Entry
from slurp.simulator.wire import event_key

_TIMES = ("createdAt", "time")


Resyncs = set[tuple[str, str]]
"""DID and rev of the #syncs so far: creates with both are shown by the v2 wire alone."""


def read_entry(frame: bytes, arrived_us: int, resyncs: Resyncs) -> Entry:
    """A ready frame, kept byte for byte if it is one of v1. Raises ValueError when it is no event."""
    event = orjson.loads(frame)
    if isinstance(event, dict) and "payload" in event:
        event = wire2.event_of(event)
        frame = orjson.dumps(event)
    did, collection, time_us = event_key(event)
    cursor = event.get("cursor")
    if cursor is not None and not isinstance(cursor, int):
        raise ValueError(f"cursor {cursor!r} is no integer")
    return Entry(frame, did, collection, time_us, cursor, arrived_us, _is_hidden(event, resyncs))


def _is_hidden(event: Mapping[str, Any], resyncs: Resyncs) -> bool:
    if event["kind"] == "sync":
        resyncs.add((event["did"], event["sync"]["rev"]))
        return True
    commit = event.get("commit") or {}
    return commit.get("operation") == "create" and (event["did"], commit.get("rev")) in resyncs


def complete(event: Mapping[str, Any], time_us: int, cursor: int | None, resyncs: Resyncs) -> Entry:
    """An event of a test, with the time and cursor it does not say itself."""
    envelope: dict[str, Any] = {"did": event.get("did"), "time_us": event.get("time_us", time_us)}
    if "cursor" in event:
        cursor = event["cursor"]
    if cursor is not None:
        envelope["cursor"] = cursor
    envelope |= {key: value for key, value in event.items() if key not in ("did", "time_us", "cursor")}
    return read_entry(orjson.dumps(envelope), time_us, resyncs)


def read_lines(path: Path) -> Iterator[bytes]:
    """The events of a .jsonl file as they stand, blank lines left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            frame = line.rstrip(b"\r\n")
            if not frame:
                continue
            try:
                _loads(frame)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            yield frame


def time_of(frame: bytes) -> int:
    return event_key(_loads(frame))[2]


def _loads(frame: bytes) -> dict[str, Any]:
    """The event in a frame of either wire. Raises ValueError."""
    event = orjson.loads(frame)
    if isinstance(event, dict) and "payload" in event:
        event = wire2.event_of(event)
    event_key(event)
    return dict(event)


def last_time(path: Path) -> int:
    """The highest time_us of a file."""
    return max((time_of(frame) for frame in read_lines(path)), default=0)


def moved(frame: bytes, by_us: int) -> bytes:
    """The event as if it had happened `by_us` later: time_us, rev, createdAt and inner times."""
    event = _loads(frame)
    event["time_us"] += by_us
    for body in (event.get("commit"), event.get("sync")):
        if isinstance(body, dict) and (micros := tid.to_micros(str(body.get("rev")))) is not None:
            clock = tid.ALPHABET.index(body["rev"][11]) << 5 | tid.ALPHABET.index(body["rev"][12])
            body["rev"] = tid.from_micros(micros + by_us, clock)
    if isinstance(commit := event.get("commit"), dict):
        _move_times(commit.get("record"), by_us)
    _move_times(event.get(event["kind"]), by_us)
    return orjson.dumps(event)


def _move_times(body: object, by_us: int) -> None:
    if not isinstance(body, dict):
        return
    for name in _TIMES:
        if isinstance(text := body.get(name), str) and (later := _later(text, by_us)) is not None:
            body[name] = later


def _later(text: str, by_us: int) -> str | None:
    """None for what is no time: people write anything into createdAt, and it stays."""
    try:
        when = datetime.fromisoformat(text)
        # Without an offset it means nothing certain; UTC is what everybody else assumes too.
        when = when.replace(tzinfo=when.tzinfo or UTC) + timedelta(microseconds=by_us)
        return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None
