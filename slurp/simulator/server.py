"""The listening socket and its connections. Knows nothing of where events come from."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from slurp.simulator.connection import Connection, ConnectionRecord, Offer
from slurp.simulator.faults import Faults
from slurp.simulator.store import Store

log = logging.getLogger(__name__)

_JOIN_TIMEOUT = 4.0
_MAX_RECORDS = 10_000


class Server:
    """Accepts subscribers of `store`. Can be stopped and started again on the same port."""

    def __init__(
        self, host: str, port: int, store: Store, faults: Faults, offer: Offer, now_us: Callable[[], int]
    ) -> None:
        self.host = host
        self.port = port
        self._store = store
        self._faults = faults
        self._offer = offer
        self._now_us = now_us
        self._lock = threading.Lock()
        self._open: dict[Connection, threading.Thread] = {}
        self._records: deque[ConnectionRecord] = deque(maxlen=_MAX_RECORDS)
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._accepted = 0

    @property
    def running(self) -> bool:
        return self._listener is not None

    def start(self) -> None:
        if self._listener is not None:
            raise RuntimeError("the simulator is already listening")
        # create_server sets SO_REUSEADDR, so TIME_WAIT does not keep a restart waiting.
        listener = socket.create_server((self.host, self.port), backlog=256)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._acceptor = threading.Thread(
            target=self._accept, args=(listener,), name=f"simulator-{self.port}-accept", daemon=True
        )
        self._acceptor.start()

    def stop(self, clean: bool = True) -> None:
        """Close everything: with 1001 as a shutdown does, or like a killed process."""
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
                connection.leave(1001, "server shutting down")
            else:
                connection.kill()
        threads = [thread for thread in (self._acceptor, *connections.values()) if thread is not None]
        self._join(threads)

    def wake(self) -> None:
        """Tell all connections that something changed."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.wake()

    @property
    def records(self) -> list[ConnectionRecord]:
        with self._lock:
            return list(self._records)

    @property
    def behind(self) -> int | None:
        """How many events the slowest subscriber still has to get; None without subscribers."""
        with self._lock:
            connections = list(self._open)
        known = [behind for connection in connections if (behind := connection.behind) is not None]
        return max(known, default=None)

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if self._listener is listener:
                    log.error("cannot accept a connection: %s", error)
                    time.sleep(0.1)  # out of file descriptors, most likely
                continue
            connection = Connection(sock, self._store, self._faults, self._offer, self._now_us)
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
                connection.kill()  # stop() has not seen this one
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
            # Not yet started: the acceptor is about to, and has told it to end at once.
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s did not stop in time", thread.name)
