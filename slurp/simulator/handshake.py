"""HTTP up to the 101: reading a request head of any sane size, and answering it."""

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
"""What Go's HTTP server takes; 10,000 DIDs fit just about. websockets itself stops at 8 KiB a line."""
_TIMEOUT = 10.0


class Refused(Exception):
    """The handshake is answered with an HTTP error, or with nothing when `status` is 0."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Head:
    """A request before its body."""

    method: str
    target: str
    protocol: str
    headers: Headers


def read_head(sock: socket.socket, stopped: Callable[[], bool]) -> tuple[Head, bytes]:
    """The request head and whatever came after it. Raises Refused."""
    data = bytearray()
    deadline = time.monotonic() + _TIMEOUT
    sock.settimeout(0.2)
    searched = 0
    while (end := data.find(b"\r\n\r\n", searched)) < 0:
        searched = max(0, len(data) - 3)
        if len(data) > MAX_HEAD:
            raise Refused(431, "request header fields too large")
        if stopped() or time.monotonic() > deadline:
            raise Refused(0, "no request")
        try:
            chunk = sock.recv(65_536)
        except TimeoutError:
            continue
        if not chunk:
            raise Refused(0, "closed before the request")
        data += chunk
    return parse_head(bytes(data[:end])), bytes(data[end + 4 :])


def parse_head(data: bytes) -> Head:
    """Raises Refused with 400 for what is no HTTP request."""
    request_line, *lines = data.decode("latin-1").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise Refused(400, "not an HTTP request")
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Refused(400, "malformed header line")
        headers[name] = value.strip()
    return Head(words[0], words[1], words[2], headers)


def accept(head: Head) -> bytes:
    """The 101 to answer with. Raises Refused: 426 without an upgrade, 405, 400, 505."""
    request = Request(head.target, head.headers, head.method, head.protocol)
    response = ServerProtocol().accept(request)
    if response.status_code != 101:
        raise Refused(response.status_code, response.body.decode().strip())
    return response.serialize()


def file_response(data: bytes, headers: dict[str, str]) -> bytes:
    """An answer to a plain GET that ends the connection."""
    fixed = {
        "Connection": "close",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(data)),
    }
    return Response(200, "OK", Headers(fixed | headers), data).serialize()


def error_response(status: int, text: str) -> bytes:
    """A short answer that ends the connection: plain text, or the JSON of an XRPC error."""
    known = {int(item): item.phrase for item in HTTPStatus}
    body = f"{text or known.get(status, 'refused')}\n".encode()
    headers = Headers(
        {
            "Connection": "close",
            "Content-Type": "application/json" if text.startswith("{") else "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
        }
    )
    if status == HTTPStatus.UPGRADE_REQUIRED:
        headers["Upgrade"] = "websocket"
    return Response(status, known.get(status, "Refused"), headers, body).serialize()


def wait_out(seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleep before the handshake is answered, but not past a shutdown."""
    deadline = math.inf if math.isinf(seconds) else time.monotonic() + seconds
    while not stopped() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
