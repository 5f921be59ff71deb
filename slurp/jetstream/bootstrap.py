"""Detect a bootstrap: a new server that announces the existing records of the whole network as new creates.

Such a create carries the head revision of its repository and the time of the announcement. A single one
cannot be distinguished from a live create: up to 95% of live creates match one rule or another. So first a
sample of the stream is judged, and single creates only while the stream is a bootstrap.

A stream is a bootstrap when it consists almost only of creates and most creates among its last 10,000 events
match one of these rules, in several repositories:

- the rev is more than a day older than the server's time,
- the rkey is a TID more than a day older than the rev,
- at least ten creates in a row have the same DID and rev.

Live streams always have deletes, updates, identity and account events: 7 to 18%. The same rule excludes a
server that catches up after days of downtime, whose revs are old as well.

The reader runs the detector, as it alone sees the frames in order; see `slurp.jetstream.resyncs`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slurp.events import tid
from slurp.events.frames import BadFrame, cursor_of, parse
from slurp.events.times import DAY_US
from slurp.jetstream.resyncs import create_key

log = logging.getLogger(__name__)

# One event of this many is sampled, which costs the reader half a microsecond per event.
_SAMPLE_EVERY = 16
_WINDOW = 10_000 // _SAMPLE_EVERY
# Samples needed before a beginning is detected; an end is detected from the last ones alone.
_MIN_SAMPLES = 2_000 // _SAMPLE_EVERY
_RECENT_SAMPLES = 1_000 // _SAMPLE_EVERY

_MIN_MATCHING = 0.5
_MAX_OTHERS_AT_BEGIN = 0.02
_MAX_OTHERS_AT_END = 0.05
# A single account that imports old records is not a bootstrap.
_MIN_DIDS = 5

_LONG_RUN = 10

# TIDs exist since November 2022; an rkey that looks like an older one is not a TID.
_FIRST_TID_US = 1_667_260_800_000_000

# DIDs and revs, each shared by a long run of creates.
SharedRevs = frozenset[tuple[str, str]]


class _Sample(NamedTuple):
    """A sampled event. `did` is that of a create, empty for other events; `matches` means a rule applies."""

    did: str = ""
    matches: bool = False


class BootstrapDetector:
    """Detects and logs the beginning and the end of a bootstrap. For the reader's thread."""

    def __init__(self) -> None:
        self._host = ""
        self._window: deque[_Sample] = deque(maxlen=_WINDOW)
        self._active = False
        self._offset = 0
        # The run of creates at the end of the last batch: it may continue in the next.
        self._run: tuple[tuple[str, str], int] = ("", ""), 0

    def observe(
        self, frames: Sequence[bytes], host: str, announced: Mapping[tuple[str, str], int] | None = None
    ) -> SharedRevs | None:
        """Examine the next frames of `host`; return None unless they are part of a bootstrap.

        In a bootstrap return the DIDs and revs of its long runs. `announced` are the #syncs of resyncs, whose
        creates are not counted.
        """
        if host != self._host:
            self._end()
            self._host = host
        for index in range(self._offset, len(frames), _SAMPLE_EVERY):
            if (sample := _sample(frames, index, announced or {})) is not None:
                self._window.append(sample)
        self._offset = (self._offset - len(frames)) % _SAMPLE_EVERY
        if not self._active and self._begins():
            self._active = True
            log.warning(
                "%s was set up recently and announces existing records as new ones; until this ends, creates "
                "that match get commit.bootstrap: true and are excluded from the dashboards",
                host,
            )
        # The batch in which the bootstrap ends begins with its last creates.
        shared = self._shared(frames) if self._active else None
        if self._active and not self._continues():
            self._end()
        return shared

    def _begins(self) -> bool:
        if len(self._window) < _MIN_SAMPLES:
            return False
        matching = {sample.did for sample in self._window if sample.matches}
        return _is_bootstrap(list(self._window), _MAX_OTHERS_AT_BEGIN) and len(matching) >= _MIN_DIDS

    def _continues(self) -> bool:
        return _is_bootstrap(list(self._window)[-_RECENT_SAMPLES:], _MAX_OTHERS_AT_END)

    def _end(self) -> None:
        if self._active:
            log.info("%s no longer announces existing records as new ones", self._host)
        self._active = False
        self._window.clear()
        self._offset = 0
        self._run = ("", ""), 0

    def _shared(self, frames: Sequence[bytes]) -> SharedRevs:
        """Return the DIDs and revs of long runs of creates. Only one event of each run is parsed."""
        found: set[tuple[str, str]] = set()
        index, (last, before) = 0, self._run
        while index < len(frames):
            event = _parse(frames[index])
            key = None if event is None else create_key(event)
            end = index + 1
            if key is not None:
                needles = _needles(*key)
                while end < len(frames) and _contains(frames[end], needles):
                    end += 1
                before = (before if key == last else 0) + end - index
                last = key
                if before >= _LONG_RUN:
                    found.add(key)
            index = end
        self._run = last, before
        return frozenset(found)


def mark_bootstrap(event: dict[str, Any], shared: SharedRevs) -> None:
    """Set `commit.bootstrap` of a create that matches a rule, unless it is marked as part of a resync."""
    key = create_key(event)
    if key is not None and not event["commit"].get("resync") and (key in shared or _is_old(event)):
        event["commit"]["bootstrap"] = True


def _sample(frames: Sequence[bytes], index: int, announced: Mapping[tuple[str, str], int]) -> _Sample | None:
    event = _parse(frames[index])
    if event is None:
        return None
    key = create_key(event)
    if key is None:
        return _Sample()
    if announced.get(key, cursor := cursor_of(event) or 0) < cursor:
        return None
    return _Sample(key[0], _is_old(event) or _is_in_long_run(frames, index, key))


def _is_bootstrap(samples: Sequence[_Sample], others: float) -> bool:
    creates = [sample for sample in samples if sample.did]
    if len(samples) - len(creates) > others * len(samples):
        return False
    return sum(sample.matches for sample in creates) > _MIN_MATCHING * len(creates)


def _is_old(event: Mapping[str, Any]) -> bool:
    """Return whether the rev is much older than the server's time, or the rkey much older than the rev."""
    commit = event["commit"]
    if (rev := tid.to_micros(commit["rev"])) is None:
        return False
    rkey = tid.to_micros(commit["rkey"])
    return rev < event["time_us"] - DAY_US or (rkey is not None and _FIRST_TID_US <= rkey < rev - DAY_US)


def _is_in_long_run(frames: Sequence[bytes], index: int, key: tuple[str, str]) -> bool:
    """Return whether the frame is in a run of at least _LONG_RUN frames with the same DID and rev."""
    needles = _needles(*key)
    first = last = index
    while first > 0 and index - first < _LONG_RUN and _contains(frames[first - 1], needles):
        first -= 1
    while last + 1 < len(frames) and last - first + 1 < _LONG_RUN and _contains(frames[last + 1], needles):
        last += 1
    return last - first + 1 >= _LONG_RUN


def _needles(did: str, rev: str) -> tuple[bytes, bytes]:
    """Return what every frame with this DID and rev contains. A cheap test without parsing."""
    return f'"rev":"{rev}"'.encode(), f'"did":"{did}"'.encode()


def _contains(frame: bytes, needles: tuple[bytes, bytes]) -> bool:
    return needles[0] in frame and needles[1] in frame


def _parse(frame: bytes) -> dict[str, Any] | None:
    try:
        return parse(frame)
    except BadFrame:
        return None
