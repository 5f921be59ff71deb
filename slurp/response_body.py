"""Reading HTTP response bodies with limits on size and time.

The read timeout of an HTTP client restarts with each byte, so it does not limit the time of a response.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

_CHUNK = 65_536


class BadResponse(HTTPError):
    """A response that is too long, or not complete in time."""


def read_body(
    response: BaseHTTPResponse, max_bytes: int, deadline: float, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return the body of a response whose headers have been read.

    Raises BadResponse if the body has more than `max_bytes` bytes or is not complete when `clock` reaches
    `deadline`, and the exceptions of urllib3 if the connection breaks. The connection returns to its pool,
    closed after an error.
    """
    body = bytearray()
    try:
        # Unlike read(size), read1 does not wait until `size` bytes are there.
        while chunk := response.read1(_CHUNK, decode_content=True):
            body += chunk
            if len(body) > max_bytes:
                raise BadResponse(f"more than {max_bytes:,} bytes")
            if clock() > deadline:
                raise BadResponse("response not complete in time")
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()
    return bytes(body)
