"""Where a connection begins, compared with what was asked for. Pure.

Jetstream says nothing when it can't begin where it was asked to: a cursor below its floor begins at
the floor, one beyond its end begins with what happens now, and a server whose store was wiped has
other events under the same sequence numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from slurp.events.position import Gap, Position, Resume
from slurp.units import format_duration

# One event tells little: its time_us may be an imported one. The median of so many decides.
SAMPLE = 9

# Of replays at full speed we know our own place to some seconds. More than that is a gap.
TOLERANCE_US = 60_000_000

# This much before the time that was asked for costs more to read than to look for a better place.
_EARLY_US = 120_000_000

# The v1 wire hides #syncs and what follows them, so that numbers are missing where no event is. Hidden events
# come all at once; where this much time is missing as well, it is a gap.
V1_TOLERANCE_US = 5_000_000


class Found(Enum):
    PLACE = "what was asked for"
    FOREIGN = "other events under these sequence numbers"
    GAP = "nothing between what we have and the first events"
    MAYBE = "either a gap, or nothing happened that passes the filters"
    EARLY = "events from long before the time that was asked for"


class Finding(NamedTuple):
    """`to_us` is the time of the first events, `reason` tells people what is wrong."""

    found: Found
    to_us: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ResumeCheck:
    """A connection that was asked for `asked`.

    `newest_us` is the time of the newest event we had, robust against single odd ones; `filtered`
    when silence need not mean that anything is missing. `v2` is the wire, on which a missing sequence
    number is a missing event. `refused` when the server said that it no longer has what was asked for, and
    was then asked for its oldest event. `sought` is the number that was asked for in place of a time.
    """

    asked: Resume
    newest_us: int
    filtered: bool
    v2: bool = False
    refused: bool = False
    sought: int | None = None

    def at_the_floor(self) -> ResumeCheck | None:
        """For a server that said it does not go back so far: is there a gap, is all that is left to see."""
        if not self.asked.known.time_us:
            return None
        return replace(self, refused=True)

    def look(self, first: Sequence[Position]) -> Finding:
        """What the first events (at least one, SAMPLE suffice) tell."""
        if self.sought is not None:
            return self._at_the_sought(first, self.sought)
        if self.refused:
            return self._at_the_floor(first)
        return self._by_time(first) if self.asked.by_time else self._by_number(first)

    def gap_before(self, first: Position, *, possible: bool = False) -> Gap:
        """Return the gap between what we have and `first`, an event of the same host."""
        known, missing = self.asked.known, self._missing(first)
        last = None if self.asked.by_time else known.cursor
        return Gap(
            first.host,
            known.time_us,
            # `known` has a median's time, which may be later than that of an event behind it.
            max(known.time_us, first.time_us),
            possible,
            from_cursor=None if last is None else last + 1,
            to_cursor=missing[1] if missing else None,
        )

    def is_gap_before(self, floor: Position) -> bool:
        """Return whether a server whose oldest event is `floor` has lost events that we do not have."""
        known = self.asked.known
        if self._missing(floor) is not None:
            # Refused, it has said so itself; the number of `floor` may be of the v1 wire.
            tolerance = -TOLERANCE_US if self.refused else V1_TOLERANCE_US
            return floor.time_us > known.time_us + tolerance
        return floor.time_us > known.time_us + TOLERANCE_US

    def _missing(self, first: Position) -> tuple[int, int] | None:
        """Return the first and the last sequence number that is missing before `first`, if any is."""
        known = self.asked.known
        # Asked by time, the numbers need not be those of this host, or of its present store.
        if self.asked.by_time or known.cursor is None or first.cursor is None:
            return None
        return (known.cursor + 1, first.cursor - 1) if first.cursor > known.cursor + 1 else None

    def _by_time(self, first: Sequence[Position]) -> Finding:
        times = sorted(one.time_us for one in first)
        begins = middle(times)
        if first[0].cursor is not None and begins < self.asked.cursor - _EARLY_US:
            early = format_duration((self.asked.cursor - begins) / 1e6)
            return Finding(Found.EARLY, begins, f"begins {early} before the time it was asked for")
        if begins <= self.asked.known.time_us + TOLERANCE_US:
            return Finding(Found.PLACE, begins)
        # In a network where hardly anything happens, silence means as little as behind a filter.
        sparse = times[len(times) * 3 // 4] - times[len(times) // 4] > TOLERANCE_US
        return Finding(Found.MAYBE if self.filtered or sparse else Found.GAP, begins)

    def _at_the_sought(self, first: Sequence[Position], sought: int) -> Finding:
        """The number was found by looking at events, so that anything else means that they changed since."""
        begins = middle(sorted(one.time_us for one in first))
        earliest = first[0].cursor
        if earliest is None or earliest < sought:
            return Finding(Found.FOREIGN, begins, f"was asked for {sought} and sends {earliest}")
        if begins > self.asked.cursor and not self.filtered:
            return Finding(Found.FOREIGN, begins, f"sends events after the time that {sought} was found for")
        return Finding(Found.PLACE, begins)

    def _at_the_floor(self, first: Sequence[Position]) -> Finding:
        begins = middle(sorted(one.time_us for one in first))
        # Events that are older than what we have: those of another store, which goes back further.
        if self._missing(first[0]) is None or begins < self.asked.known.time_us - TOLERANCE_US:
            return Finding(Found.PLACE, begins)
        return Finding(Found.MAYBE if self.filtered else Found.GAP, begins)

    def _by_number(self, first: Sequence[Position]) -> Finding:
        cursor, known = self.asked.cursor, self.asked.known
        if not cursor and not known.time_us:
            return Finding(Found.PLACE)  # from the beginning, wherever that is
        earliest = first[0].cursor
        if earliest is None:
            return Finding(Found.FOREIGN, reason=f"sends no sequence numbers, so it can't know {cursor}")
        if earliest < cursor:
            return Finding(
                Found.FOREIGN, reason=f"was asked for {cursor} and sends {earliest}, it seems to count anew"
            )
        if not known.time_us:
            # The user named a number, and all that is known of it is that it is there.
            return Finding(Found.PLACE)
        begins = middle(sorted(one.time_us for one in first))
        # What we had before must be as old as it was. The rest may be of any time in a quiet stream.
        had = sorted(one.time_us for one in first if (one.cursor or 0) <= (known.cursor or 0))
        newest = max(self.newest_us, known.time_us)
        if min(begins, middle(had) if had else begins) > newest + TOLERANCE_US:
            later = format_duration((begins - newest) / 1e6)
            reason = f"was asked for {cursor} and sends {earliest}, {later} later than what we had"
            return Finding(Found.FOREIGN, begins, reason)
        # Of what was asked for we had two blocks, and none of it is there: the server begins behind it.
        missing = not self.filtered and self._missing(first[0]) is not None
        is_gap = missing and (self.v2 or begins > newest + V1_TOLERANCE_US)
        return Finding(Found.GAP if is_gap else Found.PLACE, begins)


def middle(times: Sequence[int]) -> int:
    """Return the lower median."""
    return times[(len(times) - 1) // 2]
