"""A plain WebSocket client for the tests of the simulator, and the names of its frame types."""

from __future__ import annotations

import contextlib
import http.client
import struct
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import websocket

from slurp.simulator.jetstream import Simulator
from tests.harness import create_connection

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@contextlib.contextmanager
def connect(jetstream: Simulator, query: str = "", timeout: float = 5.0, **options: Any) -> Iterator[Any]:
    """Subscribe on the v1 protocol."""
    client: Any = create_connection(
        f"{jetstream.subscribe_url}?{query}", timeout=timeout, skip_utf8_validation=True, **options
    )
    try:
        yield client
    finally:
        client.shutdown()


def read(client: Any, count: int) -> list[bytes]:
    """Read `count` text frames."""
    frames = []
    for _ in range(count):
        opcode, data = client.recv_data()
        assert opcode == TEXT
        frames.append(data)
    return frames


def fetch(jetstream: Simulator, query: str, count: int) -> list[bytes]:
    """Subscribe on the v1 protocol, read `count` frames and disconnect."""
    with connect(jetstream, query) as client:
        return read(client, count)


def receives_nothing(client: Any, seconds: float = 0.2) -> bool:
    """Return whether no frame arrives within `seconds`."""
    client.settimeout(seconds)
    try:
        client.recv_data()
    except websocket.WebSocketTimeoutException:
        return True
    return False


def rejection(jetstream: Simulator, query: str) -> tuple[int, str]:
    """Return status and body of a handshake that must be rejected."""
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        create_connection(f"{jetstream.subscribe_url}?{query}", timeout=5)
    return caught.value.status_code, (caught.value.resp_body or b"").decode()


def plain_get(jetstream: Simulator, path: str) -> tuple[int, str]:
    """Return status and body of a GET request without an upgrade."""
    connection = http.client.HTTPConnection(jetstream.host, jetstream.port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def end_of(client: Any) -> str:
    """Read to the end of the stream; return code and reason of the close frame, `eof` or `reset`."""
    try:
        while True:
            opcode, data = client.recv_data()
            if opcode == CLOSE:
                return f"{struct.unpack('!H', data[:2])[0]} {data[2:].decode()}".rstrip()
    except websocket.WebSocketConnectionClosedException:
        return "eof"
    except ConnectionResetError:
        return "reset"


def recorded_end(jetstream: Simulator, number: int = 0) -> str:
    """Wait until connection `number` has ended; return the reason that the server recorded."""
    jetstream.wait_until(lambda j: len(j.connections) > number and j.connections[number].ended)
    return jetstream.connections[number].ended or ""


def cursors(frames: list[bytes]) -> list[int]:
    """Return the cursors of v1 frames."""
    return [orjson.loads(frame)["cursor"] for frame in frames]
