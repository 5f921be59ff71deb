"""The newest event of a server: how far a reader has to come to have caught up."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import websocket
from websocket import ABNF

from slurp.jetstream.connection import Connection, connect
from slurp.jetstream.hosts import hang_up, host_of, why
from slurp.jetstream.landing import SAMPLE
from slurp.jetstream.subscription import V2_PATH
from slurp.jetstream.wire import position_of
from slurp.position import Position

log = logging.getLogger(__name__)

_TIMEOUT = 5.0


def tip(server: str, ca: Path | None = None, timeout: float = _TIMEOUT) -> Position | None:
    """Return the position of the next event that `server` sends to everybody, whatever our filters.

    It is no older than this call. From a host without sequence numbers it is the median time of some events,
    as that of one may be far off. None when the server sends nothing in time.
    """
    found: list[Position] = []
    deadline = time.monotonic() + timeout
    try:
        connection = _connect(server, timeout, ca)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("no newest event of %s: %s", server, why(error))
        return None
    try:
        while len(found) < SAMPLE and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            for opcode, data in connection.receive():
                if opcode == ABNF.OPCODE_CLOSE:
                    deadline = 0.0
                elif (position := position_of([data], host_of(server))) is not None:
                    if position.cursor is not None:
                        return position
                    found.append(position)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("the newest event of %s, after %d event(s): %s", server, len(found), why(error))
    finally:
        hang_up(connection)
    ordered = sorted(found, key=lambda position: position.time_us)
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def _connect(server: str, timeout: float, ca: Path | None) -> Connection:
    """Connect without a cursor, which is live, by the v1 wire; some servers have v2 alone."""
    try:
        return connect(f"{server}/subscribe", timeout, ca)
    except websocket.WebSocketBadStatusException as error:
        if error.status_code != 404:
            raise
    return connect(f"{server}{V2_PATH}", timeout, ca)
