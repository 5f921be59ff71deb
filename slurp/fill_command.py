"""The command that reads a period again with the options of this worker, as a shell takes it."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import configargparse

NAME = "fill"
# Given anew for the second worker, or of no use to it.
_OTHERS_TO_READ = ("--jetstream", "--redundant")
_OWN = ("--worker-name", "--http", "--catch-up", "--replay-from", "--since", "--no-kibana")
# The second worker leaves Kibana alone.
_NEEDED = ("--es-pass", "--es-api-key")

Words = tuple[str, ...]


@dataclass(frozen=True)
class FillCommand:
    """How this worker was started: its program, and the words of each option from the command line and from
    variables. Options in config files are read from there again. It holds no secret."""

    program: Words = ("skeetslurper",)
    options: tuple[tuple[str, Words], ...] = ()
    """From the command line: the name of an option, and the words that set it."""
    variables: tuple[tuple[str, str, str], ...] = ()
    """From the environment: the name of an option, the variable and its value."""
    needs: Words = ()
    """Variables that the command needs, as they hold what must not be shown."""
    worker_name: str = ""
    is_redundant: bool = False

    @classmethod
    def of(
        cls,
        parser: configargparse.ArgumentParser,
        words: Sequence[str],
        values: Mapping[str, Any],
        secrets: Mapping[str, str],
    ) -> FillCommand:
        """Return the command for what `parser` has just read from `words` and its other sources.

        `values` are the options; `secrets` has those that hold secrets, with their variables.
        """
        options = list(_options(parser, words))
        found = parser.get_source_to_settings_dict().get("environment_variables", {})
        variables = [
            (action.option_strings[-1], name, _absolute(action, text))
            for name, (action, text) in found.items()
        ]
        given = {name for name, _ in options} | {name for name, _, _ in variables}
        return cls(
            (sys.executable, _absolute_path(sys.argv[0])),
            tuple(one for one in options if one[0] not in secrets),
            tuple(one for one in variables if one[0] not in secrets),
            tuple(name for option, name in secrets.items() if option in given and option in _NEEDED),
            values["worker_name"],
            values["redundant"],
        )

    def with_option(self, name: str, value: str) -> FillCommand:
        """Return the command with one more option."""
        return dataclasses.replace(self, options=(*self.options, (name, (name, value))))

    def advice(self, from_us: int, jetstream: str = "") -> str:
        """Return what to do, which ends with the command: it reads from a time (Unix microseconds) on, from
        `jetstream` if one is given, else from the servers of this worker."""
        before = f"set {' and '.join(self.needs)} and " if self.needs else ""
        return f"{before}run beside this worker: {self._command(from_us, jetstream)}"

    def _command(self, from_us: int, jetstream: str) -> str:
        left_out = {*_OWN, *(_OTHERS_TO_READ if jetstream else ())}
        settings = [(name, text) for option, name, text in self.variables if option not in left_out]
        if jetstream and self.is_redundant:
            # A switch in a config file can be taken back by its variable alone.
            settings.append(("SKEETSLURPER_REDUNDANT", "false"))
        words = [*self.program]
        words += [word for option, given in self.options if option not in left_out for word in given]
        words += ["--no-kibana", "--http", "off", "--catch-up"]
        words += ["--worker-name", NAME if self.worker_name != NAME else f"{NAME}-again"]
        # Whole seconds, rounded down: rather read some again.
        start = datetime.fromtimestamp(from_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        words += ["--replay-from", start, *(["--jetstream", jetstream] if jetstream else [])]
        return " ".join([*(f"{name}={shlex.quote(text)}" for name, text in settings), shlex.join(words)])


def _options(parser: configargparse.ArgumentParser, words: Sequence[str]) -> Iterator[tuple[str, Words]]:
    """The options in a command line that was parsed without an error, with their values made absolute."""
    rest = iter(words)
    for word in rest:
        name, has_value, value = word.partition("=")
        if not word.startswith("--"):
            # `-c FILE` or `-cFILE`.
            name, value = word[:2], word[2:]
            has_value = value
        action = parser._option_string_actions[name]
        name = action.option_strings[-1]
        if action.nargs == 0:
            yield name, (name,)
        else:
            yield name, (name, _absolute(action, value if has_value else next(rest)))


def _absolute(action: Any, text: str) -> str:
    """Return the value of an option; the command may be run from another folder."""
    is_path = action.type is Path or getattr(action, "is_config_file_arg", False)
    return _absolute_path(text) if is_path and text else text


def _absolute_path(path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except (OSError, RuntimeError):
        return path  # the current folder is gone, or there is no home
