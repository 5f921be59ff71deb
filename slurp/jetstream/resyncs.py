"""Which records a server announces again after a `#sync`, when an account's repository was replaced.

Only the v2 wire shows them: the #sync, and right behind it a create for each record, with the rev of
the #sync. They are documents like any other, but nobody wrote them just then, so they are marked
and left out of what is counted. The reader keeps the list, as it alone sees events in their order;
by sequence numbers it is told the same however often and in whatever batches they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from slurp.events.frames import BadFrame, cursor_of, event_position, is_v2_commit, parse
from slurp.events.position import Position

# A server writes a #sync and its creates in one piece, so that one would do.
_REMEMBERED = 1024

# DID and rev of a #sync, and its sequence number.
Announced = Mapping[tuple[str, str], int]


class _Open(NamedTuple):
    key: tuple[str, str]
    position: Position


class Resyncs:
    """The latest #syncs of a host, over batches and connections."""

    def __init__(self) -> None:
        self._host = ""
        self._known: dict[tuple[str, str], int] = {}
        self._open: _Open | None = None

    def look_through(self, frames: Iterable[bytes], host: str) -> Announced:
        """Note the #syncs among the next frames; all that are known then. What is returned stays as it is."""
        if host != self._host:
            # Its sequence numbers say nothing about those of another host.
            self._host, self._known, self._open = host, {}, None
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
                self._open = _Open(key, event_position(event, host))
        if found:
            everything = {**self._known, **found}
            self._known = dict(list(everything.items())[-_REMEMBERED:])
        return self._known

    def resume_at(self, last: dict[str, Any], position: Position) -> Position:
        """Where to go on after the event `last` at `position`, even if all this is forgotten.

        Within a resync that is its #sync: who comes back without having seen it would take the rest
        of the creates for new records.
        """
        if self._open is not None:
            if last["kind"] == "sync" or _key(last) == self._open.key:
                return self._open.position
            self._open = None
        return position


def mark(event: dict[str, Any], announced: Announced) -> None:
    """Write into an event whether it is only announced again."""
    cursor = cursor_of(event)
    if cursor is not None and announced.get(_key(event), cursor) < cursor:
        event["commit"]["resync"] = True


def _key(event: dict[str, Any]) -> tuple[str, str]:
    if event["kind"] != "commit" or event["commit"]["operation"] != "create":
        return ("", "")
    return event["did"], event["commit"]["rev"]
