"""Compare the first events of a connection with the cursor that was requested. Pure.

Jetstream does not report that it cannot begin at the requested cursor: a cursor below its oldest event begins
at the oldest event, one beyond its end begins with live events, and a server whose store was wiped has other
events under the same sequence numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from slurp.events.position import Gap, Position, ResumePoint
from slurp.events.times import median, middle
from slurp.units import format_duration

# Events to judge a connection by. The time_us of a single event may be imported; the median decides.
SAMPLE = 9

# In replays at full speed the own position is known to a few seconds. More than this is a gap.
TOLERANCE_US = 60_000_000

# Events from earlier than this before the requested time cost more to replay than to search for their cursor.
_EARLY_US = 120_000_000

# The v1 protocol hides #syncs and the events behind them, so that numbers are missing without a gap. Hidden
# events come all at once; if this much time is missing as well, it is a gap.
V1_TOLERANCE_US = 5_000_000


class Verdict(Enum):
    """How the first events of a connection relate to the request."""

    OK = "the requested events"
    WRONG_STREAM = "other events under these sequence numbers"
    GAP = "no events between the known position and the first events"
    UNSURE = "either a gap, or no events that match the filters"
    EARLY = "events from long before the requested time"


class CheckResult(NamedTuple):
    """`begins_us` is the time of the first events; `reason` describes the problem for the log."""

    verdict: Verdict
    begins_us: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ResumeCheck:
    """The check of one connection that requested `requested`.

    `newest_us`: time of the newest event received so far, robust against single odd times.
    `filtered`: silence need not mean that events are missing.
    `v2`: the protocol is v2, on which a missing sequence number is a missing event.
    `is_expired`: the server reported that it no longer has the requested cursor, so the stream begins with
    its oldest event.
    `searched`: the sequence number that was requested in place of a time.
    """

    requested: ResumePoint
    newest_us: int
    filtered: bool
    v2: bool = False
    is_expired: bool = False
    searched: int | None = None

    def for_oldest_event(self) -> ResumeCheck | None:
        """Return the check for a server that no longer has the cursor and begins with its oldest event.

        None if the time of the known position is not known, so that a gap cannot be determined.
        """
        if not self.requested.known.time_us:
            return None
        return replace(self, is_expired=True)

    def evaluate(self, first: Sequence[Position]) -> CheckResult:
        """Judge the connection by the positions of its first events: at least one, SAMPLE are enough."""
        if self.searched is not None:
            return self._evaluate_searched(first, self.searched)
        if self.is_expired:
            return self._evaluate_oldest(first)
        return self._evaluate_time(first) if self.requested.by_time else self._evaluate_number(first)

    def gap_before(self, first: Position, *, possible: bool = False) -> Gap:
        """Return the gap between the known position and `first`, an event of the same host."""
        known, missing = self.requested.known, self._missing_numbers(first)
        last = None if self.requested.by_time else known.cursor
        return Gap(
            first.host,
            known.time_us,
            # The known time is a median, which may be later than the time of an event behind it.
            max(known.time_us, first.time_us),
            possible,
            from_cursor=None if last is None else last + 1,
            to_cursor=missing[1] if missing else None,
        )

    def is_gap_before(self, oldest: Position) -> bool:
        """Return whether a server whose oldest event is `oldest` has lost events that were not received."""
        known = self.requested.known
        if self._missing_numbers(oldest) is not None:
            # An expired cursor was reported by the server itself; the number of `oldest` may be of the v1
            # protocol.
            tolerance = -TOLERANCE_US if self.is_expired else V1_TOLERANCE_US
            return oldest.time_us > known.time_us + tolerance
        return oldest.time_us > known.time_us + TOLERANCE_US

    def _missing_numbers(self, first: Position) -> tuple[int, int] | None:
        """Return the first and the last sequence number missing before `first`; None if there is none."""
        known = self.requested.known
        # After a request by time the known number need not be of this host, or of its current store.
        if self.requested.by_time or known.cursor is None or first.cursor is None:
            return None
        return (known.cursor + 1, first.cursor - 1) if first.cursor > known.cursor + 1 else None

    def _evaluate_time(self, first: Sequence[Position]) -> CheckResult:
        times = sorted(one.time_us for one in first)
        begins_us = middle(times)
        if first[0].cursor is not None and begins_us < self.requested.cursor - _EARLY_US:
            early = format_duration((self.requested.cursor - begins_us) / 1e6)
            return CheckResult(Verdict.EARLY, begins_us, f"begins {early} before the requested time")
        if begins_us <= self.requested.known.time_us + TOLERANCE_US:
            return CheckResult(Verdict.OK, begins_us)
        # On a network with hardly any events, silence means as little as on a filtered stream.
        sparse = times[len(times) * 3 // 4] - times[len(times) // 4] > TOLERANCE_US
        return CheckResult(Verdict.UNSURE if self.filtered or sparse else Verdict.GAP, begins_us)

    def _evaluate_searched(self, first: Sequence[Position], searched: int) -> CheckResult:
        """The number was found by reading events, so any difference means that they have changed since."""
        begins_us = median(one.time_us for one in first)
        earliest = first[0].cursor
        if earliest is None or earliest < searched:
            return CheckResult(
                Verdict.WRONG_STREAM, begins_us, f"sends {earliest} for requested cursor {searched}"
            )
        if begins_us > self.requested.cursor and not self.filtered:
            reason = f"sends events later than the time for which cursor {searched} was found"
            return CheckResult(Verdict.WRONG_STREAM, begins_us, reason)
        return CheckResult(Verdict.OK, begins_us)

    def _evaluate_oldest(self, first: Sequence[Position]) -> CheckResult:
        begins_us = median(one.time_us for one in first)
        # Events older than the known position belong to another store, which goes back further.
        is_older = begins_us < self.requested.known.time_us - TOLERANCE_US
        if self._missing_numbers(first[0]) is None or is_older:
            return CheckResult(Verdict.OK, begins_us)
        return CheckResult(Verdict.UNSURE if self.filtered else Verdict.GAP, begins_us)

    def _evaluate_number(self, first: Sequence[Position]) -> CheckResult:
        cursor, known = self.requested.cursor, self.requested.known
        if not cursor and not known.time_us:
            return CheckResult(Verdict.OK)  # from the beginning, wherever that is
        earliest = first[0].cursor
        if earliest is None:
            reason = f"sends no sequence numbers and cannot resume at cursor {cursor}"
            return CheckResult(Verdict.WRONG_STREAM, reason=reason)
        if earliest < cursor:
            reason = f"sends {earliest} for requested cursor {cursor}; its numbering seems to have restarted"
            return CheckResult(Verdict.WRONG_STREAM, reason=reason)
        if not known.time_us:
            # The number is from the user; nothing else is known of its event.
            return CheckResult(Verdict.OK)
        begins_us = median(one.time_us for one in first)
        # Events received before must be as old as they were. The others may be of any time in a quiet stream.
        replayed = [one.time_us for one in first if (one.cursor or 0) <= (known.cursor or 0)]
        newest = max(self.newest_us, known.time_us)
        if min(begins_us, median(replayed) if replayed else begins_us) > newest + TOLERANCE_US:
            later = format_duration((begins_us - newest) / 1e6)
            reason = (
                f"sends {earliest} for requested cursor {cursor}, {later} later than the newest known event"
            )
            return CheckResult(Verdict.WRONG_STREAM, begins_us, reason)
        # The request goes back by two blocks of known events. If none of them comes, the server begins later.
        missing = not self.filtered and self._missing_numbers(first[0]) is not None
        is_gap = missing and (self.v2 or begins_us > newest + V1_TOLERANCE_US)
        return CheckResult(Verdict.GAP if is_gap else Verdict.OK, begins_us)
