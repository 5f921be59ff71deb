"""Probe and rank Jetstream servers: v2 before v1, then by latency. The order is that of failover."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import websocket
from websocket import ABNF

from slurp.events.frames import first_position
from slurp.jetstream.connection import close_connection, connect, describe_error
from slurp.jetstream.subscription import V1_PATH, V2_PATH

log = logging.getLogger(__name__)

_HANDSHAKES = 3
_HANDSHAKE_TIMEOUT = 3.0
_ALL_TIMEOUT = 4.0

# Seconds to wait for a first event of any server, and for those of the others once one has sent.
_EVENT_WITHIN = 3.0
_GRACE = 1.0
_LISTEN_POLL = 0.25

# Subscriptions for which a server sends no events, however busy the network is.
SILENT_V1_PATH = f"{V1_PATH}?requireHello=true"
_SILENT_V2_PATH = f"{V2_PATH}?dids=did:plc:nobody"

# Statuses of a v2 handshake that do not say whether the host has v2: authorization, overload, time-outs.
_UNRELATED_TO_V2 = (401, 408, 425, 429)


@dataclass(slots=True)
class ServerProbe:
    """The result of probing one server: the seconds of its handshakes, or the error if there were none.

    `v2`: whether it speaks v2, on whichever protocol it is read; `listened`: whether an event was waited for;
    `first_event`: after how many seconds it came.
    """

    url: str
    times: list[float] = field(default_factory=list)
    error: str = ""
    v2: bool = False
    listened: bool = False
    first_event: float | None = None

    @property
    def median(self) -> float:
        """Median seconds of a handshake; infinite without one."""
        return statistics.median(self.times) if self.times else float("inf")


def probe_servers(
    urls: Sequence[str],
    timeout: float = _ALL_TIMEOUT,
    ca: Path | None = None,
    *,
    protocol: str = "auto",
    listen: bool = False,
) -> list[ServerProbe]:
    """Probe all servers in parallel, three handshakes each, and return the results ranked.

    The order: servers that speak v2, by latency; servers that speak only v1, by latency; unreachable servers.

    `protocol` is that of `Subscription.protocol`: the handshakes use the protocol that a reader will use.

    With `listen`, servers that send an event rank before silent ones of the same protocol. Use it only for an
    unfiltered stream, as a filtered one may be silent. The wait ends when all servers have sent, _GRACE
    seconds after the first, or after _EVENT_WITHIN seconds if none has. There is no wait if only one server
    is reachable.

    `ca` has the certificates to verify the servers with; default: those of the system.
    """
    probes = [ServerProbe(url, error=f"no response within {timeout:.0f} s") for url in urls]
    changed, finished = threading.Condition(), threading.Event()
    connecting, silent = {*range(len(probes))}, {*range(len(probes))}

    def work(number: int) -> None:
        one = probes[number]
        path = _measure_handshakes(one, protocol, ca)
        with changed:
            connecting.discard(number)
            changed.notify_all()
        if listen and one.times:
            one.first_event = _seconds_to_first_event(f"{one.url}{path}", ca, finished)
        with changed:
            silent.discard(number)
            changed.notify_all()

    for number, one in enumerate(probes):
        name = f"probe-{host_of(one.url)}"
        threading.Thread(target=work, args=(number,), name=name, daemon=True).start()
    with changed:
        changed.wait_for(lambda: not connecting, timeout)
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
    finished.set()
    return sorted(probes, key=lambda one: (not one.times, not one.v2, one.first_event is None, one.median))


def status_means_no_v2(status: int | None) -> bool:
    """Return whether this HTTP status of a v2 handshake means that the host has no v2; None is no status."""
    return status is not None and (status < 500 or status == 501) and status not in _UNRELATED_TO_V2


def host_of(url: str) -> str:
    """Return the name of a server in logs, documents and checkpoints: host, port and path of its URL."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}"


def format_probes(probes: Sequence[ServerProbe]) -> list[str]:
    """Return an aligned line for each server."""
    width = max((len(host_of(one.url)) for one in probes), default=0)
    return [f"  {host_of(one.url):<{width}}  {_describe(one)}" for one in probes]


def _describe(one: ServerProbe) -> str:
    if not one.times:
        return f"unreachable: {one.error}"
    protocol = "v2" if one.v2 else "v1 only"
    text = f"{one.median * 1000:6.0f} ms  ({len(one.times)} tries, {protocol})"
    if not one.listened:
        return text
    if one.first_event is None:
        return f"{text}  sent no event"
    return f"{text}  first event after {one.first_event * 1000:.0f} ms"


def _measure_handshakes(result: ServerProbe, protocol: str, ca: Path | None) -> str:
    """Measure handshakes and store them in `result`; return the path of the live stream to read."""
    path = V1_PATH if protocol == "v1" else V2_PATH
    for _ in range(_HANDSHAKES):
        started = time.monotonic()
        try:
            target = SILENT_V1_PATH if path == V1_PATH else _SILENT_V2_PATH
            connection = connect(f"{result.url}{target}", _HANDSHAKE_TIMEOUT, ca)
        except (OSError, websocket.WebSocketException) as error:
            result.error = describe_error(error)
            if protocol == "auto" and _means_no_v2(error):
                path = V1_PATH
            continue
        result.times.append(time.monotonic() - started)
        close_connection(connection)
        if path == V2_PATH:
            result.v2 = True
        elif protocol == "v1" and len(result.times) == 1:
            # A server that has v2 ranks higher even if it is read on v1.
            result.v2 = _speaks_v2(result.url, ca)
    return path


def _means_no_v2(error: Exception) -> bool:
    return isinstance(error, websocket.WebSocketBadStatusException) and status_means_no_v2(error.status_code)


def _speaks_v2(server: str, ca: Path | None) -> bool:
    try:
        close_connection(connect(f"{server}{_SILENT_V2_PATH}", _HANDSHAKE_TIMEOUT, ca))
    except (OSError, websocket.WebSocketException):
        return False
    return True


def _seconds_to_first_event(url: str, ca: Path | None, finished: threading.Event) -> float | None:
    """Return the seconds until a live stream sends an event; None if it ends or `finished` is set before."""
    started = time.monotonic()
    try:
        connection = connect(url, _HANDSHAKE_TIMEOUT, ca)
    except (OSError, websocket.WebSocketException):
        return None
    try:
        connection.settimeout(_LISTEN_POLL)
        while not finished.is_set():
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
        close_connection(connection)
    return None
