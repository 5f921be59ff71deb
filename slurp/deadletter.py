"""`python -m slurp.deadletter replay FILE`: feed dead letters again, after what refused them was mended.

What is still refused goes to FILE.remaining; FILE stays as it is. Documents already there are
duplicates. With `--quarantined`, documents in quarantine are built again and overwritten. The set-up
is the worker's: it is looked at and not changed. When Elasticsearch stays away for `--wait`, or a signal
asks to stop, the command ends with exit code 1, and may be run again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from slurp.errors import Exit
from slurp.process import StopSignals, run

_USAGE = """\
usage: python -m slurp.deadletter replay [FILE] [--quarantined] [OPTIONS]

Feed the dead letters in FILE again; what is still refused goes to FILE.remaining.
--quarantined frees documents in quarantine, too. OPTIONS are those of skeetslurper
for Elasticsearch: --es, --es-user, --es-pass-file, --index, …; give --lexicons and
--retention as the worker has them. --wait is how long to wait for Elasticsearch, at
the start and when nothing gets done later. Running it again does no harm: what is
there already counts as a duplicate.

exit codes: 0 all are in Elasticsearch, or dropped by an ingest pipeline there; 1 some
are not: refused again, past --retention, no Elasticsearch for --wait, or stopped by
Ctrl+C or SIGTERM; 2 wrong usage\
"""


def main(arguments: Sequence[str] | None = None, signals: StopSignals | None = None) -> int:
    """0: all are in Elasticsearch; 1: some are not, whatever the reason; 2: wrong usage."""
    path, quarantined, rest = _arguments(sys.argv[1:] if arguments is None else arguments)
    # Imported here: it takes half a second, and a signal in that time must find a handler.
    from slurp import logs
    from slurp.config import parse
    from slurp.elastic.client import Elastic
    from slurp.pipeline.dead_letter_replay import Replay

    config = parse(rest)
    secrets = logs.Secrets(config.secrets)
    logs.set_up(config.log_level, config.log_format, secrets)
    elastic = Elastic(config, secrets)
    try:
        return int(Replay(elastic, config, path, quarantined).run(signals or StopSignals()))
    finally:
        elastic.close()


def _arguments(arguments: Sequence[str]) -> tuple[Path | None, bool, list[str]]:
    """FILE, whether --quarantined, and the options for Elasticsearch. SystemExit for wrong usage."""
    command, *rest = arguments or ("",)
    if command in ("-h", "--help") or {"-h", "--help"} & {*rest}:
        print(_USAGE)
        raise SystemExit(Exit.DONE)
    # By hand: an optional FILE among options that another parser reads would swallow their values.
    path = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    quarantined = "--quarantined" in rest
    if command != "replay" or (path is None and not quarantined):
        print(_USAGE, file=sys.stderr)
        raise SystemExit(Exit.USAGE)
    return path, quarantined, [word for word in rest if word != "--quarantined"]


if __name__ == "__main__":
    run(lambda signals: main(signals=signals))
