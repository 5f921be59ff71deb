"""Recognize a freshly set-up server, which announces the records of the whole network as new creates.

Such a create carries the head revision of its repository and the time of the announcement. No single one
can be told from a live create: up to 95% of live creates look the same by one rule or another. So the
stream is judged first, from a sample of it, and single creates only while that judgment holds.

A stream is a bootstrap when it holds hardly anything but creates and most of the creates of its last
10,000 events match a row rule, in several repositories:

- the rev is more than a day older than the server's time,
- the rkey is a TID more than a day older than the rev,
- at least ten creates in a row have the same DID and rev.

Live streams always have deletes, updates, identity and account events: 7 to 18%. That also keeps apart a
server that was down for days and catches up, whose revs are old as well.

The reader looks through the frames, as it alone sees them in order; see `slurp.jetstream.resyncs`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slurp.events import tid
from slurp.events.frames import BadFrame, cursor_of, parse
from slurp.events.times import DAY_US

log = logging.getLogger(__name__)

# One event of so many is looked at, which costs the reader half a microsecond an event.
_STRIDE = 16
_WINDOW = 10_000 // _STRIDE
# Before so many events were looked at, nothing is judged; the end is judged by the last ones alone.
_LEAST = 2_000 // _STRIDE
_RECENT = 1_000 // _STRIDE

_MOST = 0.5
_OTHERS_AT_BEGIN = 0.02
_OTHERS_AT_END = 0.05
# One account that imports its old records is no bootstrap.
_LEAST_DIDS = 5

_MANY_ROWS = 10

# There are no TIDs before November 2022; an rkey that looks like an older one is none.
_FIRST_TID_US = 1_667_260_800_000_000

# DID and rev of creates that share it with many others.
Shared = frozenset[tuple[str, str]]


class _Look(NamedTuple):
    """What one sampled event was: `did` is that of a create, else empty."""

    did: str = ""
    matches: bool = False


class BootstrapDetector:
    """For the reader's thread. It logs when a bootstrap begins and ends."""

    def __init__(self) -> None:
        self._host = ""
        self._window: deque[_Look] = deque(maxlen=_WINDOW)
        self._holds = False
        self._skip = 0
        # The run of creates at the end of the last batch: it may go on in the next.
        self._run: tuple[tuple[str, str], int] = ("", ""), 0

    def look_through(
        self, frames: Sequence[bytes], host: str, announced: Mapping[tuple[str, str], int] | None = None
    ) -> Shared | None:
        """Look at the next events of `host`; return None unless they are part of a bootstrap.

        Otherwise return the DIDs and revs that many of them share. `announced` are the creates of resyncs,
        which do not count.
        """
        if host != self._host:
            self._end()
            self._host = host
        for place in range(self._skip, len(frames), _STRIDE):
            if (look := _look_at(frames, place, announced or {})) is not None:
                self._window.append(look)
        self._skip = (self._skip - len(frames)) % _STRIDE
        if not self._holds and self._begins():
            self._holds = True
            log.warning(
                "%s was set up recently and announces existing records as if they were new; until this ends, "
                "creates that look so get commit.bootstrap: true and are left out of the dashboards",
                host,
            )
        # The batch in which it ends begins with its last rows.
        shared = self._shared(frames) if self._holds else None
        if self._holds and not self._continues():
            self._end()
        return shared

    def _begins(self) -> bool:
        if len(self._window) < _LEAST:
            return False
        matching = {look.did for look in self._window if look.matches}
        return _is_bootstrap(list(self._window), _OTHERS_AT_BEGIN) and len(matching) >= _LEAST_DIDS

    def _continues(self) -> bool:
        return _is_bootstrap(list(self._window)[-_RECENT:], _OTHERS_AT_END)

    def _end(self) -> None:
        if self._holds:
            log.info("%s no longer announces existing records as if they were new", self._host)
        self._holds = False
        self._window.clear()
        self._skip = 0
        self._run = ("", ""), 0

    def _shared(self, frames: Sequence[bytes]) -> Shared:
        """Return the DIDs and revs of runs of many creates. Only one event of a run is parsed."""
        found: set[tuple[str, str]] = set()
        place, (last, before) = 0, self._run
        while place < len(frames):
            key = _key(_parse(frames[place]))
            end = place + 1
            if key is not None:
                needles = _needles(*key)
                while end < len(frames) and _has(frames[end], needles):
                    end += 1
                before = (before if key == last else 0) + end - place
                last = key
                if before >= _MANY_ROWS:
                    found.add(key)
            place = end
        self._run = last, before
        return frozenset(found)


def mark(event: dict[str, Any], shared: Shared) -> None:
    """Mark an event of a bootstrap if it is a create that looks so, and is not marked as of a resync."""
    key = _key(event)
    if key is not None and not event["commit"].get("resync") and (key in shared or _is_old(event)):
        event["commit"]["bootstrap"] = True


def _look_at(frames: Sequence[bytes], place: int, announced: Mapping[tuple[str, str], int]) -> _Look | None:
    event = _parse(frames[place])
    if event is None:
        return None
    key = _key(event)
    if key is None:
        return _Look()
    if announced.get(key, cursor := cursor_of(event) or 0) < cursor:
        return None
    return _Look(key[0], _is_old(event) or _is_in_a_run(frames, place, key))


def _is_bootstrap(looks: Sequence[_Look], others: float) -> bool:
    creates = [look for look in looks if look.did]
    if len(looks) - len(creates) > others * len(looks):
        return False
    return sum(look.matches for look in creates) > _MOST * len(creates)


def _is_old(event: Mapping[str, Any]) -> bool:
    """Whether the rev is far older than the server's time, or the rkey far older than the rev."""
    commit = event["commit"]
    if (rev := tid.to_micros(commit["rev"])) is None:
        return False
    rkey = tid.to_micros(commit["rkey"])
    return rev < event["time_us"] - DAY_US or (rkey is not None and _FIRST_TID_US <= rkey < rev - DAY_US)


def _is_in_a_run(frames: Sequence[bytes], place: int, key: tuple[str, str]) -> bool:
    """Whether many frames around this one, without a hole, are of the same DID and rev."""
    needles = _needles(*key)
    first = last = place
    while first > 0 and place - first < _MANY_ROWS and _has(frames[first - 1], needles):
        first -= 1
    while last + 1 < len(frames) and last - first + 1 < _MANY_ROWS and _has(frames[last + 1], needles):
        last += 1
    return last - first + 1 >= _MANY_ROWS


def _needles(did: str, rev: str) -> tuple[bytes, bytes]:
    """What a frame of the same DID and rev holds, on either wire, as far as it is cheap to see."""
    return f'"rev":"{rev}"'.encode(), f'"did":"{did}"'.encode()


def _has(frame: bytes, needles: tuple[bytes, bytes]) -> bool:
    return needles[0] in frame and needles[1] in frame


def _key(event: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """DID and rev of a create."""
    if event is None or event["kind"] != "commit" or event["commit"]["operation"] != "create":
        return None
    return event["did"], event["commit"]["rev"]


def _parse(frame: bytes) -> dict[str, Any] | None:
    try:
        return parse(frame)
    except BadFrame:
        return None
