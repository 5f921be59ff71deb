"""What systemd is told about us, by a datagram to the socket it names: sd_notify(3) without its library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send `READY=1` and the like. Does nothing where nobody listens, and never raises or waits."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    # A name with an @ is an abstract socket, which has no file.
    target = "\0" + address[1:] if address[0] == "@" else address
    # A line end in a value would begin another assignment.
    message = "\n".join(line.replace("\n", " ") for line in lines)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode("utf-8", "replace"), target)
    except (OSError, ValueError):
        pass  # whoever supervises us is no reason to stop


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds within which systemd wants a sign of life of this process, or None when it wants none."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdigit()) or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1e6
