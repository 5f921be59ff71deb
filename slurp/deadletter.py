"""Replay of dead letters, after their cause was fixed: `python -m slurp.deadletter replay FILE`.

Frames that are rejected again go to FILE.remaining; FILE is not changed. Documents that are already in the
index count as duplicates. With `--quarantined`, quarantined documents are built again and overwritten. Index
templates and pipelines are checked, not changed. If Elasticsearch is not reachable for `--wait`, or a signal
requests a stop, the command ends with exit code 1 and can be run again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from slurp.errors import Exit
from slurp.process import StopSignals, run

_USAGE = """\
usage: python -m slurp.deadletter replay [FILE] [--quarantined] [OPTIONS]

Index the dead letters in FILE. Those that are rejected again go to FILE.remaining.
--quarantined also indexes the quarantined documents again.

OPTIONS are the options of skeetslurper for Elasticsearch: --es, --es-user,
--es-pass-file, --index, …; use --lexicons and --retention as the worker does.
--wait limits an outage of Elasticsearch, at the start and later.

The command can be run again: documents that are already indexed are counted as
duplicates.

exit codes:
  0  all are indexed, or dropped by an ingest pipeline of Elasticsearch
  1  some are not indexed: rejected again, older than --retention, Elasticsearch
     not reachable for --wait, or stopped by Ctrl+C or SIGTERM
  2  wrong usage\
"""


def main(arguments: Sequence[str] | None = None, signals: StopSignals | None = None) -> int:
    """Return the exit code: 0 if all are indexed, 1 if some are not, 2 for wrong usage."""
    path, quarantined, rest = _parse_arguments(sys.argv[1:] if arguments is None else arguments)
    # Imported here: this takes half a second, and the signal handlers must be installed before.
    from slurp import logs
    from slurp.config import parse
    from slurp.deletions.late import LateEvents
    from slurp.elastic.client import Elastic
    from slurp.pipeline.dead_letter_replay import Replay

    config = parse(rest)
    secrets = logs.Secrets(config.secrets)
    logs.set_up(config.log_level, config.log_format, secrets)
    elastic = Elastic(config, secrets)
    late = LateEvents(elastic, config)
    try:
        return int(Replay(elastic, config, path, quarantined, late.apply).run(signals or StopSignals()))
    finally:
        elastic.close()


def _parse_arguments(arguments: Sequence[str]) -> tuple[Path | None, bool, list[str]]:
    """Return FILE, whether --quarantined is given, and the other options. Raises SystemExit."""
    command, *rest = arguments or ("",)
    if command in ("-h", "--help") or {"-h", "--help"} & {*rest}:
        print(_USAGE)
        raise SystemExit(Exit.DONE)
    # Not by argparse: an optional FILE would match the values of the options that another parser reads.
    path = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    quarantined = "--quarantined" in rest
    if command != "replay" or (path is None and not quarantined):
        print(_USAGE, file=sys.stderr)
        raise SystemExit(Exit.USAGE)
    return path, quarantined, [word for word in rest if word != "--quarantined"]


if __name__ == "__main__":
    run(lambda signals: main(signals=signals))
