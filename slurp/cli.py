"""The main function of the worker: parse the options, set up logging, run, return the exit code."""

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

# Events have no reference cycles, so the garbage collector finds nothing in them; with the default thresholds
# it costs a tenth of the CPU.
_GC_THRESHOLDS = (50_000, 20, 100)
# Each malloc arena keeps memory that other threads need, and a new thread may get an arena of its own.
_M_ARENA_MAX, _MAX_ARENAS = -8, 2


def main(argv: Sequence[str] | None = None, signals: StopSignals | None = None) -> int:
    """Run the worker and return its exit code.

    A program that installs signal handlers before its imports passes its `signals`; otherwise they are
    installed here.
    """
    if signals is None:
        signals = StopSignals()
        signals.install()
    gc.set_threshold(*_GC_THRESHOLDS)
    limit_malloc_arenas()
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


def limit_malloc_arenas() -> None:
    """Limit the arenas of glibc's malloc with mallopt(3); do nothing with another C library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _MAX_ARENAS)
