"""A WebSocket connection to a Jetstream server, with a bound on whatever a server may send.

The client library keeps a frame in memory however long its head says it is, and all fragments of a
message besides. Here a message of more than MAX_FRAME_BYTES bytes is read past, and a stub with its size and
hash stands for it.
"""

from __future__ import annotations

import ssl
import time
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any

import websocket
from websocket import (
    ABNF,
    WebSocketException,
    WebSocketProtocolException,
    WebSocketProxyException,
    WebSocketTimeoutException,
)
from websocket._handshake import CookieJar
from websocket._http import connect as dial
from websocket._http import proxy_info

from slurp.events.frames import DIGEST_SIZE, MAX_FRAME_BYTES, oversized_frame
from slurp.proxies import BadProxy, proxy_for

# Status line, headers and body of the answer to a handshake. Real ones have some hundred bytes.
_MAX_HANDSHAKE = 65_536
_READ = 65_536
_MAX_CONTROL = 125
_WHOLE_TEXT, _WHOLE_BINARY = 0x80 | ABNF.OPCODE_TEXT, 0x80 | ABNF.OPCODE_BINARY

# An entry for a list of hosts that is the name of none.
_NO_HOST = "-"

_SHORT, _LONG = Struct("!H"), Struct("!Q")


# The library has one jar for all connections: a server could put headers into our handshakes with another.
CookieJar.add = lambda set_cookie: None  # type: ignore[method-assign]


class Messages:
    """Bytes of a server in, control frames and whole messages out. Pure, no I/O.

    Holds one message of up to MAX_FRAME_BYTES bytes, and what was fed and not yet looked at.
    """

    def __init__(self) -> None:
        self._unread = bytearray()
        # Of a message in fragments: its opcode, and what there is of it.
        self._opcode = 0
        self._held = bytearray()
        # Of a message that is read past: hash and size so far, and what is to come of the frame at hand.
        self._hash: Any = None
        self._size = 0
        self._left = 0
        self._is_last = False
        # What was wrong behind messages that were handed out first.
        self._wrong: WebSocketException | None = None

    def feed(self, data: bytes) -> None:
        self._unread += data

    def take(self) -> list[tuple[int, bytes]]:
        """Opcode and payload of all control frames and messages that are there.

        Raises for what is no WebSocket, once all before it was taken.
        """
        if self._wrong is not None:
            raise self._wrong
        taken: list[tuple[int, bytes]] = []
        unread, at = self._unread, 0
        have = len(unread)
        # Nearly all there is: whole messages of less than 64 kB, without a call for each.
        while have - at >= 4 and self._hash is None and not self._opcode:
            first, length, begin = unread[at], unread[at + 1], at + 2
            if (first != _WHOLE_TEXT and first != _WHOLE_BINARY) or length > 126:
                break
            if length == 126:
                length, begin = unread[begin] << 8 | unread[begin + 1], at + 4
            if have - begin < length:
                break
            at = begin + length
            taken.append((first & 0x0F, bytes(unread[begin:at])))
        del unread[:at]
        try:
            while (message := self._next()) is not None:
                taken.append(message)
        except WebSocketException as error:
            if not taken:
                raise
            self._wrong = error
        return taken

    def _next(self) -> tuple[int, bytes] | None:
        """One of them; None when more bytes are needed."""
        unread = self._unread
        while True:
            if self._hash is not None and not self._read_past():
                return None
            if self._hash is not None and self._is_last:
                return self._stub()
            have = len(unread)
            if have < 2:
                return None
            first, length = unread[0], unread[1]
            at = 2
            if length == 126:
                if have < 4:
                    return None
                (length,) = _SHORT.unpack_from(unread, 2)
                at = 4
            elif length == 127:
                if have < 10:
                    return None
                (length,) = _LONG.unpack_from(unread, 2)
                at = 10
            elif length > 127:
                raise WebSocketProtocolException("the server masks its frames")
            opcode, end = first & 0x0F, at + length
            self._check(first, opcode, length)
            is_data = opcode <= ABNF.OPCODE_BINARY
            if is_data and (self._hash is not None or len(self._held) + length > MAX_FRAME_BYTES):
                del unread[:at]
                self._begin_to_read_past(first, opcode, length)
                continue
            if have < end:
                return None
            # Without a copy between: a message may be large.
            with memoryview(unread) as view:
                data = bytes(view[at:end])
            del unread[:end]
            if is_data:
                if opcode and first & 0x80:
                    return opcode, data
                self._opcode = opcode or self._opcode
                self._held += data
                if not first & 0x80:
                    continue
                opcode, data = self._opcode, bytes(self._held)
                self._forget()
                return opcode, data
            ABNF(1, 0, 0, 0, opcode, 0, data).validate(skip_utf8_validation=True)
            return opcode, data

    def _check(self, first: int, opcode: int, length: int) -> None:
        if first & 0x70:
            raise WebSocketProtocolException("the server uses an extension that was not agreed upon")
        if opcode > ABNF.OPCODE_BINARY:
            if opcode not in ABNF.OPCODES:
                raise WebSocketProtocolException(f"invalid opcode {opcode}")
            if length > _MAX_CONTROL or not first & 0x80:
                raise WebSocketProtocolException("a control frame that is too long or in fragments")
        elif bool(opcode) == bool(self._opcode):
            raise WebSocketProtocolException("fragments out of order")

    def _begin_to_read_past(self, first: int, opcode: int, length: int) -> None:
        if self._hash is None:
            self._hash = blake2b(self._held, digest_size=DIGEST_SIZE)
            self._size = len(self._held)
            self._held = bytearray()
        self._opcode = opcode or self._opcode
        self._left, self._is_last = length, bool(first & 0x80)
        self._size += length

    def _read_past(self) -> bool:
        """Whether the frame at hand is over."""
        if self._left:
            piece = self._unread[: self._left]
            self._hash.update(piece)
            self._left -= len(piece)
            del self._unread[: len(piece)]
        return not self._left

    def _stub(self) -> tuple[int, bytes]:
        message = self._opcode, oversized_frame(self._size, self._hash.hexdigest())
        self._forget()
        return message

    def _forget(self) -> None:
        self._opcode, self._held, self._hash = 0, bytearray(), None


