"""The Elasticsearch nodes: which one gets the next request, and which are left out until they answer.

A node that hangs accepts requests and answers none, so a time-out that suits slow answers (90 s) finds it far
too late. With several nodes a watcher therefore looks at requests that take unusually long and probes their
node. A slow node answers the probe and keeps its request. A silent one is excluded, and its requests fail at
once, so that they are sent to another node.
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

from slurp.elastic.http_node import BoundedAnswers

log = logging.getLogger(__name__)

# Seconds. A first SYN that gets lost is repeated after one.
CONNECT_TIMEOUT = 2.0
PROBE_TIMEOUT = 1.0

# A request is overdue after twice the slowest recent answer of its node, within these limits (seconds). Each
# answer lowers what counts as the slowest by a tenth.
_OVERDUE_LEAST = 0.5
_OVERDUE_MOST = 10.0
_FADE = 0.9

# An excluded node stays out for one second, twice as long each time it is excluded again within a minute.
_OUT_MOST = 30.0
_FORGIVEN_AFTER = 60.0

_LOOK_EVERY = 0.25

# --es-compress: level of zlib, and the bytes of a request that are worth it.
_LEVEL = 1
_COMPRESSED_FROM = 1000

_TOO_MANY = 429


class _Call:
    """A request in flight."""

    __slots__ = ("connection", "given_up", "started", "status")

    def __init__(self, started: float) -> None:
        self.started = started
        self.connection: Any = None
        self.given_up = False
        self.status: int | None = None


# The last request of each thread, as `call`.
_current = threading.local()


class _Connection:
    """Mixed into a connection class of urllib3: connects quickly or fails, and is known to its request."""

    def _new_conn(self: Any) -> Any:
        # Not by a connect time-out of urllib3: that would limit the sending of the request as well.
        timeout, self.timeout = self.timeout, min(CONNECT_TIMEOUT, self.timeout or CONNECT_TIMEOUT)
        try:
            opened = super()._new_conn()  # type: ignore[misc]
        finally:
            self.timeout = timeout
        opened.settimeout(timeout)
        _current.call.connection = self
        return opened

    def request(self: Any, *args: Any, **options: Any) -> Any:
        _current.call.connection = self
        return super().request(*args, **options)  # type: ignore[misc]


class Node(Urllib3HttpNode):
    """One node, its requests in flight, and whether it is excluded. Thread-safe."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        # Not by the library, which compresses at level 9; see docs/decisions.md.
        self._compresses, self._http_compress = self._http_compress, False
        self.pool.ConnectionCls = type("Connection", (_Connection, self.pool.ConnectionCls), {})
        # With connections of its own: those of the pool may all be in use, or as dead as the node.
        self._prober = BoundedAnswers(config)
        self._calls: set[_Call] = set()
        self._slowest = 0.0
        self._lock = threading.Lock()
        self._excluded_at: float | None = None
        self._out_until = 0.0
        self._exclusions = 0

    def perform_request(self, *args: Any, **options: Any) -> Any:
        if self._compresses and len(body := options.get("body") or b"") >= _COMPRESSED_FROM:
            options["body"] = gzip.compress(body, _LEVEL)
            options["headers"] = HttpHeaders({**options["headers"], "content-encoding": "gzip"})
        call = _current.call = _Call(self.clock())
        self._calls.add(call)
        try:
            answer = super().perform_request(*args, **options)
        except TransportError as error:
            if call.given_up:
                raise ConnectionTimeout("the node does not answer", errors=(error,)) from None
            raise
        finally:
            self._calls.discard(call)
        call.status = answer.meta.status
        self._slowest = max(self.clock() - call.started, self._slowest * _FADE)
        return answer

    def close(self) -> None:
        super().close()
        self._prober.close()

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return len(self._calls)

    @property
    def overdue(self) -> list[_Call]:
        """Requests that take much longer than usual."""
        limit = min(max(2 * self._slowest, _OVERDUE_LEAST), _OVERDUE_MOST)
        now = self.clock()
        return [call for call in tuple(self._calls) if now - call.started > limit]

    @property
    def is_excluded(self) -> bool:
        return self._excluded_at is not None

    @property
    def may_return(self) -> bool:
        """Whether an excluded node has been out long enough for a probe to bring it back."""
        return self.is_excluded and self.clock() >= self._out_until

    def answers(self) -> bool:
        """Whether the node answers a small request on a new connection, with any status.

        Sends no credentials.
        """
        try:
            self._prober.perform_request(
                "HEAD", "/", headers=HttpHeaders({"connection": "close"}), request_timeout=PROBE_TIMEOUT
            )
        except TransportError:
            return False
        return True

    def exclude(self, reason: str) -> None:
        """Leave the node out until it answers."""
        with self._lock:
            if self.is_excluded:
                return
            now = self._excluded_at = self.clock()
            if now - self._out_until >= _FORGIVEN_AFTER:
                self._exclusions = 0
            self._out_until = now + min(2.0**self._exclusions, _OUT_MOST)
            self._exclusions += 1
        log.warning(
            "Elasticsearch node %s: %s; using the other nodes until it answers", self.base_url, reason
        )

    def readmit(self) -> None:
        """Use the node again, if it was excluded."""
        if not self.is_excluded:
            return
        with self._lock:
            since, self._excluded_at = self._excluded_at, None
        if since is not None:
            log.info(
                "Elasticsearch node %s answers again after %.0f s, using it",
                self.base_url,
                self.clock() - since,
            )

    def give_up_overdue(self) -> None:
        """End the requests that take too long; each fails with ConnectionTimeout on its own thread."""
        for call in self.overdue:
            call.given_up = True
            opened = getattr(call.connection, "sock", None)
            # None while it connects, which ends soon by itself.
            if opened is not None:
                with contextlib.suppress(OSError):
                    # Not a TLS socket's own method: it drops the TLS state that another thread reads with.
                    socket.socket.shutdown(opened, socket.SHUT_RDWR)


