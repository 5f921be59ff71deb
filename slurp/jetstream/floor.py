"""How far back a server goes: the only way to tell a gap from silence behind a filter."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import websocket
from websocket import ABNF

from slurp.jetstream.connection import connect
from slurp.jetstream.hosts import hang_up, why
from slurp.jetstream.landing import SAMPLE
from slurp.jetstream.wire import position_of

log = logging.getLogger(__name__)

_TIMEOUT = 10.0


def floor_us(server: str, timeout: float = _TIMEOUT, ca: Path | None = None) -> int | None:
    """The median time of the first events that a server still has; None when it sends none in time."""
    times: list[int] = []
    deadline = time.monotonic() + timeout
    try:
        # 0 is "from the beginning", and everything counts.
        connection = connect(f"{server}/subscribe?cursor=0", timeout, ca)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("no floor of %s: %s", server, why(error))
        return None
    try:
        connection.settimeout(timeout)
        while len(times) < SAMPLE and time.monotonic() < deadline:
            for opcode, data in connection.receive():
                if opcode == ABNF.OPCODE_CLOSE:
                    deadline = 0.0
                elif (position := position_of([data], server)) is not None:
                    times.append(position.time_us)
    except (OSError, websocket.WebSocketException) as error:
        log.debug("the floor of %s, after %d event(s): %s", server, len(times), why(error))
    finally:
        hang_up(connection)
    return sorted(times)[(len(times) - 1) // 2] if times else None
