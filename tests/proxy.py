"""A TCP proxy in front of a server. It can end TLS and cause faults such as silence or cut responses."""

from __future__ import annotations

import contextlib
import re
import select
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

# SO_LINGER with a timeout of 0: `close` sends a reset instead of a FIN.
_RESET = struct.pack("ii", 1, 0)


@dataclass
class _Cut:
    """A response to cut: the part of the request line to match, and the bytes to forward before the cut."""

    request: bytes
    after: int
    reset: bool


class Proxy:
    """A proxy that forwards connections to 127.0.0.1:`port`, and ends TLS if `tls` is given."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._server_port = port
        self._tls = tls
        self._frozen = threading.Event()
        self._cut: _Cut | None = None
        self._held: tuple[bytes, threading.Event] | None = None
        self._pages: tuple[tuple[bytes, ...], Iterator[bytes]] | None = None
        self._open: list[socket.socket | _TlsSocket] = []
        self._accepting = threading.Event()
        self._accepting.set()
        self._backlog: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'wss' if tls else 'ws'}://localhost:{self.port}"
        self.accepted = 0
        """Number of connections accepted from clients."""
        self.requests: list[bytes] = []
        """The first line of what a client sends after a response: the request line of HTTP."""
        self.passed = 0
        """Number of connections made to the server, after the TLS handshake with the client."""
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.release_answers()
        self._accepting.set()
        for one in (self._listener, *self._open, *self._backlog):
            one.close()

    def freeze(self) -> None:
        """Stop forwarding on the connections that are open now, in both directions, including a FIN."""
        frozen, self._frozen = self._frozen, threading.Event()
        frozen.set()

    def silence(self) -> None:
        """Forward nothing on open and new connections until `recover`. New connections are accepted."""
        self.freeze()
        self._frozen.set()

    def ignore_connections(self) -> None:
        """Forward nothing and do not accept new connections until `recover`, as if packets were dropped."""
        self.silence()
        self._accepting.clear()
        self._listener.listen(0)
        # These connections fill the backlog of the kernel, so later ones get no response.
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.port))
            self._backlog.append(one)

    def recover(self) -> None:
        """Forward new connections again. Those that were open stay silent."""
        self._frozen = threading.Event()
        self._listener.listen(128)
        for one in self._backlog:
            one.close()
        self._accepting.set()

    def cut_answer(self, request: bytes, after: int, *, reset: bool) -> None:
        """Close the connection `after` bytes of the response to the next request with `request` in its first
        line, with a TCP reset instead of a FIN if `reset`.
        """
        self._cut = _Cut(request, after, reset)

    def hold_answers(self, request: bytes) -> None:
        """Delay the responses to requests with `request` in their first line until `release_answers`."""
        self._held = request, threading.Event()

    def release_answers(self) -> None:
        """Forward the responses that `hold_answers` delays."""
        held, self._held = self._held, None
        if held is not None:
            held[1].set()

    def act_as_gateway(self, statuses: Iterable[int]) -> None:
        """Respond to each request with HTML and the next of `statuses` until `pass_on`; forward none.

        A request that was already forwarded still gets its response.
        """
        self._pages = (b"",), map(_page, statuses)

    def reject(self, requests: Iterable[bytes], statuses: Iterable[int]) -> None:
        """Respond to each request with one of `requests` in its first line with an error of Elasticsearch and
        the next of `statuses`, 429 or 503, until `pass_on`; forward the other requests.
        """
        self._pages = tuple(requests), map(_error, statuses)

    def pass_on(self) -> None:
        """Forward requests again after `act_as_gateway` or `reject`."""
        self._pages = None

    def own_response(self, request: bytes) -> bytes | None:
        """Return the response of the proxy to the next request, None if the request is forwarded."""
        pages = self._pages
        if pages is None or not any(part in request for part in pages[0]):
            return None
        return next(pages[1])

    def count(self, request: bytes) -> int:
        """Return the number of requests with `request` in their first line."""
        return sum(request in line for line in list(self.requests))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._accepting.wait()
            self.accepted += 1
            threading.Thread(target=self._serve, args=(client, self._frozen), daemon=True).start()

    def _serve(self, accepted: socket.socket, frozen: threading.Event) -> None:
        client: socket.socket | _TlsSocket = accepted
        try:
            if self._tls is not None:
                client = _TlsSocket(self._tls.wrap_socket(accepted, server_side=True))
            server = socket.create_connection(("127.0.0.1", self._server_port))
        except OSError:
            client.close()
            return
        self.passed += 1
        self._open += [client, server]
        connection = _Connection(self, client, server, frozen)
        threading.Thread(target=connection.forward_responses, daemon=True).start()
        connection.forward_requests()

    def wait_while_held(self, request: bytes) -> None:
        """Block while `hold_answers` delays the response to this request."""
        held = self._held
        if held is not None and held[0] in request:
            held[1].wait()

    def take_cut(self, request: bytes) -> _Cut | None:
        """Return the cut for the response to this request, once; None if there is none."""
        cut = self._cut
        if cut is None or cut.request not in request:
            return None
        self._cut = None
        return cut


class _TlsSocket:
    """A TLS connection that one thread reads while another one writes.

    OpenSSL allows one thread at a time to use a connection; Python 3.11 does not prevent two.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._lock = threading.Lock()

    def recv(self, size: int) -> bytes:
        while True:
            with self._lock, contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return self._sock.recv(size)
            self._wait(to_write=False)

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            with self._lock, contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                rest = rest[self._sock.send(rest) :]
                continue
            self._wait(to_write=True)

    def _wait(self, *, to_write: bool) -> None:
        try:
            select.select([] if to_write else [self._sock], [self._sock] if to_write else [], [], 1)
        except ValueError:
            raise OSError("the socket is closed") from None

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        self._sock.setsockopt(level, name, value)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()


