"""Build the mapping of the common fields and docs/fields.md: `python -m slurp.documents build [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from slurp.documents import field_reference


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 if built or up to date, 1 if `--check` found a difference."""
    parser = argparse.ArgumentParser(prog="python -m slurp.documents", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="write the files generated from the table of fields")
    build.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")
    options = parser.parse_args(arguments)
    if not options.check:
        field_reference.write()
        return 0
    for path in (different := field_reference.outdated()):
        print(f"{path.name} is out of date; run build without --check", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