class Connection(websocket.WebSocket):
    """The client library's connection, but for `receive`, which is to be used in place of its `recv…`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._messages = Messages()
        self._failure: WebSocketException | None = None

    def connect(self, url: str, **options: Any) -> None:
        self.sock_opt.timeout = options.get("timeout")
        sock = self._dial(url)
        # It closes the socket when it raises.
        handshake = _Handshake(sock, options.get("timeout"))
        super().connect(url, socket=handshake, **options)  # type: ignore[no-untyped-call]
        self.sock = sock

    def _dial(self, url: str) -> Any:
        """Return a connected socket. Raises OSError or WebSocketException; an error names the proxy."""
        try:
            proxy = proxy_for(url)
        except BadProxy as error:
            raise WebSocketProxyException(str(error)) from None
        # The library would look into the environment itself, and leaves out what is in this list.
        info = proxy_info()  # type: ignore[no-untyped-call]
        info.no_proxy = ["*"] if proxy is None else [_NO_HOST]
        if proxy is not None:
            info.proxy_host, info.proxy_port, info.auth = proxy.host, proxy.port, proxy.auth
        try:
            sock, _ = dial(url, self.sock_opt, info, None)
        except ssl.SSLError:
            raise  # which is about the server's certificate
        except (OSError, WebSocketException) as error:
            if proxy is None:
                raise
            reason = getattr(error, "strerror", None) or error
            raise WebSocketProxyException(f"through proxy {proxy}: {reason}") from None
        return sock

    def receive(self) -> list[tuple[int, bytes]]:
        """Opcode and payload of what came, one at least. Pings are answered and left out.

        WebSocketTimeoutException when nothing whole has come in time, also when a message is on its
        way for ever. What there is of it is kept. For anything else OSError or WebSocketException,
        after all that came before it.
        """
        if self._failure is not None:
            raise self._failure
        until = time.monotonic() + (self.sock_opt.timeout or float("inf"))
        while True:
            # First what lies behind the messages of the last call.
            taken = self._messages.take()
            if not taken:
                self._messages.feed(self._recv(_READ))  # type: ignore[no-untyped-call]
                taken = self._messages.take()
            pings = [data for opcode, data in taken if opcode == ABNF.OPCODE_PING]
            if pings:
                taken = [one for one in taken if one[0] != ABNF.OPCODE_PING]
                self._answer(pings, fatal=not taken)
            if taken:
                return taken
            if time.monotonic() >= until:
                raise WebSocketTimeoutException("no whole message in time")

    def _answer(self, pings: list[bytes], *, fatal: bool) -> None:
        """A pong that can't be sent is the end, but not before what came with the ping was handed out."""
        try:
            for data in pings:
                self.pong(data)
        except (WebSocketException, OSError) as error:
            # Also when it is a time-out: half a pong may be on its way.
            self._failure = WebSocketException(f"the server takes no pong: {error}")
            if fatal:
                raise self._failure from None


class _Handshake:
    """A socket while the server answers the handshake: so many bytes, and so many seconds in all."""

    def __init__(self, sock: Any, timeout: float | None) -> None:
        self._sock = sock
        self._left = _MAX_HANDSHAKE
        self._until = time.monotonic() + (timeout or float("inf"))

    def recv(self, size: int) -> bytes:
        if time.monotonic() >= self._until:
            raise TimeoutError
        data: bytes = self._sock.recv(size)
        self._left -= len(data)
        if self._left < 0:
            raise WebSocketException(f"an answer to the handshake of more than {_MAX_HANDSHAKE:,} bytes")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def connect(url: str, timeout: float, ca: Path | None = None) -> Connection:
    """A connection to `url`, verified by the certificates in `ca`, without by those of the machine.

    Raises OSError or WebSocketException, whatever the server answers.
    """
    connection = Connection(
        sslopt={} if ca is None else {"ca_certs": str(ca)},
        # orjson checks UTF-8; the check in pure Python costs ten times the rest of receiving.
        skip_utf8_validation=True,
        enable_multithread=False,
    )
    try:
        # A server may not send us elsewhere: to a host of somebody's choice, or out of TLS.
        connection.connect(url, timeout=timeout, redirect_limit=0)
    except (OSError, WebSocketException):
        raise
    except Exception as error:
        # The library is not proof against every answer: a status that is no number is a ValueError.
        raise WebSocketException(f"no handshake: {type(error).__name__}: {error}") from None
    return connection
