"""Events from tests and .jsonl files, optionally shifted in time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from slurp.events import tid
from slurp.simulator import protocol_v2
from slurp.simulator.event_store import StoredEvent
from slurp.simulator.protocol_v1 import parse_envelope

log = logging.getLogger(__name__)

_TIMES = ("createdAt", "time")
# Exceptions of decoding a frame with arbitrary content.
_DECODE_ERRORS = (ValueError, KeyError, TypeError, AttributeError)
_INT64 = range(2**63)


Resyncs = set[tuple[str, str]]
"""DID and rev of the #syncs so far: creates with both are sent by the v2 protocol only."""


def from_frame(frame: bytes, arrived_us: int, resyncs: Resyncs) -> StoredEvent:
    """Return the event in a frame of either protocol; v1 frames are kept byte for byte. Raises ValueError."""
    event = orjson.loads(frame)
    if isinstance(event, dict) and "payload" in event:
        event = protocol_v2.to_v1_event(event)
        frame = orjson.dumps(event)
    did, collection, time_us = parse_envelope(event)
    cursor = event.get("cursor")
    if cursor is not None and not isinstance(cursor, int):
        raise ValueError(f"cursor {cursor!r} is not an integer")
    return StoredEvent(frame, did, collection, time_us, cursor, arrived_us, _is_hidden(event, resyncs))


def from_line(frame: bytes, arrived_us: int, resyncs: Resyncs) -> StoredEvent:
    """Return a line of a file as an event; other content is sent to subscribers without DIDs."""
    try:
        event = from_frame(frame, arrived_us, resyncs)
        if event.time_us in _INT64 and (event.cursor is None or event.cursor in _INT64):
            return event
    except _DECODE_ERRORS:
        pass
    # Time 0 does not change the highest time: cursors find it by its neighbors.
    return StoredEvent(frame, "", "", 0, None, arrived_us)


def _is_hidden(event: Mapping[str, Any], resyncs: Resyncs) -> bool:
    if event["kind"] == "sync":
        resyncs.add((event["did"], event["sync"]["rev"]))
        return True
    commit = event.get("commit") or {}
    return commit.get("operation") == "create" and (event["did"], commit.get("rev")) in resyncs


def from_dict(event: Mapping[str, Any], time_us: int, cursor: int | None, resyncs: Resyncs) -> StoredEvent:
    """Return an event from a dictionary, with this time and cursor unless it has its own."""
    envelope: dict[str, Any] = {"did": event.get("did"), "time_us": event.get("time_us", time_us)}
    if "cursor" in event:
        cursor = event["cursor"]
    if cursor is not None:
        envelope["cursor"] = cursor
    envelope |= {key: value for key, value in event.items() if key not in ("did", "time_us", "cursor")}
    return from_frame(orjson.dumps(envelope), time_us, resyncs)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a .jsonl file, without blank lines. The first that is not an event is logged."""
    logged = False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            frame = line.rstrip(b"\r\n")
            if not frame:
                continue
            if not logged and _loads(frame) is None:
                logged = True
                log.warning("%s:%d is not an event; it and other such lines are sent unchanged", path, number)
            yield frame


def _loads(frame: bytes) -> dict[str, Any] | None:
    """Return the event in a frame of either protocol; None when there is none."""
    try:
        event = orjson.loads(frame)
        if isinstance(event, dict) and "payload" in event:
            event = protocol_v2.to_v1_event(event)
        _, _, time_us = parse_envelope(event)
        return dict(event) if time_us in _INT64 else None
    except _DECODE_ERRORS:
        return None


def last_time(path: Path) -> int:
    """Return the highest time_us of a file; 0 without events."""
    events = (event for frame in read_lines(path) if (event := _loads(frame)) is not None)
    return max((event["time_us"] for event in events), default=0)


def shift(frame: bytes, by_us: int) -> bytes:
    """Shift an event by `by_us`: time_us, rev, createdAt and inner times."""
    if (event := _loads(frame)) is None:
        return frame
    return _shift(event, by_us)


def shift_to(frame: bytes, now_us: int) -> bytes:
    """Shift an event so that it happens at `now_us`."""
    if (event := _loads(frame)) is None:
        return frame
    return _shift(event, now_us - event["time_us"])


def _shift(event: dict[str, Any], by_us: int) -> bytes:
    event["time_us"] += by_us
    for body in (event.get("commit"), event.get("sync")):
        if isinstance(body, dict) and (micros := tid.to_micros(str(body.get("rev")))) is not None:
            clock = tid.ALPHABET.index(body["rev"][11]) << 5 | tid.ALPHABET.index(body["rev"][12])
            body["rev"] = tid.from_micros(micros + by_us, clock)
    if isinstance(commit := event.get("commit"), dict):
        _shift_times(commit.get("record"), by_us)
    _shift_times(event.get(str(event["kind"])), by_us)
    return orjson.dumps(event)


def _shift_times(body: object, by_us: int) -> None:
    if not isinstance(body, dict):
        return
    for name in _TIMES:
        if isinstance(text := body.get(name), str) and (later := _shift_text(text, by_us)) is not None:
            body[name] = later


def _shift_text(text: str, by_us: int) -> str | None:
    """Return the shifted time; None for other text, which users may write into createdAt."""
    try:
        when = datetime.fromisoformat(text)
        # A time without an offset is ambiguous; UTC is the usual assumption.
        when = when.replace(tzinfo=when.tzinfo or UTC) + timedelta(microseconds=by_us)
        return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None
