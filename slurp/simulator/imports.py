"""Timestamp imports: an operator rewrites the display time of some commits to an earlier one.

Commits already stored show it when they are read again, and later updates of the same record show it from the
start. A rewritten commit has a sound rev: of a commit whose rev is far from its time the time is all that
chooses a day, and a server that rewrites that changes what the event is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import orjson

from slurp.events import tid

_NEAR_US = 3_600_000_000
_DAY_US = 86_400_000_000
# How far an import goes back: more than the day that a rev may be apart from the time, or than a retention.
_FROM_US, _TO_US = 2 * _DAY_US, 90 * _DAY_US

Key = tuple[str, str, str]
"""DID, collection and rkey of a record."""


class Imports:
    """The records whose time was rewritten, and by how many microseconds."""

    def __init__(self) -> None:
        self._moved: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._moved)

    def rewritten(self, frame: bytes, dice: random.Random, share: float) -> bytes:
        """Return a stored frame with an earlier time where the dice, one throw a frame, say so."""
        drawn = dice.random() < share
        by_us = dice.randrange(_FROM_US, _TO_US)
        if not drawn or (key := _key(event := _loads(frame))) is None:
            return frame
        return _earlier(frame, event, self._moved.setdefault(key, by_us))

    def applied(self, frame: bytes) -> bytes:
        """Return a new frame, with an earlier time when it updates a record that was imported."""
        if not self._moved:
            return frame
        event = _loads(frame)
        key = _key(event)
        if key is None or key not in self._moved or event["commit"]["operation"] != "update":
            return frame
        return _earlier(frame, event, self._moved[key])


def _loads(frame: bytes) -> dict[str, Any]:
    """The event in a frame; an empty one where there is none."""
    try:
        event = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def _key(event: Mapping[str, Any]) -> Key | None:
    """The record of a commit whose time an import may rewrite; None for other events."""
    if event.get("kind") != "commit":
        return None
    try:
        commit = event["commit"]
        micros = tid.to_micros(str(commit.get("rev")))
        if micros is None or abs(micros - event["time_us"]) > _NEAR_US:
            return None
        return event["did"], commit["collection"], commit["rkey"]
    except (KeyError, TypeError, AttributeError):
        return None  # of a file, and no event


def _earlier(frame: bytes, event: Mapping[str, Any], by_us: int) -> bytes:
    """All other bytes are kept. The envelope comes before the record."""
    time_us = event["time_us"]
    return frame.replace(b'"time_us":%d' % time_us, b'"time_us":%d' % (time_us - by_us), 1)