class Nodes(NodePool):
    """Selects the node with the fewest requests in flight, in turns where several have as few.

    A node with an overdue request is the last choice, an excluded one none at all unless all are.
    The client's own pool brings a node back by a real request, which then hangs for its whole time-out. Its
    round robin counts for each thread, and `parallel_bulk` has new threads for each batch.
    """

    def __init__(self, node_configs: list[NodeConfig], node_class: type[BaseNode], **options: Any) -> None:
        super().__init__(node_configs, node_class, **options)
        self.nodes = cast(list[Node], self.all())
        self._turns = itertools.count()

    def get(self) -> Node:
        if len(self.nodes) == 1:
            return self.nodes[0]
        usable = [node for node in self.nodes if not node.is_excluded] or self.nodes
        loads = [(bool(node.overdue), node.in_flight) for node in usable]
        least = min(loads)
        best = [node for node, load in zip(usable, loads, strict=True) if load == least]
        return best[next(self._turns) % len(best)]

    def mark_dead(self, node: BaseNode, _now: float | None = None) -> None:
        """A request failed, or was answered with a status that tells of an overloaded or broken node."""
        status = _current.call.status
        if len(self.nodes) == 1 or (status is not None and 400 <= status < 500 and status != _TOO_MANY):
            return
        reason = "a request failed" if status is None else f"a request was answered with status {status}"
        cast(Node, node).exclude(reason)

    def mark_live(self, node: BaseNode) -> None:
        cast(Node, node).readmit()


class Watcher:
    """Probes nodes that seem silent and those that are excluded, on a thread of its own.

    Where there is one node, or none answers, nothing is done: sent again, a request would be slow again.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._over = threading.Event()

    def start(self) -> None:
        if len(self._nodes) > 1:
            threading.Thread(target=self._run, name="es-nodes", daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def step(self) -> None:
        """Look at each node once."""
        for node in self._nodes:
            if not (node.may_return or node.overdue):
                continue
            if node.answers():
                if node.may_return:
                    node.readmit()
                continue
            node.exclude("no answer to a request, nor to a probe")
            if any(not other.is_excluded for other in self._nodes):
                node.give_up_overdue()

    def _run(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            try:
                self.step()
            except Exception:
                log.exception("the look at the Elasticsearch nodes failed, which is a bug; looking again")
