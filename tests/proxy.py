"""A TCP proxy before a server: it can end TLS, fall silent like a broken router, hold or cut an answer."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

# What `close` does then: no FIN after what was sent, but a reset.
_RESET = struct.pack("ii", 1, 0)


@dataclass
class _Cut:
    request: bytes
    after: int
    reset: bool


class Proxy:
    """Forwards connections to 127.0.0.1:`port`."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._frozen = threading.Event()
        self._cut: _Cut | None = None
        self._held: tuple[bytes, threading.Event] | None = None
        self._pages: Iterator[bytes] | None = None
        self._open: list[socket.socket] = []
        self._accepts = threading.Event()
        self._accepts.set()
        self._backlog: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'wss' if tls else 'ws'}://localhost:{self.port}"
        self.accepted = 0
        # What a client sent in one piece after an answer: of HTTP, the request line.
        self.requests: list[bytes] = []
        # Of these, how many came as far as the server.
        self.passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.release_answers()
        self._accepts.set()
        for one in (self._listener, *self._open, *self._backlog):
            one.close()

    def freeze(self) -> None:
        """Forward nothing more on connections that are open now, in either direction, not even a FIN."""
        frozen, self._frozen = self._frozen, threading.Event()
        frozen.set()

    def silence(self) -> None:
        """Accept connections and never answer, on those that are open as well, until `recover`."""
        self.freeze()
        self._frozen.set()

    def ignore_connections(self) -> None:
        """Be silent, and leave new connections unanswered as well, as where packets are dropped."""
        self.silence()
        self._accepts.clear()
        self._listener.listen(0)
        # What is connected now fills the queue of the kernel; the last attempts stay without an answer.
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.port))
            self._backlog.append(one)

    def recover(self) -> None:
        """Serve new connections again. Those that were open stay silent."""
        self._frozen = threading.Event()
        self._listener.listen(128)
        for one in self._backlog:
            one.close()
        self._accepts.set()

    def cut_answer(self, request: bytes, after: int, *, reset: bool) -> None:
        """End the connection within the answer to the next request whose first line has `request`."""
        self._cut = _Cut(request, after, reset)

    def hold_answers(self, request: bytes) -> None:
        """Keep back the answers to requests whose first line has `request`, until `release_answers`."""
        self._held = request, threading.Event()

    def release_answers(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held[1].set()

    def be_a_gateway(self, statuses: Iterable[int]) -> None:
        """Answer each request with HTML and the next of these statuses, and pass none on, until `pass_on`.

        One that is under way is passed on, with its answer.
        """
        self._pages = map(_page, statuses)

    def pass_on(self) -> None:
        self._pages = None

    def take_page(self) -> bytes | None:
        """What a gateway answers to a request now; None where it passes it on."""
        pages = self._pages
        return None if pages is None else next(pages)

    def count(self, request: bytes) -> int:
        """How many requests had this in their first line."""
        return sum(request in line for line in list(self.requests))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._accepts.wait()
            self.accepted += 1
            threading.Thread(target=self._serve, args=(client, self._frozen), daemon=True).start()

    def _serve(self, client: socket.socket, frozen: threading.Event) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        self.passed += 1
        self._open += [client, server]
        connection = _Connection(self, client, server, frozen)
        threading.Thread(target=connection.answer, daemon=True).start()
        connection.ask()

    def wait_while_held(self, request: bytes) -> None:
        held = self._held
        if held is not None and held[0] in request:
            held[1].wait()

    def take_cut(self, request: bytes) -> _Cut | None:
        """The cut that is meant for the answer to this request, once."""
        cut = self._cut
        if cut is None or cut.request not in request:
            return None
        self._cut = None
        return cut


class _Connection:
    def __init__(
        self, proxy: Proxy, client: socket.socket, server: socket.socket, frozen: threading.Event
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._frozen = frozen
        self._answered = True
        self._request = b""

    def ask(self) -> None:
        """Forward from the client to the server."""
        with contextlib.suppress(OSError):
            while data := self._client.recv(65_536):
                if self._frozen.is_set():
                    return
                if self._answered and (page := self._proxy.take_page()) is not None:
                    self._take_whole_request(data)
                    self._client.sendall(page)
                    break
                if self._answered:
                    self._answered, self._request = False, data.split(b"\r\n", 1)[0]
                    self._proxy.requests.append(self._request)
                self._server.sendall(data)
        self._hang_up(self._server)

    def _take_whole_request(self, data: bytes) -> None:
        """Read the rest of it: what is left unread when a connection is closed costs the answer."""
        while b"\r\n\r\n" not in data and (more := self._client.recv(65_536)):
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        left = (int(length[1]) if length else 0) - len(body)
        while left > 0 and (more := self._client.recv(65_536)):
            left -= len(more)

    def answer(self) -> None:
        """Forward from the server to the client."""
        with contextlib.suppress(OSError):
            while data := self._server.recv(65_536):
                if self._frozen.is_set():
                    return
                self._proxy.wait_while_held(self._request)
                self._answered = True
                if cut := self._proxy.take_cut(self._request):
                    self._client.sendall(data[: cut.after])
                    if cut.reset:
                        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        # Wakes whoever reads from it, without a FIN.
                        self._client.shutdown(socket.SHUT_RD)
                        self._client.close()
                    break
                self._client.sendall(data)
        self._hang_up(self._client)

    def _hang_up(self, other: socket.socket) -> None:
        if not self._frozen.is_set():
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)


def _page(status: int) -> bytes:
    """What a gateway says in place of the server: HTML, and that the connection ends."""
    body = b"<!DOCTYPE html><html><head><title>gateway</title></head><body>Sorry.</body></html>"
    head = f"HTTP/1.1 {status} Gateway\r\nServer: gateway\r\nContent-Type: text/html; charset=utf-8"
    return f"{head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that nobody trusts, and a server's context with it."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl makes the certificate, and it is not here")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
