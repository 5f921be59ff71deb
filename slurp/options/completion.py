"""Shell completion of the options: `skeetslurper --print-completion bash`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

SHELLS = ("bash", "zsh", "fish")


class PrintCompletion(argparse.Action):
    """Action that prints the completion script of a shell and exits, as --version prints the version."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        try:
            sys.stdout.write(completion_script(parser, str(values)))
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # the reader has finished; `process.run` exits with code 0
        except OSError as error:
            parser.exit(1, f"{parser.prog}: cannot write the completion script: {error.strerror}\n")
        parser.exit()


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script of `shell` for all options of `parser`."""
    # Imported here, as no other command needs it.
    import shtab

    for action in parser._actions:
        complete = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}.get(str(action.metavar))
        if complete:
            action.complete = complete  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)
