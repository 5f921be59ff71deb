"""Removal of content on request, and a check of what should be removed: `python -m slurp.deletions`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from slurp.process import StopSignals, run


def main(arguments: Sequence[str] | None = None, signals: StopSignals | None = None) -> int:
    """Return the exit code: 0 if it is done, 1 if something is left to do, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m slurp.deletions",
        description="Remove stored content on request, and check that deleted content is removed. Without "
        "--yes nothing is changed. All other options are those of skeetslurper for Elasticsearch: --es, "
        "--es-user, --es-pass-file, --index, …",
        epilog="exit codes: 0 done, or nothing to do; 1 something is left to do; 2 wrong usage",
        allow_abbrev=False,
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--did", metavar="DID", help="redact all documents of an account")
    action.add_argument("--uri", metavar="AT_URI", help="redact all versions of a record: at://did:…/…/…")
    action.add_argument(
        "--verify",
        action="store_true",
        help="find versions that a stored deletion, update or account event should have redacted or hidden; "
        "with --yes apply these events, as after the restore of a snapshot",
    )
    action.add_argument(
        "--confirm",
        action="store_true",
        help="deleted accounts that --deletions-brake holds: how many; with --yes let them be redacted",
    )
    parser.add_argument("--yes", action="store_true", help="do it")
    options, rest = parser.parse_known_args(arguments)
    if options.did is not None and not options.did.startswith("did:"):
        parser.error(f"--did: not a DID: {options.did!r} (use the form did:plc:…)")
    if options.uri is not None and not options.uri.startswith("at://did:"):
        parser.error(f"--uri: not an AT URI with a DID: {options.uri!r} (use the form at://did:plc:…/…/…)")
    # Imported here: this takes half a second, and the signal handlers must be installed before.
    from slurp.deletions.command import Command, Request
    from slurp.tool import run_tool

    request = Request(options.did, options.uri, options.verify, options.confirm, options.yes)
    return run_tool(rest, signals, lambda tool: Command(tool).run(request))


if __name__ == "__main__":
    run(lambda signals: main(sys.argv[1:], signals))
