"""The HTTP transport of `--http`: sockets, and limits for slow, numerous or malicious clients."""

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

# Concurrent connections; further ones get 503.
_MAX_CONNECTIONS = 24
# Seconds from the connection to its end, and between two pieces of a request.
_CONNECTION_TIMEOUT = 20.0
_READ_TIMEOUT = 5.0
# Bytes of the request line, and of the request line with all headers.
_MAX_LINE = 4096
_MAX_HEAD = 32_768
_MAX_PARAMETERS = 16
# Seconds between two checks for connections past their time-out.
_CHECK_EVERY = 0.2
# Seconds that responses in progress get at shutdown.
_FINISH_TIMEOUT = 1.0
# Seconds between two log messages about a bug.
_LOG_EVERY = 60.0

# Other sites can neither embed these pages nor be loaded by them.
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
    """A GET or HEAD request; `parameters` has the first value of each query parameter."""

    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    accept: str = ""


@dataclass(frozen=True)
class Response:
    """A response, which is not cached unless `headers` allow it."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})


def text_response(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return a plain-text response of one line or more."""
    return Response(f"{text}\n".encode("utf-8", "replace"), status=status)


class HttpServer(ThreadingHTTPServer):
    """An HTTP server that listens from its construction on; `run` serves with one thread per connection."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        address: Address,
        handle: Callable[[Request], Response],
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen at `address`. The accepting thread calls `tick` several times a second.

        Raises Fatal when the address is not available.
        """
        self.handle = handle
        self.configured_address = address
        self._tick = tick
        # The deadline of each open connection (monotonic seconds), oldest connection first.
        self._connections: dict[socket.socket, float] = {}
        # The connections whose request has been received completely.
        self._received: set[socket.socket] = set()
        self._numbers = itertools.count(1)
        self._logged_at = float("-inf")
        try:
            family, *_, socket_address = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.address_family = family
            super().__init__(socket_address[:2], _Handler)  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            raise Fatal(f"--http {address}: {_bind_error(error, address)}", Exit.USAGE) from None

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks up the host name of this machine, which may block for a long time.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def address(self) -> Address:
        """The address it listens at, with the actual port if port 0 was configured."""
        return Address(self.configured_address.host, self.server_port)

    @property
    def on_loopback(self) -> bool:
        return ip_address(self.server_name.partition("%")[0]).is_loopback

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, then let responses in progress finish within one second."""
        self.timeout = _CHECK_EVERY
        checked = 0.0
        try:
            while not stop.is_set():
                self.handle_request()
                if time.monotonic() - checked >= _CHECK_EVERY:
                    checked = time.monotonic()
                    self._disconnect(before=checked)
                    self._tick()
        finally:
            self.server_close()
            deadline = time.monotonic() + _FINISH_TIMEOUT
            while self._received and time.monotonic() < deadline:
                time.sleep(_CHECK_EVERY / 10)
            self._disconnect(before=float("inf"))

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # When no file descriptor is free, the connection stays in the backlog, and without this pause the
            # loop would spin.
            time.sleep(_CHECK_EVERY)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._connections) >= _MAX_CONNECTIONS and not self._drop_oldest_idle():
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(_BUSY)
                # Closing a socket with unread data resets the connection, and the client would lose the 503.
                request.recv(_MAX_HEAD)
            request.close()
            return
        self._connections[request] = time.monotonic() + _CONNECTION_TIMEOUT
        threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"http-{next(self._numbers)}",
            daemon=True,
        ).start()

    def _drop_oldest_idle(self) -> bool:
        """Close the oldest connection without a complete request, so that idle clients cannot block /healthz.

        Return False when there is none.
        """
        idle = next((one for one in list(self._connections) if one not in self._received), None)
        if idle is None:
            return False
        self._connections.pop(idle, None)
        with contextlib.suppress(OSError):
            idle.shutdown(socket.SHUT_RDWR)
        return True

    def mark_received(self, request: Any) -> None:
        """Record that the request of this connection has been received completely."""
        self._received.add(request)

    def shutdown_request(self, request: Any) -> None:
        self._connections.pop(request, None)
        self._received.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, OSError | LineTooLong):
            log.debug("--http: %s", error)
        else:
            self.log_bug(error)

    def log_bug(self, error: BaseException | None) -> None:
        """Log an unexpected error, at most once a minute: clients decide how often it occurs."""
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            log.error("--http: a request failed, which is a bug", exc_info=error)

    def _disconnect(self, before: float) -> None:
        """Shut down the connections whose deadline is at or before this time; their threads end by that."""
        for request, deadline in list(self._connections.items()):
            if deadline <= before:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


class _BoundedReader:
    """Reads the lines of a request, up to 32 KiB in total."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _MAX_HEAD

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("head")
        return line

    def close(self) -> None:
        self._file.close()


