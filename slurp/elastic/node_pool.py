"""The pool of Elasticsearch nodes: selection of a node for each request, and exclusion of unresponsive nodes.

A node that hangs accepts requests and never responds, and the request time-out, which has to allow for slow
responses (90 s), detects this far too late. With several nodes, a monitor thread therefore checks requests
that take unusually long and probes their node. A slow node responds to the probe and keeps its requests. An
unresponsive node is excluded, and its requests fail immediately, so that they are sent to another node.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from elastic_transport import (
    BaseNode,
    ConnectionTimeout,
    HttpHeaders,
    NodeConfig,
    NodePool,
    TransportError,
    Urllib3HttpNode,
)

from slurp.elastic.http_node import BoundedNode

log = logging.getLogger(__name__)

# Seconds. The kernel repeats a lost SYN after one second.
CONNECT_TIMEOUT = 2.0
PROBE_TIMEOUT = 1.0

# A request is overdue after twice the duration of the slowest recent request to its node, within these limits
# (seconds). With each response the recorded duration decays by a tenth.
_MIN_OVERDUE = 0.5
_MAX_OVERDUE = 10.0
_DECAY = 0.9

# Seconds. The first exclusion of a node lasts at least one second, each further one within a minute after the
# end of the last twice as long, up to the maximum.
_MAX_EXCLUSION = 30.0
_EXCLUSION_RESET = 60.0

# Seconds between two checks of the monitor.
_MONITOR_INTERVAL = 0.25

# --es-compress: the zlib level, and the smallest request body in bytes that is compressed.
_COMPRESSION_LEVEL = 1
_MIN_COMPRESSED_BYTES = 1000

_TOO_MANY_REQUESTS = 429


class _Request:
    """A request in flight."""

    __slots__ = ("connection", "is_aborted", "started", "status")

    def __init__(self, started: float) -> None:
        self.started = started
        self.connection: Any = None
        self.is_aborted = False
        self.status: int | None = None


# The attribute `request` is the last request of each thread.
_current = threading.local()


class _TrackedConnection:
    """A mix-in for connection classes of urllib3: limits the time to connect, and registers the connection
    with the request that uses it."""

    def _new_conn(self: Any) -> Any:
        # The connect time-out of urllib3 is no alternative: it also applies to sending the request.
        timeout, self.timeout = self.timeout, min(CONNECT_TIMEOUT, self.timeout or CONNECT_TIMEOUT)
        try:
            sock = super()._new_conn()  # type: ignore[misc]
        finally:
            self.timeout = timeout
        sock.settimeout(timeout)
        _current.request.connection = self
        return sock

    def request(self: Any, *args: Any, **options: Any) -> Any:
        _current.request.connection = self
        return super().request(*args, **options)  # type: ignore[misc]


class MonitoredNode(Urllib3HttpNode):
    """One node with its requests in flight and its exclusion state. Thread-safe."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        # The library would compress at level 9; see docs/decisions.md.
        self._compresses, self._http_compress = self._http_compress, False
        self.pool.ConnectionCls = type("Connection", (_TrackedConnection, self.pool.ConnectionCls), {})
        # A node object of its own, since all connections of the pool may be in use or broken.
        self._probe_node = BoundedNode(config)
        self._requests: set[_Request] = set()
        # Seconds; decays with each response.
        self._slowest = 0.0
        self._lock = threading.Lock()
        self._excluded_at: float | None = None
        self._excluded_until = 0.0
        self._exclusions = 0

    def perform_request(self, *args: Any, **options: Any) -> Any:
        if self._compresses and len(body := options.get("body") or b"") >= _MIN_COMPRESSED_BYTES:
            options["body"] = gzip.compress(body, _COMPRESSION_LEVEL)
            options["headers"] = HttpHeaders({**options["headers"], "content-encoding": "gzip"})
        request = _current.request = _Request(self.clock())
        self._requests.add(request)
        try:
            response = super().perform_request(*args, **options)
        except TransportError as error:
            if request.is_aborted:
                raise ConnectionTimeout("the node does not respond", errors=(error,)) from None
            raise
        finally:
            self._requests.discard(request)
        request.status = response.meta.status
        self._slowest = max(self.clock() - request.started, self._slowest * _DECAY)
        return response

    def close(self) -> None:
        super().close()
        self._probe_node.close()

    @property
    def in_flight(self) -> int:
        """The number of requests without a response yet."""
        return len(self._requests)

    @property
    def overdue(self) -> list[_Request]:
        """The requests that take much longer than recent ones."""
        limit = min(max(2 * self._slowest, _MIN_OVERDUE), _MAX_OVERDUE)
        now = self.clock()
        return [request for request in tuple(self._requests) if now - request.started > limit]

    @property
    def is_excluded(self) -> bool:
        return self._excluded_at is not None

    @property
    def is_due_for_probe(self) -> bool:
        """Whether the node is excluded and its minimum exclusion time is over."""
        return self.is_excluded and self.clock() >= self._excluded_until

    def probe(self) -> bool:
        """Return whether the node responds to a small request on a new connection, with any status.

        The request contains no credentials.
        """
        try:
            self._probe_node.perform_request(
                "HEAD", "/", headers=HttpHeaders({"connection": "close"}), request_timeout=PROBE_TIMEOUT
            )
        except TransportError:
            return False
        return True

    def exclude(self, reason: str) -> None:
        """Exclude the node from selection until it responds; does nothing if it is excluded already."""
        with self._lock:
            if self.is_excluded:
                return
            now = self._excluded_at = self.clock()
            if now - self._excluded_until >= _EXCLUSION_RESET:
                self._exclusions = 0
            self._excluded_until = now + min(2.0**self._exclusions, _MAX_EXCLUSION)
            self._exclusions += 1
        log.warning(
            "Elasticsearch node %s: %s; using the other nodes until it responds", self.base_url, reason
        )

    def readmit(self) -> None:
        """End the exclusion of the node, if it is excluded."""
        if not self.is_excluded:
            return
        with self._lock:
            since, self._excluded_at = self._excluded_at, None
        if since is not None:
            log.info(
                "Elasticsearch node %s responds again after %.0f s, using it",
                self.base_url,
                self.clock() - since,
            )

    def abort_overdue(self) -> None:
        """Shut down the connections of overdue requests; each raises ConnectionTimeout on its own thread."""
        for request in self.overdue:
            request.is_aborted = True
            sock = getattr(request.connection, "sock", None)
            # None while connecting, which ends after CONNECT_TIMEOUT.
            if sock is not None:
                with contextlib.suppress(OSError):
                    # SSLSocket.shutdown would delete the TLS state that another thread is reading with.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class LeastLoadedPool(NodePool):
    """A node pool that selects the node with the fewest requests in flight, round robin among equals.

    A node with an overdue request is selected only if all have one, an excluded node only if all are
    excluded. The client's own pool tests an excluded node with a real request, which then hangs for its whole
    time-out. Its round robin counts for each thread, and `parallel_bulk` starts new threads for each batch.
    """

    def __init__(self, node_configs: list[NodeConfig], node_class: type[BaseNode], **options: Any) -> None:
        super().__init__(node_configs, node_class, **options)
        self.nodes = cast(list[MonitoredNode], self.all())
        self._turns = itertools.count()

    def get(self) -> MonitoredNode:
        if len(self.nodes) == 1:
            return self.nodes[0]
        usable = [node for node in self.nodes if not node.is_excluded] or self.nodes
        loads = [(bool(node.overdue), node.in_flight) for node in usable]
        least = min(loads)
        best = [node for node, load in zip(usable, loads, strict=True) if load == least]
        return best[next(self._turns) % len(best)]

    def mark_dead(self, node: BaseNode, _now: float | None = None) -> None:
        """Exclude a node after a failed request or a status that indicates an overloaded or broken node."""
        status = _current.request.status
        if len(self.nodes) == 1 or (
            status is not None and 400 <= status < 500 and status != _TOO_MANY_REQUESTS
        ):
            return
        reason = "a request failed" if status is None else f"a response had status {status}"
        cast(MonitoredNode, node).exclude(reason)

    def mark_live(self, node: BaseNode) -> None:
        cast(MonitoredNode, node).readmit()


class NodeMonitor:
    """A thread that probes excluded nodes and nodes with overdue requests.

    With one node, or if no node responds, it aborts no request: a repeated request would be as slow.
    """

    def __init__(self, nodes: Sequence[MonitoredNode]) -> None:
        self._nodes = nodes
        self._stop = threading.Event()

    def start(self) -> None:
        if len(self._nodes) > 1:
            threading.Thread(target=self._run, name="es-nodes", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def step(self) -> None:
        """Check each node once."""
        for node in self._nodes:
            if not (node.is_due_for_probe or node.overdue):
                continue
            if node.probe():
                if node.is_due_for_probe:
                    node.readmit()
                continue
            node.exclude("no response to a request and to a probe")
            if any(not other.is_excluded for other in self._nodes):
                node.abort_overdue()

    def _run(self) -> None:
        while not self._stop.wait(_MONITOR_INTERVAL):
            try:
                self.step()
            except Exception:
                log.exception("the check of the Elasticsearch nodes failed, which is a bug; retrying")
