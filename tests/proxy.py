"""A TCP proxy before a server: it can end TLS, and it can fall silent like a broken router."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest


class Proxy:
    """Forwards connections to 127.0.0.1:`port`."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._frozen = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'wss' if tls else 'ws'}://localhost:{self.port}"
        self.accepted = 0
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
        for one in (self._listener, *self._open):
            one.close()

    def freeze(self) -> None:
        """Forward nothing more on connections that are open now, in either direction, not even a FIN."""
        frozen, self._frozen = self._frozen, threading.Event()
        frozen.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
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
        threading.Thread(target=_forward, args=(server, client, frozen), daemon=True).start()
        _forward(client, server, frozen)


def _forward(source: socket.socket, target: socket.socket, frozen: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            if frozen.is_set():
                return
            target.sendall(data)
    if not frozen.is_set():
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


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
