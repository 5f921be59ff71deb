"""Which Jetstream server to read from: probe all, take the quickest, keep the rest for fail-over."""

from __future__ import annotations

import logging
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websocket

from slurp.jetstream.connection import connect
from slurp.jetstream.subscription import V2_PATH

log = logging.getLogger(__name__)

_TRIES = 3
_TRY_TIMEOUT = 3.0
_ALL_TIMEOUT = 4.0

# By these a server sends nothing, however busy the network is.
SILENT_V1 = "/subscribe?requireHello=true"
_SILENT_V2 = f"{V2_PATH}?dids=did:plc:nobody"


@dataclass(slots=True)
class Probe:
    """What the handshakes with one server took (seconds), or why there were none."""

    url: str
    times: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.times) if self.times else float("inf")


def probe(urls: Sequence[str], timeout: float = _ALL_TIMEOUT, ca: Path | None = None) -> list[Probe]:
    """Handshake with all servers at once, three tries each; the quickest first, then the unreachable.

    `ca` has the certificates to verify them with, without one those of the machine count.
    """
    probes = [Probe(url, error=f"no answer within {timeout:.0f} s") for url in urls]
    threads = [
        threading.Thread(target=_try, args=(one, ca), name=f"probe-{host_of(one.url)}", daemon=True)
        for one in probes
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return sorted(probes, key=lambda one: one.median)


def host_of(url: str) -> str:
    """The name under which a server appears in logs, documents and checkpoints."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}"


def answers(host: str, port: int) -> bool:
    """Whether anything takes connections there."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def table(probes: Sequence[Probe]) -> list[str]:
    """A line a server, aligned."""
    width = max((len(host_of(one.url)) for one in probes), default=0)
    return [
        f"  {host_of(one.url):<{width}}  "
        + (
            f"{one.median * 1000:6.0f} ms  ({len(one.times)} tries)"
            if one.times
            else f"unreachable: {one.error}"
        )
        for one in probes
    ]


def hang_up(connection: Any) -> None:
    """Say goodbye without waiting for the answer, which a busy server sends behind its queue."""
    try:
        connection.send_close()
        connection.shutdown()
    except (OSError, websocket.WebSocketException) as error:
        log.debug("hanging up: %s", why(error))


def why(error: Exception) -> str:
    """One line about a connection that did not come about."""
    if isinstance(error, websocket.WebSocketBadStatusException):
        body = (error.resp_body or b"").decode("utf-8", "replace").strip()[:200]
        return f"HTTP {error.status_code} {body}".strip()
    if isinstance(error, websocket.WebSocketTimeoutException | TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.strerror or error} (a CA of your own: --jetstream-ca)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _try(result: Probe, ca: Path | None) -> None:
    target = SILENT_V1
    for _ in range(_TRIES):
        started = time.monotonic()
        try:
            connection = connect(f"{result.url}{target}", _TRY_TIMEOUT, ca)
        except (OSError, websocket.WebSocketException) as error:
            result.error = why(error)
            if isinstance(error, websocket.WebSocketBadStatusException) and error.status_code == 404:
                target = _SILENT_V2
            continue
        result.times.append(time.monotonic() - started)
        hang_up(connection)
