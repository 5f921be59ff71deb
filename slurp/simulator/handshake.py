"""The HTTP handshake: read a request head, write the response. Heads may be up to 1 MiB."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

MAX_HEAD = 1 << 20
"""The limit of Go's HTTP server; 10,000 DIDs just fit. websockets itself stops at 8 KiB a line."""
_TIMEOUT = 10.0


class HandshakeRejected(Exception):
    """The handshake is answered with an HTTP error, or closed without a response when `status` is 0."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class RequestHead:
    """Request line and headers."""

    method: str
    target: str
    protocol: str
    headers: Headers


def read_head(sock: socket.socket, stopped: Callable[[], bool]) -> tuple[RequestHead, bytes]:
    """Read a request head; return it with the bytes received after it. Raises HandshakeRejected."""
    data = bytearray()
    deadline = time.monotonic() + _TIMEOUT
    sock.settimeout(0.2)
    searched = 0
    while (end := data.find(b"\r\n\r\n", searched)) < 0:
        searched = max(0, len(data) - 3)
        if len(data) > MAX_HEAD:
            raise HandshakeRejected(431, "request header fields too large")
        if stopped() or time.monotonic() > deadline:
            raise HandshakeRejected(0, "no request")
        try:
            chunk = sock.recv(65_536)
        except TimeoutError:
            continue
        if not chunk:
            raise HandshakeRejected(0, "closed before the request")
        data += chunk
    return parse_head(bytes(data[:end])), bytes(data[end + 4 :])


def read_body(sock: socket.socket, head: RequestHead, received: bytes) -> bytes:
    """Return the body of a request, of which some bytes were received. Raises HandshakeRejected."""
    text = head.headers.get("Content-Length", "0")
    length = int(text) if text.isascii() and text.isdigit() else 0
    if length > MAX_HEAD:
        raise HandshakeRejected(413, "")
    body = bytearray(received)
    sock.settimeout(_TIMEOUT)
    while len(body) < length:
        if not (chunk := sock.recv(65_536)):
            raise HandshakeRejected(0, "closed before the end of the request")
        body += chunk
    return bytes(body[:length])


def parse_head(data: bytes) -> RequestHead:
    """Parse a request head. Raises HandshakeRejected with status 400 when it is not HTTP."""
    request_line, *lines = data.decode("latin-1").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise HandshakeRejected(400, "not an HTTP request")
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HandshakeRejected(400, "malformed header line")
        headers[name] = value.strip()
    return RequestHead(words[0], words[1], words[2], headers)


def accept(head: RequestHead) -> bytes:
    """Return the 101 response. Raises HandshakeRejected: 426 without an upgrade, 405, 400, 505."""
    request = Request(head.target, head.headers, head.method, head.protocol)
    response = ServerProtocol().accept(request)
    if response.status_code != 101:
        raise HandshakeRejected(response.status_code, response.body.decode().strip())
    return response.serialize()


def file_response(data: bytes, headers: dict[str, str], status: int = 200) -> bytes:
    """Return a response with `data` as its body that closes the connection."""
    fixed = {
        "Connection": "close",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(data)),
    }
    phrase = HTTPStatus(status).phrase
    return Response(status, phrase, Headers(fixed | headers), data).serialize()


def error_response(status: int, text: str) -> bytes:
    """Return an error response that closes the connection: plain text, or the JSON of an XRPC error."""
    phrases = {int(item): item.phrase for item in HTTPStatus}
    body = f"{text or phrases.get(status, 'refused')}\n".encode()
    headers = Headers(
        {
            "Connection": "close",
            "Content-Type": "application/json" if text.startswith("{") else "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
        }
    )
    if status == HTTPStatus.UPGRADE_REQUIRED:
        headers["Upgrade"] = "websocket"
    return Response(status, phrases.get(status, "Refused"), headers, body).serialize()


def delay(seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleep for `seconds` before the handshake is answered, or until the server stops."""
    deadline = math.inf if math.isinf(seconds) else time.monotonic() + seconds
    while not stopped() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
