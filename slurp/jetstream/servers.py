"""Rank Jetstream servers: v2 before v1, of these the quickest that sends; the rest is for fail-over."""

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
from websocket import ABNF

from slurp.events.frames import first_position
from slurp.jetstream.connection import connect
from slurp.jetstream.subscription import V1_PATH, V2_PATH

log = logging.getLogger(__name__)

_TRIES = 3
_TRY_TIMEOUT = 3.0
_ALL_TIMEOUT = 4.0

# For a first event of each server that answers; and for those of the others once one has sent.
_EVENT_WITHIN = 3.0
_GRACE = 1.0
_LISTEN_POLL = 0.25

# By these a server sends nothing, however busy the network is.
SILENT_V1 = f"{V1_PATH}?requireHello=true"
_SILENT_V2 = f"{V2_PATH}?dids=did:plc:nobody"

# Not the host's word on what it offers, but on how it is, or how we are.
_NOT_ABOUT_THE_WIRE = (401, 408, 425, 429)


@dataclass(slots=True)
class Probe:
    """What the handshakes with one server took (seconds), or why there were none.

    `v2` says that it speaks v2, on whichever wire it is read; `listened` that an event was waited for,
    `first_event` after how many seconds it came.
    """

    url: str
    times: list[float] = field(default_factory=list)
    error: str = ""
    v2: bool = False
    listened: bool = False
    first_event: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.times) if self.times else float("inf")


def probe(
    urls: Sequence[str],
    timeout: float = _ALL_TIMEOUT,
    ca: Path | None = None,
    *,
    protocol: str = "auto",
    listen: bool = False,
) -> list[Probe]:
    """Handshake with all servers at once, three tries each, and rank them: those that speak v2 by latency,
    those that speak v1 alone by latency, the unreachable.

    `protocol` is that of `Subscription.protocol`: handshakes go by the wire that a reader will use.

    With `listen`, servers that send an event rank before those of the same wire that are silent. Only for
    an unfiltered stream, as behind a filter silence means nothing. The wait ends when all have sent, _GRACE
    seconds after the first, or after _EVENT_WITHIN seconds if none has. A single server that answers is not
    waited for.

    `ca` has the certificates to verify the servers with, without one those of the machine count.
    """
    probes = [Probe(url, error=f"no answer within {timeout:.0f} s") for url in urls]
    changed, over = threading.Condition(), threading.Event()
    shaking, silent = {*range(len(probes))}, {*range(len(probes))}

    def work(number: int) -> None:
        one = probes[number]
        path = _shake_hands(one, protocol, ca)
        with changed:
            shaking.discard(number)
            changed.notify_all()
        if listen and one.times:
            one.first_event = _first_event(f"{one.url}{path}", ca, over)
        with changed:
            silent.discard(number)
            changed.notify_all()

    for number, one in enumerate(probes):
        name = f"probe-{host_of(one.url)}"
        threading.Thread(target=work, args=(number,), name=name, daemon=True).start()
    with changed:
        changed.wait_for(lambda: not shaking, timeout)
        reachable = [number for number, one in enumerate(probes) if one.times]

        def all_sent() -> bool:
            return silent.isdisjoint(reachable)

        if listen and len(reachable) > 1:
            changed.wait_for(
                lambda: all_sent() or any(one.first_event is not None for one in probes), _EVENT_WITHIN
            )
            changed.wait_for(all_sent, 0 if all(one.first_event is None for one in probes) else _GRACE)
            for number in reachable:
                probes[number].listened = True
    over.set()
    return sorted(probes, key=lambda one: (not one.times, not one.v2, one.first_event is None, one.median))


def has_no_v2(status: int | None) -> bool:
    """Whether this HTTP status of a v2 handshake says that the host has no such wire; None is no status."""
    return status is not None and (status < 500 or status == 501) and status not in _NOT_ABOUT_THE_WIRE


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
    return [f"  {host_of(one.url):<{width}}  {_finding(one)}" for one in probes]


def _finding(one: Probe) -> str:
    if not one.times:
        return f"unreachable: {one.error}"
    wire = "v2" if one.v2 else "v1 only"
    text = f"{one.median * 1000:6.0f} ms  ({len(one.times)} tries, {wire})"
    if not one.listened:
        return text
    if one.first_event is None:
        return f"{text}  sent no event"
    return f"{text}  first event after {one.first_event * 1000:.0f} ms"


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


def _shake_hands(result: Probe, protocol: str, ca: Path | None) -> str:
    """Fill in what the handshakes say; return the path of a live stream on the wire to read."""
    path = V1_PATH if protocol == "v1" else V2_PATH
    for _ in range(_TRIES):
        started = time.monotonic()
        try:
            target = SILENT_V1 if path == V1_PATH else _SILENT_V2
            connection = connect(f"{result.url}{target}", _TRY_TIMEOUT, ca)
        except (OSError, websocket.WebSocketException) as error:
            result.error = why(error)
            if protocol == "auto" and _says_no_v2(error):
                path = V1_PATH
            continue
        result.times.append(time.monotonic() - started)
        hang_up(connection)
        if path == V2_PATH:
            result.v2 = True
        elif protocol == "v1" and len(result.times) == 1:
            # A server that has v2 is the better one also on this wire.
            result.v2 = _speaks_v2(result.url, ca)
    return path


def _says_no_v2(error: Exception) -> bool:
    return isinstance(error, websocket.WebSocketBadStatusException) and has_no_v2(error.status_code)


def _speaks_v2(server: str, ca: Path | None) -> bool:
    try:
        hang_up(connect(f"{server}{_SILENT_V2}", _TRY_TIMEOUT, ca))
    except (OSError, websocket.WebSocketException):
        return False
    return True


def _first_event(url: str, ca: Path | None, over: threading.Event) -> float | None:
    """Seconds until a live stream sends an event; None when it has sent none until `over`, or ends."""
    started = time.monotonic()
    try:
        connection = connect(url, _TRY_TIMEOUT, ca)
    except (OSError, websocket.WebSocketException):
        return None
    try:
        connection.settimeout(_LISTEN_POLL)
        while not over.is_set():
            try:
                messages = connection.receive()
            except websocket.WebSocketTimeoutException:
                continue
            for opcode, data in messages:
                if opcode == ABNF.OPCODE_CLOSE:
                    return None
                if (
                    opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY)
                    and first_position([data], url) is not None
                ):
                    return time.monotonic() - started
    except (OSError, websocket.WebSocketException):
        return None
    finally:
        hang_up(connection)
    return None
