"""Timestamp imports: an operator changes the time of some commits to an earlier one.

A replay of commits already stored shows the new time; later updates of the same record have it from the
start. Only commits whose rev agrees with their time are changed: otherwise the time alone chooses the day
index, and changing it would change the identity of the event.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import orjson

from slurp.events import tid

_NEAR_US = 3_600_000_000
_DAY_US = 86_400_000_000
# How far an import moves the time: more than the day by which rev and time may differ, and far beyond a
# retention.
_FROM_US, _TO_US = 2 * _DAY_US, 90 * _DAY_US

RecordKey = tuple[str, str, str]
"""DID, collection and rkey of a record."""


class TimestampImports:
    """The records whose time was changed, and by how many microseconds."""

    def __init__(self) -> None:
        self._offsets_us: dict[RecordKey, int] = {}

    def __len__(self) -> int:
        return len(self._offsets_us)

    def rewrite(self, frame: bytes, rng: random.Random, share: float) -> bytes:
        """Return a stored frame, with an earlier time for a `share` of them. Draws twice per frame."""
        drawn = rng.random() < share
        by_us = rng.randrange(_FROM_US, _TO_US)
        if not drawn or (key := _key(event := _loads(frame))) is None:
            return frame
        return _earlier(frame, event, self._offsets_us.setdefault(key, by_us))

    def apply(self, frame: bytes) -> bytes:
        """Return a new frame, with an earlier time when it updates a record whose time was changed."""
        if not self._offsets_us:
            return frame
        event = _loads(frame)
        key = _key(event)
        if key is None or key not in self._offsets_us or event["commit"]["operation"] != "update":
            return frame
        return _earlier(frame, event, self._offsets_us[key])


def _loads(frame: bytes) -> dict[str, Any]:
    """Return the event in a frame; an empty dictionary when there is none."""
    try:
        event = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def _key(event: Mapping[str, Any]) -> RecordKey | None:
    """Return the record of a commit whose time an import may change; None for other events."""
    if event.get("kind") != "commit":
        return None
    try:
        commit = event["commit"]
        micros = tid.to_micros(str(commit.get("rev")))
        if micros is None or abs(micros - event["time_us"]) > _NEAR_US:
            return None
        return event["did"], commit["collection"], commit["rkey"]
    except (KeyError, TypeError, AttributeError):
        return None  # a line of a file that is not an event


def _earlier(frame: bytes, event: Mapping[str, Any], by_us: int) -> bytes:
    """Replace the time, keeping all other bytes. The envelope precedes the record."""
    time_us = event["time_us"]
    return frame.replace(b'"time_us":%d' % time_us, b'"time_us":%d' % (time_us - by_us), 1)
