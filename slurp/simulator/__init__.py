"""A local Jetstream for the demo, the tests and the benchmarks: `python -m slurp.simulator`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slurp.simulator.connection import ConnectionRecord, Manners
    from slurp.simulator.faults import GARBAGE, Faults
    from slurp.simulator.jetstream import Simulator

__all__ = ["GARBAGE", "ConnectionRecord", "Faults", "Manners", "Simulator"]

_HOMES = {
    "ConnectionRecord": "connection",
    "Manners": "connection",
    "GARBAGE": "faults",
    "Faults": "faults",
    "Simulator": "jetstream",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command must have its handler of signals before that (see `program`)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
