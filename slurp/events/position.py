"""Positions in a Jetstream host's stream, and the cursor to resume from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# A cursor at or above this is a time in Unix microseconds, below it a sequence number.
FIRST_TIME_CURSOR = 10**15

# Used in place of a cursor: start with live events.
LIVE = -1

# How much is replayed after every disconnect and at every start. A server makes 4,096 events durable at a
# time; those it had sent beyond that come again under other sequence numbers, also after a close with 1001.
# So it is two such blocks. By time only from hosts without sequence numbers, and after a failover.
REWIND_EVENTS = 8192
REWIND_US = 60_000_000
REWIND_OTHER_HOST_US = 300_000_000


@dataclass(frozen=True, slots=True)
class Position:
    """A position in one host's stream: the sequence number, if the host sends any, and the stream's time."""

    host: str
    cursor: int | None
    time_us: int

    def is_beyond(self, other: Position) -> bool:
        """Return whether a checkpoint at `other`, of the same host, may be replaced by this one without loss.

        A lower cursor counts only with a clearly later time: then the server restarted its numbering.
        """
        if self.cursor is not None and other.cursor is not None and self.cursor != other.cursor:
            return self.cursor > other.cursor or self.time_us > other.time_us + REWIND_US
        return self.time_us > other.time_us or (self.time_us == other.time_us and self != other)


def resume_cursor(position: Position) -> int:
    """Return the cursor to resume from on the same host. Sequence numbers and times are both inclusive."""
    if position.cursor is None:
        return max(0, position.time_us - REWIND_US)
    return max(0, position.cursor + 1 - REWIND_EVENTS)


def resume_elsewhere(position: Position) -> int:
    """Return the time cursor to resume from on another host, which has other sequence numbers."""
    return max(0, position.time_us - REWIND_OTHER_HOST_US)


class ResumePoint(NamedTuple):
    """The cursor to request from a host, and the position up to which nothing is missing."""

    cursor: int
    known: Position

    @property
    def by_time(self) -> bool:
        """Whether the cursor is a time and not a sequence number."""
        return self.cursor >= FIRST_TIME_CURSOR


@dataclass(frozen=True, slots=True)
class Gap:
    """A period for which `host` sent no events although they were requested.

    `possible` if the host did not reveal how far back it goes: it may have had no events to send.
    """

    host: str
    from_us: int
    to_us: int
    possible: bool = False
    # First and last missing sequence number, if the gap shows in the host's numbers.
    from_cursor: int | None = None
    to_cursor: int | None = None

    @property
    def seconds(self) -> float:
        return (self.to_us - self.from_us) / 1e6
