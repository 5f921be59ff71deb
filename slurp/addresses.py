"""`--http`: the address that the worker is to be seen at."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):)?(?P<port>[0-9]{1,5})", re.ASCII)


class Address(NamedTuple):
    """`port` 0 is any free one. `asked` when somebody wants it, and not only `--embedded`."""

    host: str
    port: int
    asked: bool = True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT = Address("127.0.0.1", 8642, asked=False)
OFF = "off"


def parse_address(text: str) -> Address | None:
    """`HOST:PORT`, or a port alone for loopback; None for `off`. Raises ValueError."""
    if text == OFF:
        return None
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(f"{text!r} is no address to listen at; write 127.0.0.1:8642, or off")
    return Address((match["host"] or DEFAULT.host).strip("[]"), int(match["port"]))


def is_loopback(host: str) -> bool:
    """Whether only this machine can mean it: `localhost`, a name below it, 127.0.0.0/8 or ::1."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
