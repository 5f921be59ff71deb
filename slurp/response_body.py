"""Answers to HTTP requests, read within bounds: the time-outs of a client begin anew with each byte."""

from __future__ import annotations

import time
from collections.abc import Callable

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

_PIECE = 65_536


class BadAnswer(HTTPError):
    """An answer that is too long, or takes too long."""


def read_within(
    answer: BaseHTTPResponse, most: int, deadline: float, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return the body of an answer whose head was read.

    Raises BadAnswer when it has more than `most` bytes or `clock` shows `deadline` before its end, and what
    urllib3 raises for a connection that breaks. The connection goes back to its pool, closed in these cases.
    """
    body = bytearray()
    try:
        # As much as there is, for a read of a size waits for all of it.
        while piece := answer.read1(_PIECE, decode_content=True):
            body += piece
            if len(body) > most:
                raise BadAnswer(f"more than {most:,} bytes")
            if clock() > deadline:
                raise BadAnswer("it did not end in time")
    except BaseException:
        answer.close()
        raise
    finally:
        answer.release_conn()
    return bytes(body)
