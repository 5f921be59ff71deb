"""`python -m slurp.simulator`: run a local Jetstream server, for the demo and for benchmarks."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from slurp.process import StopSignals, run
from slurp.units import parse_duration, parse_size

if TYPE_CHECKING:
    from slurp.simulator.jetstream import Simulator

T = TypeVar("T")
_EPILOG = """\
examples:
  python -m slurp.simulator --rate 1000 --port 6008
  python -m slurp.simulator --rate 0 --count 500000        a benchmark, read with cursor=0
  python -m slurp.simulator --file events.jsonl --restamp --rate 200
  python -m slurp.simulator --delete-account 50000 --burst-delay 1m

With --count the simulator keeps running after the last event. Ctrl+C, SIGTERM or SIGHUP stops it:
connections are closed with code 1001, the exit code is 0."""


def main(arguments: Sequence[str] | None = None, signals: StopSignals | None = None) -> int:
    """Serve until a stop signal arrives; return the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(threadName)s: %(message)s")
    signals = signals or StopSignals()
    try:
        simulator = _build(options)
        _prepare(simulator, options)
        simulator.start()
    except (OSError, ValueError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    try:
        _start_producer(simulator, options)
        print(f"Jetstream simulator ready at {simulator.subscribe_url}", flush=True)
        signals.wait()
    finally:
        simulator.close()
    return 0


def _prepare(simulator: Simulator, options: argparse.Namespace) -> None:
    """Create the events that exist before the server accepts connections. Raises ValueError, OSError."""
    if options.restamp and not options.file:
        raise ValueError("--restamp requires --file")
    if options.history:
        simulator.generate(options.history, span=options.history_span)
    if options.rate == 0:
        if options.file:
            simulator.load(options.file, restamp=options.restamp, limit=options.count)
        elif options.count is not None:
            simulator.generate(options.count, span=options.history_span)
    elif options.file and not options.file.is_file():
        raise FileNotFoundError(f"{options.file} is not a file")
    for records, delete in _bursts(simulator, options):
        burst = partial(delete, simulator.write_account(records))
        if options.burst_delay:
            timer = threading.Timer(options.burst_delay, burst)
            timer.daemon = True
            timer.start()
        else:
            burst()


def _bursts(
    simulator: Simulator, options: argparse.Namespace
) -> list[tuple[int, Callable[[str], Simulator]]]:
    """Return the requested bursts: the number of records of an account, and how to delete them."""
    bursts = [
        (options.delete_records, simulator.delete_records),
        (options.delete_account, simulator.delete_account),
    ]
    return [(records, delete) for records, delete in bursts if records]


def _start_producer(simulator: Simulator, options: argparse.Namespace) -> None:
    """Start the production of events in the background."""
    if options.file:
        if options.rate > 0:
            simulator.load(options.file, restamp=options.restamp, rate=options.rate, limit=options.count)
    elif options.count is None:
        simulator.run_at(options.rate)
    elif options.count and options.rate > 0:
        simulator.run_at(options.rate, limit=options.count)


def _build(options: argparse.Namespace) -> Simulator:
    # Imported here: the signal handlers are installed before these slow imports.
    from slurp.simulator.jetstream import Simulator
    from slurp.simulator.options import NetworkOptions, ServerOptions

    return Simulator(
        port=options.port,
        seed=options.seed,
        protocols=options.protocols,
        network=NetworkOptions(
            accounts=options.people,
            odd_revs=options.odd_revs,
            backdated=options.backdated,
            cursors=not options.no_cursors,
        ),
        server=ServerOptions(
            host=options.host,
            retain_bytes=options.retain,
            lookback=options.lookback,
            write_timeout=options.write_timeout,
            ping_interval=options.ping_interval,
            pong_timeout=options.pong_timeout,
            active_segment=options.active_segment,
        ),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slurp.simulator",
        description="A local Jetstream server (v1 and v2 protocol) with generated events.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_server(parser.add_argument_group("server"))
    _add_events(parser.add_argument_group("events"))
    return parser


def _add_server(group: argparse._ArgumentGroup) -> None:
    duration = _checked(parse_duration)
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    group.add_argument("--port", type=int, default=6008, help="0 chooses a free one (default: %(default)s)")
    group.add_argument(
        "--protocols",
        choices=("v1", "v2", "both"),
        default="both",
        help="supported protocols; v1 is an older server (%(default)s)",
    )
    group.add_argument(
        "--lookback",
        type=duration,
        default="36h",
        metavar="TIME",
        help="how far cursors reach back (%(default)s)",
    )
    group.add_argument(
        "--retain",
        type=_checked(parse_size),
        default="512MB",
        metavar="SIZE",
        help="memory for events; the oldest are dropped (%(default)s)",
    )
    group.add_argument(
        "--active-segment",
        type=duration,
        default="0s",
        metavar="TIME",
        help="time cursors newer than this replay from this long ago (%(default)s)",
    )
    group.add_argument(
        "--write-timeout",
        type=duration,
        default="5s",
        metavar="TIME",
        help="disconnect clients that read nothing for this long (%(default)s)",
    )
    group.add_argument(
        "--ping-interval",
        type=duration,
        default="30s",
        metavar="TIME",
        help="time between pings (%(default)s)",
    )
    group.add_argument(
        "--pong-timeout",
        type=duration,
        default="5s",
        metavar="TIME",
        help="disconnect clients without a pong (%(default)s)",
    )
    group.add_argument(
        "--log-level",
        default="warning",
        choices=("debug", "info", "warning", "error"),
        help="lowest level logged to standard error (%(default)s)",
    )


def _add_events(group: argparse._ArgumentGroup) -> None:
    duration, share = _checked(parse_duration), _checked(_parse_share)
    group.add_argument(
        "--rate",
        type=_checked(_parse_rate),
        default="1000",
        help="events per second; 0 is as fast as the slowest subscriber reads, or with --count or --file "
        "all before the start (%(default)s)",
    )
    group.add_argument(
        "--count", type=_checked(_parse_count), help="number of events; the server keeps running afterwards"
    )
    group.add_argument(
        "--history",
        type=_checked(_parse_count),
        default="0",
        metavar="N",
        help="events that exist at the start, for replays (%(default)s)",
    )
    group.add_argument(
        "--history-span",
        type=duration,
        default="1h",
        metavar="TIME",
        help="period covered by the history (%(default)s)",
    )
    group.add_argument("--seed", type=int, default=1, help="random seed of the events (%(default)s)")
    group.add_argument("--people", type=int, default=2000, help="number of accounts (%(default)s)")
    group.add_argument(
        "--odd-revs",
        type=share,
        default="0.005",
        metavar="SHARE",
        help="share of accounts whose revs are days to years off (%(default)s)",
    )
    group.add_argument(
        "--backdated",
        type=share,
        default="0",
        metavar="SHARE",
        help="share of time_us hours to days back (%(default)s)",
    )
    group.add_argument(
        "--delete-account",
        type=_checked(_parse_count),
        default="0",
        metavar="N",
        help="delete an account of N records that exist at the start (%(default)s)",
    )
    group.add_argument(
        "--delete-records",
        type=_checked(_parse_count),
        default="0",
        metavar="N",
        help="delete N records that exist at the start, one by one (%(default)s)",
    )
    group.add_argument(
        "--burst-delay",
        type=duration,
        default="0s",
        metavar="TIME",
        help="time from the start to these deletions (%(default)s)",
    )
    group.add_argument(
        "--no-cursors", action="store_true", help="events without a cursor, like older servers"
    )
    group.add_argument(
        "--file",
        type=Path,
        help="serve the lines of this .jsonl file unchanged instead of generated events, "
        "including lines that are not events",
    )
    group.add_argument("--restamp", action="store_true", help="with --file: shift all times to now")


def _checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Convert ValueError for argparse, which shows the text of ArgumentTypeError only."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _parse_rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate < float("inf"):
        raise ValueError(f"invalid rate '{text}' (use a number of events per second, or 0)")
    return rate


def _parse_share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(f"invalid share '{text}' (use a number from 0 to 1)")
    return share


def _parse_count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(f"invalid number '{text}' (must not be negative)")
    return count


if __name__ == "__main__":
    run(lambda signals: main(signals=signals))
