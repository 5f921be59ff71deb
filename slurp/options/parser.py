"""The argument parser of the command line, with error messages that never repeat a secret."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

import configargparse

from slurp.options.config_file import suggestion
from slurp.options.values import integer_from
from slurp.units import parse_duration

ENV_PREFIX = "SKEETSLURPER_"

# The message of configargparse for a switch in the environment. It continues with the value.
_INVALID_SWITCH = re.compile(r"Unexpected value for (\S+): ").match


class UsageError(Exception):
    """An error in the options, described in one line."""


class OptionParser(configargparse.ArgumentParser):  # type: ignore[misc]
    """A configargparse parser that raises UsageError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message reworded, or the OSError of a config file that cannot be opened.

        The value of a mistyped option may be a secret. So only the first unknown option is named, without
        its value: the next one may be a word of that value.
        """
        reason = sys.exception()
        if message.startswith("Unable to open config file") and isinstance(reason, OSError):
            raise reason
        if message.startswith("unrecognized arguments:"):
            words = message.split(":", 1)[1].split()
            options = [word.split("=", 1)[0] for word in words if word.startswith("-")]
            if options:
                message = f"unknown option {options[0]}{suggestion(options[0], self._option_string_actions)}"
            else:
                message = "unexpected argument (each value needs an option before it)"
        elif found := _INVALID_SWITCH(message):
            message = f"{found[1]}: invalid value (use true or false)"
        raise UsageError(message.removeprefix("argument "))


def open_config_file(path: str) -> TextIO:
    """Open a config file as UTF-8 in every locale, without the byte order mark that some editors write."""
    return open(path, encoding="utf-8-sig")  # noqa: PTH123


def argument_type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap `parse` so that argparse shows the text of its ValueError instead of a generic message."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def env_variable(option: str) -> str:
    """Return the environment variable of an option: SKEETSLURPER_ES_USER for `--es-user`."""
    return ENV_PREFIX + option.removeprefix("--").replace("-", "_").upper()


DURATION = argument_type(parse_duration)
POSITIVE = argument_type(integer_from(1))
