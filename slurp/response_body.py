"""HTTP response bodies, read with a limit on size and on total time.

A read time-out of an HTTP client does not bound the total time: it starts again with each byte received.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

_READ_SIZE = 65_536


class ResponseLimitExceeded(HTTPError):
    """A response body that is too large or takes too long to arrive."""


def read_body(
    response: BaseHTTPResponse, max_bytes: int, deadline: float, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return the decoded body of a response whose headers have been read.

    `deadline` is in seconds of `clock`. Raises ResponseLimitExceeded if the body is larger than `max_bytes`
    or does not end before `deadline`, and the exceptions of urllib3 if the connection fails. The connection
    is returned to its pool; after an exception it is closed first.
    """
    body = bytearray()
    try:
        # read1 returns the bytes that are available; read(size) would block until all of them have arrived.
        while chunk := response.read1(_READ_SIZE, decode_content=True):
            body += chunk
            if len(body) > max_bytes:
                raise ResponseLimitExceeded(f"response body larger than {max_bytes:,} bytes")
            if clock() > deadline:
                raise ResponseLimitExceeded("response body not received in time")
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()
    return bytes(body)
