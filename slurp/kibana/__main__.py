"""`python -m slurp.kibana build [--check]`: write data views, searches and dashboards to a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slurp.kibana.objects import DEFAULT_INDEX, build, ndjson

FILE = Path(__file__).with_name("dashboards.ndjson")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 if built or up to date, 1 if `--check` found a difference."""
    options = _parser().parse_args(arguments)
    content = ndjson(build(options.index, options.space, has_links=options.links))
    if not options.check:
        options.output.write_bytes(content)
        return 0
    if options.output.is_file() and options.output.read_bytes() == content:
        return 0
    print(f"{options.output.name} is out of date; run build without --check", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m slurp.kibana", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("build", help="write data views, searches and dashboards to a file")
    command.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the file would change"
    )
    command.add_argument("--output", type=Path, default=FILE, help="output file (default: in the package)")
    command.add_argument(
        "--index", default=DEFAULT_INDEX, help="--index of the worker (default: %(default)s)"
    )
    command.add_argument(
        "--no-links",
        dest="links",
        action="store_false",
        help="for Kibana 8.9 and 8.10: links between the dashboards without links panels",
    )
    command.add_argument("--space", default="", help="id of the Kibana space (default: the default space)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
