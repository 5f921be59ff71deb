"""The work of `python -m slurp.trends rebuild`."""

from __future__ import annotations

import logging
import threading
import time

from slurp.errors import Exit
from slurp.events.times import parse_time
from slurp.progress_bar import ProgressBar
from slurp.tool import Tool
from slurp.trends.intervals import HOUR_US, Interval
from slurp.trends.keeping import TrendKeeper
from slurp.trends.state import LeaseLost

log = logging.getLogger(__name__)

# Seconds between two attempts while a worker computes, and for which to try.
_RETRY_EVERY, _RETRY_FOR = 1.0, 120.0


def period(start: str, end: str | None) -> tuple[int, int]:
    """Return the begin and the end of a period in Unix microseconds. Raises ValueError."""
    now_us = int(time.time() * 1e6)
    times = [parse_time(start), now_us if end is None else parse_time(end)]
    for option, text, time_us in zip(("--from", "--to"), (start, end), times, strict=True):
        if time_us is None:
            raise ValueError(f"{option}: not a time: {text!r} (use 2026-11-01 or 2026-11-01T12:00, in UTC)")
    start_us, end_us = (time_us or 0 for time_us in times)
    if start_us >= end_us:
        raise ValueError("--from must be before --to, and in the past")
    return start_us, min(end_us, now_us)


def rebuild(tool: Tool, start_us: int, end_us: int) -> Exit:
    """Compute the hours that begin in a period (Unix microseconds), and their days; return the exit code.

    Raises the exceptions of the client, and Stopped.
    """
    keeper = TrendKeeper(tool.elastic, tool.config, lambda: end_us, threading.Event(), tool.check_stop)
    first, last = Interval.hour_of(start_us), Interval.hour_of(end_us - 1)
    hours = (last.start_us - first.start_us) // HOUR_US + 1
    bar = ProgressBar(tool.screen, "computing", hours + last.day - first.day + 1)
    until = time.monotonic() + _RETRY_FOR
    try:
        while (count := keeper.trends.rebuild(start_us, end_us, lambda interval: bar.advance(1))) is None:
            if time.monotonic() >= until:
                raise LeaseLost
            tool.check_stop()
            time.sleep(_RETRY_EVERY)
    except LeaseLost:
        log.error("another worker computes trends; run the command again")
        return Exit.FAILED
    finally:
        bar.end()
    log.info("%s hours and days were computed; those without stored events keep their rows", f"{count:,}")
    return Exit.DONE
