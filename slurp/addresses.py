"""Network addresses: the listen address of `--http`, and the test for loopback hosts."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):)?(?P<port>[0-9]{1,5})", re.ASCII)


class Address(NamedTuple):
    """A listen address. Port 0 means any free port.

    `explicit` is False for the default address of `--embedded`: if it is not available, the worker runs
    without an HTTP server.
    """

    host: str
    port: int
    explicit: bool = True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT = Address("127.0.0.1", 8642, explicit=False)
OFF = "off"


def parse_address(text: str) -> Address | None:
    """Return the address of `HOST:PORT`, or of `PORT` on loopback; None for `off`.

    Raises ValueError for anything else.
    """
    if text == OFF:
        return None
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(f"invalid listen address {text!r} (use HOST:PORT such as {DEFAULT}, or off)")
    return Address((match["host"] or DEFAULT.host).strip("[]"), int(match["port"]))


def http_url(server: str, path: str) -> str:
    """Return the URL of an HTTP endpoint of a Jetstream server, which is given as `ws(s)://…`."""
    parts = urlsplit(server)
    scheme = "https" if parts.scheme == "wss" else "http"
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + path, "", ""))


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: `localhost`, a name below it, 127.0.0.0/8 or ::1."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def accepts_connections(host: str, port: int) -> bool:
    """Return whether a TCP connection to this address succeeds within two seconds."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
