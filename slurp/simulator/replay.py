"""Events from elsewhere: dictionaries of tests, lines of a .jsonl file, moved in time if asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from slurp import tid
from slurp.simulator.store import Entry
from slurp.simulator.wire import event_key

_TIMES = ("createdAt", "time")


def read_entry(frame: bytes, arrived_us: int) -> Entry:
    """A ready frame, kept byte for byte. Raises ValueError when it is no event."""
    event = orjson.loads(frame)
    did, collection, time_us = event_key(event)
    cursor = event.get("cursor")
    if cursor is not None and not isinstance(cursor, int):
        raise ValueError(f"cursor {cursor!r} is no integer")
    return Entry(frame, did, collection, time_us, cursor, arrived_us)


def complete(event: Mapping[str, Any], time_us: int, cursor: int | None) -> Entry:
    """An event of a test, with the time and cursor it does not say itself."""
    envelope: dict[str, Any] = {"did": event.get("did"), "time_us": event.get("time_us", time_us)}
    if "cursor" in event:
        cursor = event["cursor"]
    if cursor is not None:
        envelope["cursor"] = cursor
    envelope |= {key: value for key, value in event.items() if key not in ("did", "time_us", "cursor")}
    return read_entry(orjson.dumps(envelope), time_us)


def read_lines(path: Path) -> Iterator[bytes]:
    """The events of a .jsonl file as they stand, blank lines left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            frame = line.rstrip(b"\r\n")
            if not frame:
                continue
            try:
                event_key(orjson.loads(frame))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            yield frame


def time_of(frame: bytes) -> int:
    return event_key(orjson.loads(frame))[2]


def last_time(path: Path) -> int:
    """The highest time_us of a file."""
    return max((time_of(frame) for frame in read_lines(path)), default=0)


def moved(frame: bytes, by_us: int) -> bytes:
    """The event as if it had happened `by_us` later: time_us, rev, createdAt and inner times."""
    event = orjson.loads(frame)
    event["time_us"] += by_us
    commit = event.get("commit")
    if isinstance(commit, dict):
        if (micros := tid.to_micros(str(commit.get("rev")))) is not None:
            clock = tid.ALPHABET.index(commit["rev"][11]) << 5 | tid.ALPHABET.index(commit["rev"][12])
            commit["rev"] = tid.from_micros(micros + by_us, clock)
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
