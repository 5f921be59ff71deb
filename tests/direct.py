"""The client of the WebSocket library without the proxy of the environment, also on loopback."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import websocket


def create_connection(url: str, timeout: float, **options: Any) -> Any:
    """Return `websocket.create_connection` to a server on this machine."""
    parts = urlsplit(url)
    connected = socket.create_connection((parts.hostname or "", parts.port or 80), timeout)
    return websocket.create_connection(url, timeout, socket=connected, **options)
