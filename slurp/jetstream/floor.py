"""Short connections that read a few events: how far back a server goes, and of what time an event is."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import websocket
from websocket import ABNF

from slurp.jetstream.connection import connect
from slurp.jetstream.hosts import hang_up, host_of, why
from slurp.jetstream.landing import SAMPLE, middle
from slurp.jetstream.subscription import V2_PATH
from slurp.jetstream.wire import BadFrame, cursor_of, parse
from slurp.position import FIRST_TIME_CURSOR, Position

log = logging.getLogger(__name__)

_TIMEOUT = 10.0


# "From the beginning", without filters. The v2 wire refuses a number below its floor, but no time.
_V1_PATH = "/subscribe?cursor=0"
_V2_PATH = f"{V2_PATH}?cursor={FIRST_TIME_CURSOR}"


def floor_of(
    server: str, timeout: float = _TIMEOUT, ca: Path | None = None, *, v2: bool = False
) -> Position | None:
    """Return where a server's oldest events are, with their median time; None when it sends none in time."""
    try:
        events = first_events(f"{server}{_V2_PATH if v2 else _V1_PATH}", timeout, ca)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("no floor of %s: %s", server, why(error))
        return None
    if not events:
        return None
    return Position(host_of(server), cursor_of(events[0]), middle([one["time_us"] for one in events]))


def first_events(url: str, timeout: float, ca: Path | None = None) -> list[dict[str, Any]]:
    """Return up to SAMPLE events, all that a connection brings within `timeout` seconds.

    Raises what `websocket` raises when there is no connection; one that ends early is none of it.
    """
    events: list[dict[str, Any]] = []
    deadline = time.monotonic() + timeout
    connection = connect(url, timeout, ca)
    try:
        while len(events) < SAMPLE and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            for opcode, data in connection.receive():
                if opcode == ABNF.OPCODE_CLOSE:
                    deadline = 0.0
                elif opcode == ABNF.OPCODE_TEXT and len(events) < SAMPLE:
                    try:
                        events.append(parse(data))
                    except BadFrame:
                        continue
    except (OSError, websocket.WebSocketException) as error:
        log.debug("%s, after %d event(s): %s", url, len(events), why(error))
    finally:
        hang_up(connection)
    return events
