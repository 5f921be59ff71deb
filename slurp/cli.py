"""The command: options in, exit code out."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Sequence

from slurp import __version__, logs
from slurp.config import parse_with_origins
from slurp.process import StopSignals
from slurp.service import Service

log = logging.getLogger(__name__)

# Events are trees, which go without it; to look for cycles at the usual pace costs a tenth of the CPU.
_GC = (50_000, 20, 100)
# Memory of the C library: an arena for each thread that comes and goes keeps what the others need.
_M_ARENA_MAX, _ARENAS = -8, 2


def main(argv: Sequence[str] | None = None, signals: StopSignals | None = None) -> int:
    """Run the worker. Without `signals`, which a program installs before its imports, handlers begin here."""
    if signals is None:
        signals = StopSignals()
        signals.install()
    gc.set_threshold(*_GC)
    bound_arenas()
    config, origins = parse_with_origins(argv)
    secrets = logs.Secrets(config.secrets)
    screen = logs.set_up(config.log_level, config.log_format, secrets)
    logs.log_crashes()
    for warning in config.warnings:
        log.warning("%s", warning)
    if config.check:
        from slurp.check import Check

        return int(Check(config, origins, secrets, signals).run())
    return int(Service(config, screen, secrets, version=__version__, signals=signals).run())


def bound_arenas() -> None:
    """Only glibc has arenas, and this call (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
