"""A WebSocket server that sends arbitrary bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from websockets.frames import Frame, Opcode

from slurp.simulator.handshake import RequestHead, accept, read_head

Talk = Callable[[socket.socket], object]


class Hostile:
    """Accepts handshakes and then runs `talk` on the socket; with `answer` it responds to the handshake with
    that.
    """

    def __init__(self, talk: Talk = lambda sock: None, answer: bytes = b"") -> None:
        self._talk = talk
        self._answer = answer
        self._stopped = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"ws://{self.host}"
        self.heads: list[RequestHead] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(Exception), sock:
            head, _ = read_head(sock, self._stopped.is_set)
            self.heads.append(head)
            sock.settimeout(None)
            if self._answer:
                sock.sendall(self._answer)
                return
            sock.sendall(accept(head))
            self._talk(sock)
            self._stopped.wait()


def text(payload: bytes) -> bytes:
    return frame(Opcode.TEXT, payload)


def frame(opcode: Opcode, payload: bytes, *, last: bool = True) -> bytes:
    return Frame(opcode, payload, fin=last).serialize(mask=False)


def head_of(opcode: Opcode, size: int, *, last: bool = True) -> bytes:
    """Return the header of a frame of `size` bytes, which must be more than 65,535."""
    return bytes([opcode | (0x80 if last else 0), 127]) + size.to_bytes(8, "big")
