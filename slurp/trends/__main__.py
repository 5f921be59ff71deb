"""Compute past hours and days of trends again: `python -m slurp.trends rebuild`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from slurp.process import StopSignals, run


def main(arguments: Sequence[str] | None = None, signals: StopSignals | None = None) -> int:
    """Return the exit code: 0 if it is done, 1 if something is left to do, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m slurp.trends",
        description="Compute the trends of past hours, and of their days, again from the events that are "
        "stored. Hours and days without events keep their rows. All other options are those of skeetslurper: "
        "--es, --es-user, --es-pass-file, --index, --appview, …",
        epilog="exit codes: 0 done; 1 something is left to do: run the command again; 2 wrong usage",
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=["rebuild"], help="what to do")
    parser.add_argument(
        "--from", dest="start", required=True, metavar="TIME", help="2026-11-01 or 2026-11-01T12:00"
    )
    parser.add_argument("--to", dest="end", metavar="TIME", help="without this hour or day (default: now)")
    options, rest = parser.parse_known_args(arguments)
    # Imported here: this takes half a second, and the signal handlers must be installed before.
    from slurp.tool import run_tool
    from slurp.trends.command import period, rebuild

    try:
        start_us, end_us = period(options.start, options.end)
    except ValueError as error:
        parser.error(str(error))
    return run_tool(rest, signals, lambda tool: rebuild(tool, start_us, end_us))


if __name__ == "__main__":
    run(lambda signals: main(sys.argv[1:], signals))