class _Connection:
    """A connection of a client and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: Proxy,
        client: socket.socket | _TlsSocket,
        server: socket.socket,
        frozen: threading.Event,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._frozen = frozen
        self._answered = True
        self._request = b""

    def forward_requests(self) -> None:
        """Forward from the client to the server."""
        with contextlib.suppress(OSError):
            while data := self._client.recv(65_536):
                if self._frozen.is_set():
                    return
                if self._answered:
                    request = data.split(b"\r\n", 1)[0]
                    if (page := self._proxy.own_response(request)) is not None:
                        self._read_whole_request(data)
                        self._client.sendall(page)
                        break
                    self._answered, self._request = False, request
                    self._proxy.requests.append(self._request)
                self._server.sendall(data)
        self._shut_down(self._server)

    def _read_whole_request(self, data: bytes) -> None:
        """Read the rest of a request: closing a connection with unread data would discard the response."""
        while b"\r\n\r\n" not in data and (more := self._client.recv(65_536)):
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        left = (int(length[1]) if length else 0) - len(body)
        while left > 0 and (more := self._client.recv(65_536)):
            left -= len(more)

    def forward_responses(self) -> None:
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
                        # Wakes the thread that reads from it, without a FIN.
                        self._client.shutdown(socket.SHUT_RD)
                        self._client.close()
                    break
                self._client.sendall(data)
        self._shut_down(self._client)

    def _shut_down(self, other: socket.socket | _TlsSocket) -> None:
        if not self._frozen.is_set():
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)


def _page(status: int) -> bytes:
    """Return an HTTP response of a gateway: an HTML page, after which the connection is closed."""
    body = b"<!DOCTYPE html><html><head><title>gateway</title></head><body>Sorry.</body></html>"
    return _response(f"{status} Gateway", "Server: gateway", "text/html; charset=utf-8", body)


def _error(status: int) -> bytes:
    """Return an error of Elasticsearch: an overloaded node, or one that has just started."""
    kind, reason = {
        429: ("es_rejected_execution_exception", "rejected execution of a task on the queue"),
        503: ("cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered];"),
    }[status]
    cause = f'{{"type":"{kind}","reason":"{reason}"}}'
    body = f'{{"error":{{"root_cause":[{cause}],{cause[1:]},"status":{status}}}'.encode()
    return _response(f"{status} Error", "X-elastic-product: Elasticsearch", "application/json", body)


def _response(status: str, header: str, content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{header}\r\nContent-Type: {content_type}"
    return f"{head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a self-signed certificate for localhost and a server context that uses it."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl, which creates the certificate, is not installed")
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
