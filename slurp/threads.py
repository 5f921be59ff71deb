"""The threads of a worker: their names, and how long each may be busy."""

from __future__ import annotations

from slurp.pipeline.build import INDEXER, READER

ARCHIVE = "archive"
"""Fills gaps."""

# Seconds without a beat after which a thread counts as stuck, by the beginning of its name. Most requests
# have a time-out of 30 s, and long loops beat between them. The HTTP server has its own limits.
_LIMITS = {
    "MainThread": 30.0,
    # Two bulk requests of 90 s, or a few requests of 30 s for a day while another indexer makes them first.
    INDEXER: 300.0,
    # A handshake with either protocol, and the resolution of names.
    READER: 180.0,
    "catch-up": 180.0,
    # A probe of all servers.
    "server-monitor": 180.0,
    # Several requests of 15 s for each host and gap.
    "checkpoint": 600.0,
    "housekeeping": 600.0,
    "disk": 300.0,
    # Requests of 30 s, with a beat before each, and a pause for --deletions-rate.
    "deletions": 300.0,
    # Requests of 120 s at most, with a beat before each.
    "trends": 300.0,
    # Requests of 90 s to a server, and of 30 s to Elasticsearch, with a beat before each.
    ARCHIVE: 300.0,
    # One request of 4 s.
    "stats": 120.0,
    # Several requests of up to a minute.
    "kibana": 900.0,
}
# Without these indexing continues.
NOT_VITAL = ("kibana", "trends", ARCHIVE)

# Threads that end when their work is done, or without harm; all others run until the stop.
MAY_END = ("startup", "kibana", "http", "http-probe", "trends", ARCHIVE)


def limit_of(name: str) -> float:
    """Return the seconds without a beat after which the thread `name` counts as stuck."""
    return next(limit for prefix, limit in _LIMITS.items() if name.startswith(prefix))
