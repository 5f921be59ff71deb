"""Events from elsewhere: dictionaries of tests, lines of a .jsonl file, moved in time if asked."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from slurp.events import tid
from slurp.simulator import wire2
from slurp.simulator.store import Entry
from slurp.simulator.wire import event_key

log = logging.getLogger(__name__)

_TIMES = ("createdAt", "time")
# What decoding and looking into a frame of any content raises.
_NO_EVENT = (ValueError, KeyError, TypeError, AttributeError)
_INT64 = range(2**63)


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


def read_line(frame: bytes, arrived_us: int, resyncs: Resyncs) -> Entry:
    """A ready frame of a file: one that is no event is sent as well, as it is, to whoever takes all DIDs."""
    try:
        entry = read_entry(frame, arrived_us, resyncs)
        if entry.time_us in _INT64 and (entry.cursor is None or entry.cursor in _INT64):
            return entry
    except _NO_EVENT:
        pass
    # It moves no time: cursors reach it by its neighbors.
    return Entry(frame, "", "", 0, None, arrived_us)


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
    """The lines of a .jsonl file as they stand, blank ones left out. The first that is no event is logged."""
    told = False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            frame = line.rstrip(b"\r\n")
            if not frame:
                continue
            if not told and _loads(frame) is None:
                told = True
                log.warning("%s:%d is not an event; it and others like it are sent as they are", path, number)
            yield frame


def _loads(frame: bytes) -> dict[str, Any] | None:
    """The event in a frame of either wire; None where there is none."""
    try:
        event = orjson.loads(frame)
        if isinstance(event, dict) and "payload" in event:
            event = wire2.event_of(event)
        _, _, time_us = event_key(event)
        return dict(event) if time_us in _INT64 else None
    except _NO_EVENT:
        return None


def last_time(path: Path) -> int:
    """The highest time_us of a file."""
    events = (event for frame in read_lines(path) if (event := _loads(frame)) is not None)
    return max((event["time_us"] for event in events), default=0)


def moved(frame: bytes, by_us: int) -> bytes:
    """The event as if it had happened `by_us` later: time_us, rev, createdAt and inner times."""
    if (event := _loads(frame)) is None:
        return frame
    return _moved(event, by_us)


def moved_to(frame: bytes, now_us: int) -> bytes:
    """The event as if it happened now."""
    if (event := _loads(frame)) is None:
        return frame
    return _moved(event, now_us - event["time_us"])


def _moved(event: dict[str, Any], by_us: int) -> bytes:
    event["time_us"] += by_us
    for body in (event.get("commit"), event.get("sync")):
        if isinstance(body, dict) and (micros := tid.to_micros(str(body.get("rev")))) is not None:
            clock = tid.ALPHABET.index(body["rev"][11]) << 5 | tid.ALPHABET.index(body["rev"][12])
            body["rev"] = tid.from_micros(micros + by_us, clock)
    if isinstance(commit := event.get("commit"), dict):
        _move_times(commit.get("record"), by_us)
    _move_times(event.get(str(event["kind"])), by_us)
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
