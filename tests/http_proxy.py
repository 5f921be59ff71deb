"""An HTTP forward proxy that supports CONNECT and requests with an absolute URL. It resolves no names."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class HttpProxy:
    """A forward proxy that connects to 127.0.0.1 for every host. `requests` has the received headers."""

    def __init__(self, status: int = 200) -> None:
        """`status` is the HTTP status of the response to CONNECT."""
        self._status = status
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[str] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(65_536)):
                    return
                head += data
            self.requests.append(head.decode())
            method, target, rest = head.split(b" ", 2)
            if method == b"CONNECT":
                client.sendall(f"HTTP/1.1 {self._status} Status\r\n\r\n".encode())
                if self._status != 200:
                    client.close()
                    return
                address, first = target, b""
            else:
                address, _, path = target.partition(b"://")[2].partition(b"/")
                first = b"%b /%b %b" % (method, path, rest)
            server = socket.create_connection(("127.0.0.1", int(address.rpartition(b":")[2])))
            self._open.append(server)
            server.sendall(first)
            threading.Thread(target=_forward, args=(server, client), daemon=True).start()
            _forward(client, server)


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
