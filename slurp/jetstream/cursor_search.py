"""Find the sequence number for a time, with a few short connections.

A v2 server answers a time that is newer than its last sealed segment with everything since the beginning
of the active one, an hour of the whole network; a sequence number it answers exactly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import websocket

from slurp.events.frames import cursor_of
from slurp.events.identity import instant_us
from slurp.jetstream.resume_check import middle
from slurp.jetstream.servers import why

log = logging.getLogger(__name__)

# Stop where no more than this is read in vain.
_CLOSE_EVENTS = 8192
_CLOSE_US = 10_000_000

_FIRST_STEP = 16_384
_STEP_FACTOR = 8
_MOST_PROBES = 32
_MOST_SECONDS = 30.0


class Seen(NamedTuple):
    """The first event that a server sent: its sequence number, and the time there."""

    cursor: int
    time_us: int


# Takes the sequence number to ask for; None when nothing came.
Probe = Callable[[int], Seen | None]


def search(low: Seen, target_us: int) -> Generator[int, Seen | None, int]:
    """Yield sequence numbers to ask for, take what came, return one whose event is no later than `target_us`.

    `low` is an event that is known to be earlier. Everything unclear (nothing came, or an event below what
    was asked for, which is how a server answers a number beyond its end) counts as too late: some events
    are then read in vain, and none is lost.
    """
    high: int | None = None
    step = _FIRST_STEP
    for _ in range(_MOST_PROBES):
        if low.time_us >= target_us - _CLOSE_US:
            break
        if high is None:
            asked, step = low.cursor + step, step * _STEP_FACTOR
        elif high - low.cursor <= _CLOSE_EVENTS:
            break
        else:
            asked = (low.cursor + high) // 2
        seen = yield asked
        if seen is None:
            high = asked
        elif seen.time_us > target_us or seen.cursor < asked or (high is not None and seen.cursor >= high):
            high = min(asked, seen.cursor)
        else:
            low = seen
    return low.cursor


def seek(
    low: Seen,
    target_us: int,
    probe: Probe,
    go_on: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> int | None:
    """Run `search` with `probe`; None when a connection failed, or it took too long, or `go_on` said no."""
    deadline = clock() + _MOST_SECONDS
    searching = search(low, target_us)
    try:
        asked = next(searching)
        while go_on() and clock() < deadline:
            asked = searching.send(probe(asked))
    except StopIteration as found:
        return int(found.value)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("no sequence number for %d: %s", target_us, why(error))
    return None


def seen_in(events: list[dict[str, Any]]) -> Seen | None:
    """Return where `events`, the first of a connection, are; None when that is not clear.

    The time of a commit may have been rewritten to an earlier one, that of its rev not: the later counts.
    """
    if not events or (cursor := cursor_of(events[0])) is None:
        return None
    now_us = int(time.time() * 1e6)
    return Seen(cursor, middle([max(event["time_us"], instant_us(event, now_us)) for event in events]))
