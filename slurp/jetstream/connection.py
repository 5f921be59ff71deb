"""WebSocket connections to Jetstream servers, with a bound on everything a server may send.

The client library buffers a frame of any declared length and all fragments of a message. `Connection.receive`
uses `MessageParser` instead, which replaces messages of more than MAX_FRAME_BYTES.
"""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Any

import websocket
from websocket import (
    ABNF,
    WebSocketBadStatusException,
    WebSocketException,
    WebSocketProxyException,
    WebSocketTimeoutException,
)
from websocket._handshake import CookieJar
from websocket._http import connect as open_socket
from websocket._http import proxy_info

from slurp.jetstream.message_parser import MessageParser
from slurp.proxies import BadProxy, proxy_for

log = logging.getLogger(__name__)

# Status line, headers and body of the handshake response. Real ones have a few hundred bytes.
_MAX_HANDSHAKE_BYTES = 65_536
_READ_BYTES = 65_536

# An entry for the library's list of hosts without proxy that matches no host.
_NO_HOST = "-"

# The library has one cookie jar for all connections: one server could add headers to handshakes with another.
CookieJar.add = lambda set_cookie: None  # type: ignore[method-assign]


class Connection(websocket.WebSocket):
    """The client library's connection with `receive` in place of its `recv…` methods."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._parser = MessageParser()
        self._failure: WebSocketException | None = None

    def connect(self, url: str, **options: Any) -> None:
        self.sock_opt.timeout = options.get("timeout")
        sock = self._open_socket(url)
        # The library closes the socket if it raises.
        handshake = _BoundedHandshake(sock, options.get("timeout"))
        super().connect(url, socket=handshake, **options)  # type: ignore[no-untyped-call]
        self.sock = sock

    def _open_socket(self, url: str) -> Any:
        """Return a connected socket. Raises OSError or WebSocketException; an error names the proxy."""
        try:
            proxy = proxy_for(url)
        except BadProxy as error:
            raise WebSocketProxyException(str(error)) from None
        # The library would read the environment itself, and uses no proxy for the hosts in this list.
        info = proxy_info()  # type: ignore[no-untyped-call]
        info.no_proxy = ["*"] if proxy is None else [_NO_HOST]
        if proxy is not None:
            info.proxy_host, info.proxy_port, info.auth = proxy.host, proxy.port, proxy.auth
        try:
            sock, _ = open_socket(url, self.sock_opt, info, None)
        except ssl.SSLError:
            raise  # concerns the server's certificate, not the proxy
        except (OSError, WebSocketException) as error:
            if proxy is None:
                raise
            reason = getattr(error, "strerror", None) or error
            raise WebSocketProxyException(f"through proxy {proxy}: {reason}") from None
        return sock

    def receive(self) -> list[tuple[int, bytes]]:
        """Return opcode and payload of the messages received, at least one. Pings are answered and left out.

        Raises:
            WebSocketTimeoutException: no complete message arrived in time, even if part of one did. Received
                bytes are kept for the next call.
            OSError, WebSocketException: the connection failed. All messages before that were returned.
        """
        if self._failure is not None:
            raise self._failure
        deadline = time.monotonic() + (self.sock_opt.timeout or float("inf"))
        while True:
            # First what the last call left unparsed.
            messages = self._parser.next_messages()
            if not messages:
                self._parser.feed(self._recv(_READ_BYTES))  # type: ignore[no-untyped-call]
                messages = self._parser.next_messages()
            pings = [data for opcode, data in messages if opcode == ABNF.OPCODE_PING]
            if pings:
                messages = [message for message in messages if message[0] != ABNF.OPCODE_PING]
                self._send_pongs(pings, raise_now=not messages)
            if messages:
                return messages
            if time.monotonic() >= deadline:
                raise WebSocketTimeoutException("no complete message in time")

    def _send_pongs(self, pings: list[bytes], *, raise_now: bool) -> None:
        """Answer pings.

        A failure ends the connection, but only after messages received with them are returned.
        """
        try:
            for data in pings:
                self.pong(data)
        except (WebSocketException, OSError) as error:
            # A time-out as well: half a pong may have been sent.
            self._failure = WebSocketException(f"cannot send a pong: {error}")
            if raise_now:
                raise self._failure from None


class _BoundedHandshake:
    """A socket for the handshake that limits the bytes and the total seconds of the response."""

    def __init__(self, sock: Any, timeout: float | None) -> None:
        self._sock = sock
        self._bytes_left = _MAX_HANDSHAKE_BYTES
        self._deadline = time.monotonic() + (timeout or float("inf"))

    def recv(self, size: int) -> bytes:
        if time.monotonic() >= self._deadline:
            raise TimeoutError
        data: bytes = self._sock.recv(size)
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise WebSocketException(f"handshake response of more than {_MAX_HANDSHAKE_BYTES:,} bytes")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def connect(url: str, timeout: float, ca: Path | None = None) -> Connection:
    """Return a connection to `url`, verified with the certificates in `ca` or else those of the system.

    Raises OSError or WebSocketException, whatever the server responds.
    """
    connection = Connection(
        sslopt={} if ca is None else {"ca_certs": str(ca)},
        # orjson checks UTF-8; the check in pure Python costs ten times the rest of receiving.
        skip_utf8_validation=True,
        enable_multithread=False,
    )
    try:
        # Without redirects: a server could redirect to an arbitrary host, or to a connection without TLS.
        connection.connect(url, timeout=timeout, redirect_limit=0)
    except (OSError, WebSocketException):
        raise
    except Exception as error:
        # The library raises other exceptions for some responses: ValueError for a non-numeric status.
        raise WebSocketException(f"handshake failed: {type(error).__name__}: {error}") from None
    return connection


def close_connection(connection: Any) -> None:
    """Send a close frame and shut down without waiting for the response, which a busy server sends late."""
    try:
        connection.send_close()
        connection.shutdown()
    except (OSError, WebSocketException) as error:
        log.debug("closing a connection failed: %s", describe_error(error))


def describe_error(error: Exception) -> str:
    """Return the reason why a connection failed, in one line."""
    if isinstance(error, WebSocketBadStatusException):
        body = (error.resp_body or b"").decode("utf-8", "replace").strip()[:200]
        return f"HTTP {error.status_code} {body}".strip()
    if isinstance(error, WebSocketTimeoutException | TimeoutError):
        return "no response in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.strerror or error} (a CA of your own: --jetstream-ca)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
