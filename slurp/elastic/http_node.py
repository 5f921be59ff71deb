"""A node of the Elasticsearch client that bounds answers: a broken proxy may send one without end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from elastic_transport import NodeConfig, Urllib3HttpNode
from urllib3 import HTTPConnectionPool

from slurp.response_body import read_body

# A bulk request of 5 MB whose items all fail is answered with some 25 MB.
MOST_BYTES = 100 * 10**6
# For requests that set no time-out of their own.
_WITHIN = 90.0


class _Answer(NamedTuple):
    """What the node reads of an answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class _Pool:
    """A connection pool of urllib3 that reads answers within bounds."""

    def __init__(self, pool: HTTPConnectionPool, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self.close = pool.close

    def urlopen(self, method: str, target: str, **options: Any) -> _Answer:
        answer = self._pool.urlopen(method, target, preload_content=False, **options)
        deadline = self._clock() + (options.get("timeout") or _WITHIN)
        data = read_body(answer, MOST_BYTES, deadline, self._clock)
        return _Answer(answer.status, answer.headers, data)


class BoundedAnswers(Urllib3HttpNode):
    """Reads at most MOST_BYTES of an answer, for no longer after its head than a request may last."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        if config.ssl_context is not None:
            # It knows whom to believe; the library would add the public CAs to it.
            self.pool.ca_certs = None  # type: ignore[attr-defined]
        self.pool = cast(HTTPConnectionPool, _Pool(self.pool, time.monotonic))
