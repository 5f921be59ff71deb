"""Binary search for the sequence number of a time, with a few short connections.

A v2 server answers a time cursor newer than its last sealed segment with everything since the beginning of
the active segment: up to an hour of the whole network. A sequence number is answered exactly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import websocket

from slurp.events.frames import cursor_of
from slurp.events.identity import instant_us
from slurp.events.times import middle
from slurp.jetstream.connection import describe_error

log = logging.getLogger(__name__)

# The search stops when at most this much is replayed unnecessarily.
_CLOSE_ENOUGH_EVENTS = 8192
_CLOSE_ENOUGH_US = 10_000_000

_FIRST_STEP = 16_384
_STEP_FACTOR = 8
_MAX_PROBES = 32
_MAX_SECONDS = 30.0


class FirstEvent(NamedTuple):
    """The first event that a server sent on a connection: its sequence number and its time."""

    cursor: int
    time_us: int


# Reads the first event of a connection that requests this sequence number; None when nothing came.
ReadFirstEvent = Callable[[int], FirstEvent | None]


def search_cursor(low: FirstEvent, target_us: int) -> Generator[int, FirstEvent | None, int]:
    """Search a sequence number whose event is not later than `target_us`, and return it.

    Yields sequence numbers to request and receives the first event of each.

    `low` is an event known to be earlier. An unclear result (no event, or one below the requested number,
    which is how a server answers a number beyond its end) counts as too late: the search then returns an
    earlier number than necessary, which replays some events and loses none.
    """
    high: int | None = None
    step = _FIRST_STEP
    for _ in range(_MAX_PROBES):
        if low.time_us >= target_us - _CLOSE_ENOUGH_US:
            break
        if high is None:
            requested, step = low.cursor + step, step * _STEP_FACTOR
        elif high - low.cursor <= _CLOSE_ENOUGH_EVENTS:
            break
        else:
            requested = (low.cursor + high) // 2
        first = yield requested
        if first is None:
            high = requested
        elif (
            first.time_us > target_us
            or first.cursor < requested
            or (high is not None and first.cursor >= high)
        ):
            high = min(requested, first.cursor)
        else:
            low = first
    return low.cursor


def find_cursor(
    low: FirstEvent,
    target_us: int,
    probe: ReadFirstEvent,
    should_continue: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> int | None:
    """Run `search_cursor` with `probe` and return its result.

    None if a connection failed, if it took longer than 30 s, or once `should_continue` returns False.
    """
    deadline = clock() + _MAX_SECONDS
    search = search_cursor(low, target_us)
    try:
        requested = next(search)
        while should_continue() and clock() < deadline:
            requested = search.send(probe(requested))
    except StopIteration as found:
        return int(found.value)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("no sequence number for %d: %s", target_us, describe_error(error))
    return None


def first_event_of(events: list[dict[str, Any]]) -> FirstEvent | None:
    """Return cursor and middle time of `events`, the first of a connection; None without a sequence number.

    The later of an event's time and its rev's time counts: an operator may have rewritten the former to an
    earlier one.
    """
    if not events or (cursor := cursor_of(events[0])) is None:
        return None
    now_us = int(time.time() * 1e6)
    return FirstEvent(cursor, middle([max(event["time_us"], instant_us(event, now_us)) for event in events]))
