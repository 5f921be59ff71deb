"""Sockets: requests in, answers out, and bounds for clients that are slow, many or malicious."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

from slurp.addresses import Address, is_loopback
from slurp.errors import Exit, Fatal

log = logging.getLogger(__name__)

# At once; whoever comes then is told to come again.
_CONNECTIONS = 24
# From the connection to its end, in seconds, and between two pieces of a request.
_WITHIN = 20.0
_PIECE = 5.0
# Bytes of a request line, and of that with all headers.
_LINE = 4096
_HEAD = 32_768
_PARAMETERS = 16
_LOOK_EVERY = 0.2
_LAST_ANSWERS = 1.0
_TELL_EVERY = 60.0

# Nothing of ours is for another site, and nothing of another site is for us.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 5\r\n\r\nbusy\n"


@dataclass(frozen=True)
class Request:
    """`parameters` has the first value of each."""

    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    accept: str = ""


@dataclass(frozen=True)
class Answer:
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})


def plain(text: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(f"{text}\n".encode("utf-8", "replace"), status=status)


class Server(ThreadingHTTPServer):
    """Listens from the beginning; `run` serves, a thread for each connection, until it is told to end."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self, address: Address, answer: Callable[[Request], Answer], tick: Callable[[], None] = lambda: None
    ) -> None:
        """`tick` is called a few times a second, by the thread that accepts.

        Raises Fatal when the address can't be had.
        """
        self.answer = answer
        self.wanted = address
        self._tick = tick
        # Until when each connection may last (monotonic seconds), the oldest first.
        self._open: dict[socket.socket, float] = {}
        # Of these, those whose request has come.
        self._asked: set[socket.socket] = set()
        self._numbers = itertools.count(1)
        self._told = float("-inf")
        try:
            family, *_, where = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.address_family = family
            super().__init__(where[:2], _Handler)  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            raise Fatal(f"--http {address}: {_why(error, address)}", Exit.USAGE) from None

    def server_bind(self) -> None:
        # Not that of HTTPServer, which asks the name service for our name and may wait for long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def address(self) -> Address:
        """Where it listens, with the port that was chosen."""
        return Address(self.wanted.host, self.server_port)

    @property
    def on_loopback(self) -> bool:
        return ip_address(self.server_name.partition("%")[0]).is_loopback

    def run(self, over: threading.Event) -> None:
        self.timeout = _LOOK_EVERY
        looked = 0.0
        try:
            while not over.is_set():
                self.handle_request()
                if time.monotonic() - looked >= _LOOK_EVERY:
                    looked = time.monotonic()
                    self._hang_up(before=looked)
                    self._tick()
        finally:
            self.server_close()
            # What was asked is answered yet.
            until = time.monotonic() + _LAST_ANSWERS
            while self._asked and time.monotonic() < until:
                time.sleep(_LOOK_EVERY / 10)
            self._hang_up(before=float("inf"))

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # Without a file descriptor to spare the client goes on waiting, and would be seen again at once.
            time.sleep(_LOOK_EVERY)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._open) >= _CONNECTIONS and not self._make_room():
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(_BUSY)
                # Closed with something unread, the answer would be taken back.
                request.recv(_HEAD)
            request.close()
            return
        self._open[request] = time.monotonic() + _WITHIN
        threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"http-{next(self._numbers)}",
            daemon=True,
        ).start()

    def _make_room(self) -> bool:
        """Let go of whoever has been silent for longest: nobody keeps /healthz from being asked."""
        silent = next((one for one in list(self._open) if one not in self._asked), None)
        if silent is None:
            return False
        self._open.pop(silent, None)
        with contextlib.suppress(OSError):
            silent.shutdown(socket.SHUT_RDWR)
        return True

    def has_asked(self, request: Any) -> None:
        """The whole request is there."""
        self._asked.add(request)

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        self._asked.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, OSError | LineTooLong):
            log.debug("--http: %s", error)
        else:
            self.tell_bug(error)

    def tell_bug(self, error: BaseException | None) -> None:
        """Now and then: clients decide how many there are."""
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY:
            self._told = now
            log.error("a request at --http failed, which is a bug", exc_info=error)

    def _hang_up(self, before: float) -> None:
        """End what has lasted too long; its thread wakes up and goes."""
        for request, until in list(self._open.items()):
            if until <= before:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


class _Head:
    """The head of a request, bounded as a whole."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _HEAD

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("head")
        return line

    def close(self) -> None:
        self._file.close()


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: Server
    timeout = _PIECE
    protocol_version = "HTTP/1.1"
    # What HTTP 0.9 asks gets a head as well.
    default_request_version = "HTTP/1.0"

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile)  # type: ignore[assignment]

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.requestline = self.request_version = self.command = ""
        self.raw_requestline = self.rfile.readline(_LINE + 1)
        if len(self.raw_requestline) > _LINE:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self.raw_requestline and self.parse_request():
            self.server.has_asked(self.connection)
            self._answer()
        self.close_connection = True

    def _answer(self) -> None:
        if self.command not in ("GET", "HEAD"):
            self._send(plain("only GET and HEAD", HTTPStatus.METHOD_NOT_ALLOWED), {"Allow": "GET, HEAD"})
        elif refusal := self._refusal():
            self._send(plain(refusal, HTTPStatus.FORBIDDEN))
        elif (request := self._request()) is None:
            self._send(plain("no request of this page", HTTPStatus.BAD_REQUEST))
        else:
            try:
                answer = self.server.answer(request)
            except Exception as error:
                self.server.tell_bug(error)
                answer = plain("a bug: the log has more", HTTPStatus.INTERNAL_SERVER_ERROR)
            self._send(answer)

    def _refusal(self) -> str:
        """Why a browser that asks for somebody else's page gets nothing; '' when it is welcome."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.request_version >= "HTTP/1.1"):
            return "exactly one Host header, please"
        # A name that its owner has turned to 127.0.0.1 would let any page read ours.
        if hosts and self.server.on_loopback and not is_loopback(_name(hosts[0])):
            return "this is reachable as localhost and 127.0.0.1 only"
        site = self.headers.get("Sec-Fetch-Site", "none")
        # A link to us is one thing, being loaded into a page another.
        if site not in ("none", "same-origin") and self.headers.get("Sec-Fetch-Dest") != "document":
            return "not for other sites"
        return ""

    def _request(self) -> Request | None:
        try:
            url = urlsplit(self.path)
            found = parse_qs(url.query, max_num_fields=_PARAMETERS, errors="replace")
        except ValueError:
            return None
        first = {name: values[0] for name, values in found.items()}
        return Request(url.path, first, ", ".join(self.headers.get_all("Accept", [])))

    def _send(self, answer: Answer, more: Mapping[str, str] | None = None) -> None:
        self.send_response(answer.status)
        own = {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Connection": "close",
        }
        for name, value in {**_HEADERS, **answer.headers, **(more or {}), **own}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        # The message may quote the request, and nobody needs it back.
        status = HTTPStatus(code)
        self._send(plain(status.phrase.lower(), status))

    def version_string(self) -> str:
        return "skeetslurper"

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("--http: %s", format % args)


def _name(host: str) -> str:
    """The name of a Host header; '' when it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _why(error: OSError | UnicodeError, address: Address) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"{address.host} is no address of this machine"
    reason = (error.strerror or str(error)).lower()
    return f"{reason}; choose another port, or 0 for any free one" if address.port else reason
