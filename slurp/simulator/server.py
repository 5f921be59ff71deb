"""The listening socket and its connections."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque

from slurp.simulator.connection import Connection, ConnectionRecord
from slurp.simulator.endpoints import Endpoints
from slurp.simulator.faults import Faults

log = logging.getLogger(__name__)

_JOIN_TIMEOUT = 4.0
_MAX_RECORDS = 10_000


class Server:
    """Accepts connections and runs a thread for each. It can be restarted on the same port."""

    def __init__(self, port: int, endpoints: Endpoints, faults: Faults) -> None:
        self.host = endpoints.options.host
        self.port = port
        self._endpoints = endpoints
        self._faults = faults
        self._lock = threading.Lock()
        self._open: dict[Connection, threading.Thread] = {}
        self._records: deque[ConnectionRecord] = deque(maxlen=_MAX_RECORDS)
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._accepted = 0

    def start(self) -> None:
        """Listen and accept connections on a thread; port 0 is replaced by a free one."""
        if self._listener is not None:
            raise RuntimeError("the simulator is already listening")
        # create_server sets SO_REUSEADDR, so TIME_WAIT does not delay a restart.
        listener = socket.create_server((self.host, self.port), backlog=256)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._acceptor = threading.Thread(
            target=self._accept, args=(listener,), name=f"simulator-{self.port}-accept", daemon=True
        )
        self._acceptor.start()

    def stop(self, clean: bool = True) -> None:
        """Close all connections: `clean` with 1001 as on shutdown, otherwise like a killed process."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        # Closing alone does not wake a thread inside accept() on Linux.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with self._lock:
            connections = dict(self._open)
        for connection in connections:
            if clean:
                connection.close(1001, "server shutting down")
            else:
                connection.kill()
        threads = [thread for thread in (self._acceptor, *connections.values()) if thread is not None]
        self._join(threads)

    def wake(self) -> None:
        """Notify all connections of new events or faults."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.wake()

    @property
    def records(self) -> list[ConnectionRecord]:
        """The last 10,000 connections, in the order they were accepted."""
        with self._lock:
            return list(self._records)

    @property
    def behind(self) -> int | None:
        """Events that the slowest subscriber has not received yet; None without subscribers."""
        with self._lock:
            connections = list(self._open)
        counts = [behind for connection in connections if (behind := connection.behind) is not None]
        return max(counts, default=None)

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if self._listener is listener:
                    log.error("cannot accept a connection: %s", error)
                    time.sleep(0.1)  # out of file descriptors, most likely
                continue
            connection = Connection(sock, self._endpoints, self._faults)
            self._accepted += 1
            thread = threading.Thread(
                target=self._run,
                args=(connection,),
                name=f"simulator-{self.port}-client-{self._accepted}",
                daemon=True,
            )
            with self._lock:
                self._open[connection] = thread
                self._records.append(connection.record)
            if self._listener is not listener:
                connection.kill()  # stop() was called before it was added
            thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                del self._open[connection]

    def _join(self, threads: list[threading.Thread]) -> None:
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for thread in threads:
            # The acceptor is about to start it, and has called kill().
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s did not stop within %.0f s", thread.name, _JOIN_TIMEOUT)
