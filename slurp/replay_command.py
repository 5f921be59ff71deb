"""The shell command that reads a period again with the options of this worker."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from slurp.options.config_file import SECRET_OPTIONS
from slurp.options.parser import env_variable
from slurp.options.sources import OptionSources

# The name of the second worker, which keeps its checkpoint apart from that of this worker.
WORKER_NAME = "fill"
# Omitted from the command: it sets them itself, or the second worker does not need them.
_REPLACED = ("--worker-name", "--http", "--catch-up", "--replay-from", "--since", "--no-kibana")
# Omitted as well if the command reads from another server.
_SERVERS = ("--jetstream", "--redundant")
_SECRETS = tuple(f"--{name}" for name in SECRET_OPTIONS)
# The secrets of the second worker, which does not connect to Kibana.
_REQUIRED_SECRETS = ("--es-pass", "--es-api-key")

Words = tuple[str, ...]


@dataclass(frozen=True)
class ReplayCommand:
    """The program and the options of this worker, without secrets.

    Options of config files are not included, as the second worker reads the same files.
    """

    program: Words = ("skeetslurper",)
    options: tuple[tuple[str, Words], ...] = ()
    """Options of the command line: name, and the words that set it."""
    variables: tuple[tuple[str, str, str], ...] = ()
    """Options of the environment: name, variable and value."""
    required_variables: Words = ()
    """Variables with secrets, which the user has to set."""
    worker_name: str = ""
    is_redundant: bool = False

    @classmethod
    def of(cls, sources: OptionSources, worker_name: str, *, is_redundant: bool) -> ReplayCommand:
        """Return the command for a worker with the options of `sources`."""
        options = [
            (name, (name,) if value is None else (name, _portable(action, value)))
            for name, value, action in sources.command_line
        ]
        variables = [
            (name, variable, _portable(action, value))
            for name, variable, value, action in sources.environment
        ]
        given = {name for name, _ in options} | {name for name, _, _ in variables}
        return cls(
            (sys.executable, _absolute_path(sys.argv[0])),
            tuple(one for one in options if one[0] not in _SECRETS),
            tuple(one for one in variables if one[0] not in _SECRETS),
            tuple(env_variable(name) for name in _REQUIRED_SECRETS if name in given),
            worker_name,
            is_redundant,
        )

    def with_option(self, name: str, value: str) -> ReplayCommand:
        """Return the command with one more option."""
        return dataclasses.replace(self, options=(*self.options, (name, (name, value))))

    def advice(self, from_us: int, jetstream: str = "") -> str:
        """Return an instruction for the user that ends with the command.

        The command reads from the time `from_us` (Unix microseconds) until now, from the server `jetstream`,
        or from the servers of this worker if that is ''.
        """
        names = " and ".join(self.required_variables)
        prefix = f"set {names} and " if names else ""
        return f"{prefix}run beside this worker: {self._text(from_us, jetstream)}"

    def _text(self, from_us: int, jetstream: str) -> str:
        omitted = {*_REPLACED, *(_SERVERS if jetstream else ())}
        settings = [(variable, value) for name, variable, value in self.variables if name not in omitted]
        if jetstream and self.is_redundant:
            # Only the variable can turn off a switch of a config file.
            settings.append((env_variable("--redundant"), "false"))
        words = [*self.program]
        words += [word for name, given in self.options if name not in omitted for word in given]
        words += ["--no-kibana", "--http", "off", "--catch-up"]
        words += ["--worker-name", WORKER_NAME if self.worker_name != WORKER_NAME else f"{WORKER_NAME}-again"]
        # In whole seconds, rounded down: reading some events again is harmless.
        start = datetime.fromtimestamp(from_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        words += ["--replay-from", start, *(["--jetstream", jetstream] if jetstream else [])]
        prefix = [f"{variable}={shlex.quote(value)}" for variable, value in settings]
        return " ".join([*prefix, shlex.join(words)])


def _portable(action: argparse.Action, value: str) -> str:
    """Return the value of an option with an absolute path, for a command run in another directory."""
    is_path = action.type is Path or getattr(action, "is_config_file_arg", False)
    return _absolute_path(value) if is_path and value else value


def _absolute_path(path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except (OSError, RuntimeError):
        return path  # the current directory was deleted, or there is no home directory
