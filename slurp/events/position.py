"""Where in a stream we are, and from where to read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# A cursor at or above this is a time in Unix microseconds, below it a sequence number.
FIRST_TIME_CURSOR = 10**15

# In place of a cursor: begin with what happens now.
LIVE = -1

# Read again after every disconnect and at every start: a server makes 4,096 events durable at once, and
# what it had sent beyond that comes again under other sequence numbers, also after a close with 1001.
# Two such blocks. By time only where a host sends no sequence numbers, or on another host.
REWIND_EVENTS = 8192
REWIND_US = 60_000_000
REWIND_OTHER_HOST_US = 300_000_000


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one host's stream: its sequence number, if it sends any, and the stream's time there."""

    host: str
    cursor: int | None
    time_us: int

    def is_beyond(self, other: Position) -> bool:
        """True when saving this after `other`, on the same host, loses nothing.

        A lower cursor counts only with a clearly later time: then the server began to count anew.
        """
        if self.cursor is not None and other.cursor is not None and self.cursor != other.cursor:
            return self.cursor > other.cursor or self.time_us > other.time_us + REWIND_US
        return self.time_us > other.time_us or (self.time_us == other.time_us and self != other)


def resume_cursor(position: Position) -> int:
    """Return the cursor to resume at on the same host. Both kinds are inclusive."""
    if position.cursor is None:
        return max(0, position.time_us - REWIND_US)
    return max(0, position.cursor + 1 - REWIND_EVENTS)


def resume_elsewhere(position: Position) -> int:
    """The time cursor to resume at on another host, whose sequence numbers mean nothing to us."""
    return max(0, position.time_us - REWIND_OTHER_HOST_US)


class Resume(NamedTuple):
    """What to ask a host for, and up to where everything is ours already."""

    cursor: int
    known: Position

    @property
    def by_time(self) -> bool:
        return self.cursor >= FIRST_TIME_CURSOR


@dataclass(frozen=True, slots=True)
class Gap:
    """A time for which `host` sent nothing, though we asked for it.

    `possible` when the host did not say how far back it goes, so that it may have had nothing to send.
    """

    host: str
    from_us: int
    to_us: int
    possible: bool = False
    # The first and the last missing sequence number, where the host's numbers show the gap.
    from_cursor: int | None = None
    to_cursor: int | None = None

    @property
    def seconds(self) -> float:
        return (self.to_us - self.from_us) / 1e6
