"""Options of the simulator: the generated network, and the behavior of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkOptions:
    """What the generated events look like."""

    accounts: int = 2000
    odd_revs: float = 1 / 200
    """Share of accounts whose revs are days to years away from the times of their events."""
    backdated: float = 0.0
    """Share of events whose time_us is hours to days in the past."""
    cursors: bool = True
    """Whether events carry a cursor; older servers send none."""


@dataclass(frozen=True)
class ServerOptions:
    """Address, timeouts in seconds, and retention of the server."""

    host: str = "127.0.0.1"
    retain_bytes: int = 512 * 10**6
    """Memory for events; the oldest are dropped."""
    archive_segment: int = 0
    """Events of a sealed file of the archive; 0 for a server without an archive."""
    archive_block: int = 64
    """Events of a block of such a file."""
    lookback: float = 36 * 3600.0
    """How far back cursors reach, in seconds."""
    active_segment: float = 0.0
    """Time cursors newer than this many seconds replay from this long ago, as on a real server."""
    write_timeout: float = 5.0
    """A connection is closed when the client reads nothing for this long."""
    ping_interval: float = 30.0
    pong_timeout: float = 5.0
    send_buffer: int | None = None
    """Bytes the kernel buffers for a client; None leaves the size to the kernel, which is several MB."""
