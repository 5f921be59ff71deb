"""Read the oldest and the newest event of a server, with short connections of their own."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket
from websocket import ABNF

from slurp.events.frames import BadFrame, cursor_of, first_position, parse
from slurp.events.position import FIRST_TIME_CURSOR, Position
from slurp.events.times import middle
from slurp.jetstream.connection import Connection, close_connection, connect, describe_error
from slurp.jetstream.resume_check import SAMPLE
from slurp.jetstream.servers import host_of
from slurp.jetstream.subscription import V1_PATH, V2_PATH

log = logging.getLogger(__name__)

_OLDEST_TIMEOUT = 10.0
_NEWEST_TIMEOUT = 5.0

# From the beginning, without filters. The v2 protocol rejects a number below its oldest event, but no time.
_OLDEST_V1 = f"{V1_PATH}?cursor=0"
_OLDEST_V2 = f"{V2_PATH}?cursor={FIRST_TIME_CURSOR}"


def oldest_event(
    server: str, timeout: float = _OLDEST_TIMEOUT, ca: Path | None = None, *, v2: bool = False
) -> Position | None:
    """Return the position of a server's oldest event, with the middle time of the first events.

    None when the server sends no event in time.
    """
    try:
        events = first_events(f"{server}{_OLDEST_V2 if v2 else _OLDEST_V1}", timeout, ca)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("%s: cannot read the oldest event: %s", server, describe_error(error))
        return None
    if not events:
        return None
    return Position(host_of(server), cursor_of(events[0]), middle([one["time_us"] for one in events]))


def first_events(url: str, timeout: float, ca: Path | None = None) -> list[dict[str, Any]]:
    """Return the first events of a connection: up to SAMPLE, fewer if `timeout` seconds are over before.

    Raises OSError or WebSocketException if the connection fails; one that ends early is not an error.
    """
    events: list[dict[str, Any]] = []
    for data in _messages(url, connect(url, timeout, ca), timeout):
        with contextlib.suppress(BadFrame):
            events.append(parse(data))
        if len(events) == SAMPLE:
            break
    return events


def newest_event(server: str, ca: Path | None = None, timeout: float = _NEWEST_TIMEOUT) -> Position | None:
    """Return the position of the next event that `server` sends to an unfiltered subscription.

    The event is no older than this call. For a host without sequence numbers it is the median time of several
    events, as a single one may be far off. None when the server sends nothing in time.
    """
    found: list[Position] = []
    try:
        connection = _connect(server, timeout, ca)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("%s: cannot read the newest event: %s", server, describe_error(error))
        return None
    for data in _messages(server, connection, timeout):
        if (position := first_position([data], host_of(server))) is not None:
            if position.cursor is not None:
                return position
            found.append(position)
        if len(found) == SAMPLE:
            break
    return middle(sorted(found, key=lambda position: position.time_us)) if found else None


def _messages(url: str, connection: Connection, timeout: float) -> Iterator[bytes]:
    """Yield the messages of a connection until it ends or `timeout` seconds are over; close it then."""
    deadline = time.monotonic() + timeout
    try:
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            for opcode, data in connection.receive():
                if opcode == ABNF.OPCODE_CLOSE:
                    return
                yield data
    except (OSError, websocket.WebSocketException) as error:
        log.debug("%s ended: %s", url, describe_error(error))
    finally:
        close_connection(connection)


def _connect(server: str, timeout: float, ca: Path | None) -> Connection:
    """Connect for live events on the v1 protocol, or on v2 where the server has no v1."""
    try:
        return connect(f"{server}/subscribe", timeout, ca)
    except websocket.WebSocketBadStatusException as error:
        if error.status_code != 404:
            raise
    return connect(f"{server}{V2_PATH}", timeout, ca)