class _Handler(BaseHTTPRequestHandler):
    """Handles the single request of a connection."""

    server: HttpServer
    timeout = _READ_TIMEOUT
    protocol_version = "HTTP/1.1"
    # The base class sends no status line and headers to HTTP/0.9 clients; this one does.
    default_request_version = "HTTP/1.0"

    def setup(self) -> None:
        super().setup()
        self.rfile = _BoundedReader(self.rfile)  # type: ignore[assignment]

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.requestline = self.request_version = self.command = ""
        self.raw_requestline = self.rfile.readline(_MAX_LINE + 1)
        if len(self.raw_requestline) > _MAX_LINE:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self.raw_requestline and self.parse_request():
            self.server.mark_received(self.connection)
            self._respond()
        self.close_connection = True

    def _respond(self) -> None:
        if self.command not in ("GET", "HEAD"):
            response = text_response("only GET and HEAD are allowed", HTTPStatus.METHOD_NOT_ALLOWED)
            self._send(response, {"Allow": "GET, HEAD"})
        elif reason := self._forbidden():
            self._send(text_response(reason, HTTPStatus.FORBIDDEN))
        elif (request := self._parsed()) is None:
            self._send(text_response("invalid URL or too many parameters", HTTPStatus.BAD_REQUEST))
        else:
            try:
                response = self.server.handle(request)
            except Exception as error:
                self.server.log_bug(error)
                response = text_response(
                    "internal error, see the log of the worker", HTTPStatus.INTERNAL_SERVER_ERROR
                )
            self._send(response)

    def _forbidden(self) -> str:
        """Return why a request from another site's page is rejected; '' for an allowed request."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.request_version >= "HTTP/1.1"):
            return "exactly one Host header is required"
        # DNS rebinding: a name that its owner points at 127.0.0.1 would let any site read these pages.
        if hosts and self.server.on_loopback and not is_loopback(_hostname(hosts[0])):
            return "reachable as localhost and 127.0.0.1 only"
        site = self.headers.get("Sec-Fetch-Site", "none")
        # Other sites may link to the page, but not load it into theirs.
        if site not in ("none", "same-origin") and self.headers.get("Sec-Fetch-Dest") != "document":
            return "requests from other sites are not allowed"
        return ""

    def _parsed(self) -> Request | None:
        try:
            url = urlsplit(self.path)
            parameters = parse_qs(url.query, max_num_fields=_MAX_PARAMETERS, errors="replace")
        except ValueError:
            return None
        first = {name: values[0] for name, values in parameters.items()}
        return Request(url.path, first, ", ".join(self.headers.get_all("Accept", [])))

    def _send(self, response: Response, extra: Mapping[str, str] | None = None) -> None:
        self.send_response(response.status)
        fixed = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Connection": "close",
        }
        for name, value in {**_HEADERS, **response.headers, **(extra or {}), **fixed}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        # Without `message`, which may quote the request.
        status = HTTPStatus(code)
        self._send(text_response(status.phrase.lower(), status))

    def version_string(self) -> str:
        return "skeetslurper"

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("--http: %s", format % args)


def _hostname(host: str) -> str:
    """Return the host name of a Host header without the port; '' if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _bind_error(error: OSError | UnicodeError, address: Address) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"{address.host} is not an address of this machine"
    reason = (error.strerror or str(error)).lower()
    return f"{reason}; choose another port, or 0 for any free one" if address.port else reason
