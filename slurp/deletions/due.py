"""Up to which time of the stream a worker has read, by which deleted accounts are redacted. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from slurp.events.times import MAX_TIME_US, utc

# A gap may be filled for so long: servers keep events for 36 hours.
_GAP_US = 48 * 3_600_000_000


class Due(NamedTuple):
    """Deletions that a server received at `since` or later are due if their time is not after `until`.

    A gap may hide that an account is active again after an earlier one: it is due at `with_gaps`.
    """

    since: datetime
    until: datetime
    with_gaps: datetime

    @classmethod
    def of(cls, streams: Iterable[tuple[int, int]], now_us: int) -> Due:
        """Return what is due for readers: since when each has no gap, and up to when its events are
        acknowledged, in Unix microseconds. Never what is after `now_us`.
        """
        known = list(streams)
        complete_us = min(since for since, _ in known)
        until_us = max(until for since, until in known if since == complete_us)
        newest_us = max(until for _, until in known)
        return cls(
            utc(complete_us), utc(min(until_us, now_us)), utc(max(0, min(newest_us, now_us) - _GAP_US))
        )


EVERYTHING = Due(utc(0), utc(MAX_TIME_US), utc(MAX_TIME_US))
"""All deletions, whatever was read."""
