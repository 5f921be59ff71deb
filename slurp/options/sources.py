"""Where the values of options come from: command line, environment variables and config files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import configargparse

from slurp.options.config_file import COMMAND_LINE_ONLY, SECRET_OPTIONS, suggestion
from slurp.options.parser import ENV_PREFIX, UsageError, env_variable

# The variables that Kubernetes sets in every container for a Service named skeetslurper or skeetslurper-….
_KUBERNETES = re.compile(r".*_SERVICE_HOST|.*_SERVICE_PORT(_.+)?|.+_PORT(_\d+_[A-Z]+(_[A-Z]+)?)?").fullmatch
# Similarity from which an unknown variable is a misspelled option: ES_PASSWORD for ES_PASS is one, MEM_LIMIT
# is none.
_MISSPELLED = 0.75


class CommandLineOption(NamedTuple):
    """An option on the command line. `value` is None for a switch."""

    name: str
    value: str | None
    action: argparse.Action


class EnvironmentOption(NamedTuple):
    """An option in an environment variable, not overridden by the command line."""

    name: str
    variable: str
    value: str
    action: argparse.Action


class FileOption(NamedTuple):
    """An option in a config file, not overridden by another source."""

    name: str
    file: str
    line: int


@dataclass(frozen=True)
class OptionSources:
    """The options that are not defaults, by source. Names have leading hyphens, as in `--es-user`."""

    command_line: tuple[CommandLineOption, ...] = ()
    environment: tuple[EnvironmentOption, ...] = ()
    files: tuple[FileOption, ...] = ()

    @classmethod
    def of(cls, parser: configargparse.ArgumentParser, argv: Sequence[str]) -> OptionSources:
        """Return the sources of the options that `parser` has just parsed, also after an error."""
        environment: list[EnvironmentOption] = []
        files: list[FileOption] = []
        # configargparse sets it while parsing.
        for source, settings in getattr(parser, "_source_to_settings", {}).items():
            kind, _, file = source.partition("|")
            if kind == "config_file":
                lines = parser._config_file_parser.lines
                files += [FileOption(f"--{name}", file, lines[file, name]) for name in settings]
            elif kind == "environment_variables":
                environment += [
                    EnvironmentOption(action.option_strings[-1], variable, value, action)
                    for variable, (action, value) in settings.items()
                ]
        return cls(tuple(_command_line(parser, argv)), tuple(environment), tuple(files))

    @property
    def origins(self) -> dict[str, str]:
        """The origin of each option as text, by its name without hyphens; defaults are omitted."""
        found = {option.name: f"{option.file}, line {option.line}" for option in self.files}
        found |= {option.name: option.variable for option in self.environment}
        found |= {option.name: "command line" for option in self.command_line}
        return {name.removeprefix("--"): origin for name, origin in found.items()}

    @property
    def files_with_secrets(self) -> dict[Path, str]:
        """The config files that contain a secret, each with the option of its first secret."""
        found: dict[Path, str] = {}
        for secret in SECRET_OPTIONS:
            for option in self.files:
                if option.name == f"--{secret}":
                    found.setdefault(Path(option.file), option.name)
        return found


def _command_line(parser: configargparse.ArgumentParser, argv: Sequence[str]) -> Iterator[CommandLineOption]:
    """Yield the options of a command line, which may have errors: unknown words are skipped."""
    rest = iter(argv)
    for word in rest:
        name, has_value, value = word.partition("=")
        if not word.startswith("--"):
            # `-c FILE` or `-cFILE`.
            name, value = word[:2], word[2:]
            has_value = value
        action = parser._option_string_actions.get(name)
        if action is None:
            continue
        if action.nargs == 0:
            yield CommandLineOption(action.option_strings[-1], None, action)
        else:
            value = value if has_value else next(rest, "")
            yield CommandLineOption(action.option_strings[-1], value, action)


def environment_options(
    environ: Mapping[str, str], parser: configargparse.ArgumentParser
) -> tuple[dict[str, str], str]:
    """Return the variables that are options, and a warning about other SKEETSLURPER_… variables or ''.

    Other programs set such variables, so they are ignored. But a variable that looks like a misspelled option
    raises UsageError, as the worker would otherwise run without that option.
    """
    # configargparse itself assigns the variables to the options only while it parses.
    options = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    known = {env_variable(option) for option in options - {*COMMAND_LINE_ONLY}}
    unknown = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)
    for name in unknown:
        if name == env_variable("--config"):
            raise UsageError(f"{name}: --config can only be used on the command line")
        if not _KUBERNETES(name) and (hint := suggestion(name, sorted(known), ENV_PREFIX, _MISSPELLED)):
            raise UsageError(f"unknown environment variable {name}{hint}")
    warning = f"ignoring environment variables that are not options: {', '.join(unknown)}" if unknown else ""
    if any(map(_KUBERNETES, unknown)):
        warning += (
            " (Kubernetes sets such variables for a Service named skeetslurper or skeetslurper-…; "
            "enableServiceLinks: false in the pod spec disables them)"
        )
    return {name: value for name, value in environ.items() if name in known}, warning
