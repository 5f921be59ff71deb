"""What a shell needs to complete our options: `skeetslurper --print-completion bash`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

SHELLS = ("bash", "zsh", "fish")


class PrintCompletion(argparse.Action):
    """Prints the script of a shell and exits, as --version does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        try:
            sys.stdout.write(script(parser, str(values)))
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # the reader has what it wanted
        except OSError as error:
            parser.exit(1, f"{parser.prog}: can't write the completion script: {error.strerror}\n")
        parser.exit()


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    # No start needs it but this one.
    import shtab

    for action in parser._actions:
        complete = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}.get(str(action.metavar))
        if complete:
            action.complete = complete  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)
