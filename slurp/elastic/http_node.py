"""An HTTP node for the Elasticsearch client that limits the size and duration of responses.

Without limits, a broken proxy that sends an endless response would exhaust memory or block a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from elastic_transport import NodeConfig, Urllib3HttpNode
from urllib3 import HTTPConnectionPool

from slurp.response_body import read_body

# The response to a 5 MB bulk request in which every item fails has about 25 MB.
MAX_RESPONSE_BYTES = 100 * 10**6
# Seconds; for requests without a time-out of their own.
_DEFAULT_TIMEOUT = 90.0


class _Response(NamedTuple):
    """The attributes of a urllib3 response that the node of the client reads."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class _BoundedPool:
    """A wrapper of a urllib3 connection pool that reads response bodies within the limits."""

    def __init__(self, pool: HTTPConnectionPool, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self.close = pool.close

    def urlopen(self, method: str, target: str, **options: Any) -> _Response:
        response = self._pool.urlopen(method, target, preload_content=False, **options)
        deadline = self._clock() + (options.get("timeout") or _DEFAULT_TIMEOUT)
        data = read_body(response, MAX_RESPONSE_BYTES, deadline, self._clock)
        return _Response(response.status, response.headers, data)


class BoundedNode(Urllib3HttpNode):
    """A node whose response bodies have at most MAX_RESPONSE_BYTES and arrive within the request time-out.

    The time for the body starts when the headers have been received.
    """

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        if config.ssl_context is not None:
            # The context defines the trusted CA; the library would add the public CAs to it.
            self.pool.ca_certs = None  # type: ignore[attr-defined]
        self.pool = cast(HTTPConnectionPool, _BoundedPool(self.pool, time.monotonic))
