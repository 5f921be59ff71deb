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

from slurp.position import FIRST_TIME_CURSOR, Position, Resume
from slurp.units import format_duration

# One event tells little: its time_us may be an imported one. The median of so many decides.
SAMPLE = 9

# Of replays at full speed we know our own place to some seconds. More than that is a gap.
TOLERANCE_US = 60_000_000


class Found(Enum):
    PLACE = "what was asked for"
    FOREIGN = "other events under these sequence numbers"
    GAP = "nothing between what we have and the first events"
    MAYBE = "either a gap, or nothing happened that passes the filters"


class Finding(NamedTuple):
    """`to_us` is the time of the first events, `reason` tells people what is wrong."""

    found: Found
    to_us: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Landing:
    """A connection that was asked for `asked`.

    `newest_us` is the time of the newest event we had, robust against single odd ones; `filtered`
    when silence need not mean that anything is missing.
    """

    asked: Resume
    newest_us: int
    filtered: bool

    def at_the_floor(self) -> Landing | None:
        """For a server that said it does not go back so far: is there a gap, is all that is left to see."""
        if not self.asked.known.time_us:
            return None
        return replace(self, asked=Resume(FIRST_TIME_CURSOR, self.asked.known))

    def look(self, first: Sequence[Position]) -> Finding:
        """What the first events (at least one, SAMPLE suffice) tell."""
        if not self.asked.by_time:
            return self._by_number(first)
        times = sorted(one.time_us for one in first)
        begins = _middle(times)
        if begins <= self.asked.known.time_us + TOLERANCE_US:
            return Finding(Found.PLACE, begins)
        # In a network where hardly anything happens, silence means as little as behind a filter.
        sparse = times[len(times) * 3 // 4] - times[len(times) // 4] > TOLERANCE_US
        return Finding(Found.MAYBE if self.filtered or sparse else Found.GAP, begins)

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
        begins = _middle(sorted(one.time_us for one in first))
        # What we had before must be as old as it was. The rest may be of any time in a quiet stream.
        had = sorted(one.time_us for one in first if (one.cursor or 0) <= (known.cursor or 0))
        newest = max(self.newest_us, known.time_us)
        if min(begins, _middle(had) if had else begins) <= newest + TOLERANCE_US:
            return Finding(Found.PLACE, begins)
        later = format_duration((begins - newest) / 1e6)
        reason = f"was asked for {cursor} and sends {earliest}, {later} later than what we had"
        return Finding(Found.FOREIGN, begins, reason)


def _middle(times: Sequence[int]) -> int:
    return times[(len(times) - 1) // 2]
