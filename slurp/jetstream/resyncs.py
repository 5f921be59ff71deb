"""Detect resyncs: records that a server announces again because an account's repository was replaced.

Only the v2 protocol shows them: a `#sync`, followed by a create for each record, with the rev of the #sync.
They are indexed like other events, but were not written at that time, so they are marked and not counted in
the dashboards. The reader keeps the list, as it alone sees the events in order. Sequence numbers make the
result the same for every replay and every division into batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from slurp.events.frames import BadFrame, cursor_of, event_position, is_v2_commit, parse
from slurp.events.position import Position

# A server writes a #sync and its creates as one unit, so that one would be enough.
_MAX_SYNCS = 1024

# Maps DID and rev of a #sync to its sequence number.
SyncCursors = Mapping[tuple[str, str], int]


class _OpenResync(NamedTuple):
    """The resync whose creates are being read: DID and rev, and the position of its #sync."""

    key: tuple[str, str]
    position: Position


class ResyncTracker:
    """The latest #syncs of a host, across batches and connections. For the reader's thread."""

    def __init__(self) -> None:
        self._host = ""
        self._syncs: dict[tuple[str, str], int] = {}
        self._open: _OpenResync | None = None

    def observe(self, frames: Iterable[bytes], host: str) -> SyncCursors:
        """Record the #syncs among the next frames and return all known ones, as an immutable mapping."""
        if host != self._host:
            # Sequence numbers of different hosts are unrelated.
            self._host, self._syncs, self._open = host, {}, None
        found: dict[tuple[str, str], int] = {}
        for frame in frames:
            if is_v2_commit(frame):
                continue
            try:
                event = parse(frame)
            except BadFrame:
                continue
            if event["kind"] == "sync" and (cursor := cursor_of(event)) is not None:
                key = (event["did"], event["sync"]["rev"])
                found[key] = cursor
                self._open = _OpenResync(key, event_position(event, host))
        if found:
            everything = {**self._syncs, **found}
            self._syncs = dict(list(everything.items())[-_MAX_SYNCS:])
        return self._syncs

    def resume_position(self, last: dict[str, Any], position: Position) -> Position:
        """Return the position to resume from after the event `last`, even if this tracker is lost by then.

        Within a resync that is the position of its #sync. Without it, the remaining creates would pass for
        new records after a restart.
        """
        if self._open is not None:
            if last["kind"] == "sync" or create_key(last) == self._open.key:
                return self._open.position
            self._open = None
        return position


def mark_resync(event: dict[str, Any], syncs: SyncCursors) -> None:
    """Set `commit.resync` of an event that is a create of a resync."""
    key, cursor = create_key(event), cursor_of(event)
    if key is not None and cursor is not None and syncs.get(key, cursor) < cursor:
        event["commit"]["resync"] = True


def create_key(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return DID and rev of a create; None for other events."""
    if event["kind"] != "commit" or event["commit"]["operation"] != "create":
        return None
    return event["did"], event["commit"]["rev"]
