"""Generate the committed assets from lexicon files: `python -m slurp.lexicons build DIR [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slurp.lexicons import asset
from slurp.lexicons.mapping import MAX_FIELDS, compile
from slurp.lexicons.reader import LexiconError, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 built or up to date, 1 a difference found by `--check`, 2 unusable lexicons."""
    options = _parser().parse_args(arguments)
    try:
        compiled = compile(load(options.directory))
    except LexiconError as error:
        print(error, file=sys.stderr)
        return 2
    if options.check:
        for name in (different := asset.outdated(compiled, options.output)):
            print(f"{name} is out of date for these lexicons; run build without --check", file=sys.stderr)
        return 1 if different else 0
    asset.write(compiled, options.output)
    print(f"{len(compiled.record_types)} record types, {compiled.fields} of {MAX_FIELDS} fields")
    for nsid, count in compiled.fields_by_record_type().most_common():
        print(f"{count:5} {nsid}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m slurp.lexicons", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="compile lexicon files to the mapping of their record types")
    build.add_argument("directory", type=Path, metavar="DIR", help="lexicon files, *.json at any depth")
    build.add_argument("--check", action="store_true", help="write nothing; exit 1 if the files would change")
    build.add_argument(
        "--output", type=Path, default=asset.ASSETS, help="target directory (default: the package)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
