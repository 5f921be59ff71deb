"""The command: options in, exit code out."""

from __future__ import annotations

from collections.abc import Sequence

from slurp import __version__, logs
from slurp.config import parse
from slurp.service import Service


def main(argv: Sequence[str] | None = None) -> int:
    config = parse(argv)
    secrets = logs.Secrets(config.secrets)
    screen = logs.set_up(config.log_level, config.log_format, secrets)
    logs.log_crashes()
    return int(Service(config, screen, secrets, version=__version__).run())
