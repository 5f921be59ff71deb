"""Parser of config files. Each line that is not valid is an error with file name and line number.

docs/cli.md documents the syntax. A line may contain a secret, so no error repeats a value.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TextIO

import configargparse

# These select what the program does or which files it reads, so files and variables cannot set them.
COMMAND_LINE_ONLY = ("--help", "--version", "--config", "--print-completion", "--check")
# Options whose values are secrets. Each has a variant NAME-file.
SECRET_OPTIONS = ("es-pass", "es-api-key", "kibana-pass", "jetstream-api-key")

_NAME = re.compile(r"[^\s:=]+")
# Section headings of INI files and document separators of YAML, which are ignored.
_IGNORED = re.compile(r"\[[\w .:/-]*\]\s*([#;].*)?|-{3,}").fullmatch
_COMMENT = re.compile(r"(^|\s)[#;]").search
_LOOKS_LIKE_OPTION = re.compile(r"(--)?[a-z][a-z_-]{0,40}").fullmatch
_SWITCH = {"true": "true", "yes": "true", "on": "true", "1": "true"} | {
    "false": "false",
    "no": "false",
    "off": "false",
    "0": "false",
}
_INVALID_LINE = "invalid line (use 'name = value' with an option from --help)"


class ConfigFile(configargparse.ConfigFileParser):  # type: ignore[misc]
    """Config file parser for configargparse, which creates it without arguments."""

    def __init__(self) -> None:
        self.actions: Mapping[str, argparse.Action] = {}
        """All options by name without leading hyphens, such as `es-user`. Set by `build_parser`."""
        self.lines: dict[tuple[str, str], int] = {}
        """Line numbers by file and option; for a repeated option, the last one."""

    def parse(self, stream: TextIO) -> dict[str, str | list[str]]:
        """Return the values by option; a repeatable option has a list of values.

        Raises ConfigFileParserException, which configargparse passes to `OptionParser.error`.
        """
        found: dict[str, str | list[str]] = {}
        try:
            for number, line in enumerate(stream, start=1):
                try:
                    self._parse_line(line.strip(), stream.name, number, found)
                except ValueError as error:
                    _fail(f"{stream.name}, line {number}: {error}")
        except UnicodeDecodeError:
            _fail(f"{stream.name}: not UTF-8 text (save the file as UTF-8)")
        return found

    def _parse_line(self, line: str, file: str, number: int, found: dict[str, str | list[str]]) -> None:
        if not line or line[0] in "#;" or _IGNORED(line):
            return
        if (match := _NAME.match(line)) is None:
            raise ValueError(_INVALID_LINE)
        rest = line[match.end() :].strip()
        has_separator = rest[:1] in ("=", ":")
        name, action = self._option(match[0], is_certain=has_separator)
        # Using either value silently could be wrong.
        if name in found and not is_repeatable(action):
            raise ValueError(f"{name} is already set in line {self.lines[file, name]} (remove one of them)")
        self.lines[file, name] = number
        if not has_separator and (not rest or rest[0] in "#;"):
            if action.nargs != 0:
                raise ValueError(f"{name}: missing value (use '{name} = value')")
            found[name] = "true"
            return
        value = _parse_value(rest[1:].strip() if has_separator else rest, name, action)
        if isinstance(value, list):
            value = [*found.get(name, ()), *value]
        found[name] = value

    def _option(self, text: str, *, is_certain: bool) -> tuple[str, argparse.Action]:
        """Return name and action of the option at the start of a line.

        `is_certain`: a separator follows, so that `text` is not half of a secret.
        """
        name = text.removeprefix("--")
        if f"--{name}" in COMMAND_LINE_ONLY:
            raise ValueError(f"--{name} can only be used on the command line")
        if (action := self.actions.get(name)) is not None:
            return name, action
        hint = suggestion(f"--{name}", [f"--{known}" for known in self.actions])
        if _LOOKS_LIKE_OPTION(text) and (is_certain or hint):
            raise ValueError(f"unknown option --{name}{hint}")
        raise ValueError(_INVALID_LINE)


def is_repeatable(action: argparse.Action) -> bool:
    """Return whether an option can be given several times."""
    return isinstance(action, argparse._AppendAction)


def suggestion(name: str, options: Iterable[str], prefix: str = "--", cutoff: float = 0.6) -> str:
    """Return ", did you mean …?" with the most similar of `options`, '' if none is similar.

    The names are compared without `prefix`, which all of them share and which would make them look similar.
    """
    known = [option.removeprefix(prefix) for option in options if option.startswith(prefix)]
    similar = difflib.get_close_matches(name.removeprefix(prefix), known, n=1, cutoff=cutoff)
    return f", did you mean {prefix}{similar[0]}?" if similar else ""


def _parse_value(text: str, name: str, action: argparse.Action) -> str | list[str]:
    quote = text[:1] if text[:1] in ("'", '"') else ""
    if quote:
        value, closed, rest = text[1:].partition(quote)
        if not closed:
            raise ValueError(f"{name}: missing closing quote {quote} (use the other kind of quote)")
        if rest and (not rest[0].isspace() or rest.strip()[0] not in "#;"):
            raise ValueError(f"{name}: text after the closing quote {quote} (use the other kind of quote)")
    else:
        comment = _COMMENT(text)
        if comment and name in SECRET_OPTIONS:
            raise ValueError(
                f"{name}: {comment[0].strip()} may be part of the value or start a comment (quote the value, "
                "or move the comment to a line of its own)"
            )
        value = text[: comment.start()].strip() if comment else text
    if action.nargs == 0:
        if value.lower() not in _SWITCH:
            raise ValueError(f"{name}: invalid value (use true or false)")
        return _SWITCH[value.lower()]
    in_brackets = not quote and value.startswith("[") and value.endswith("]")
    if is_repeatable(action):
        return _parse_list(value) if in_brackets else [value]
    if in_brackets:
        raise ValueError(f"{name}: not a repeatable option (quote a value that has brackets)")
    return value


def _parse_list(text: str) -> list[str]:
    """Return the items of a list in brackets: a JSON array, or unquoted items separated by commas."""
    try:
        items: list[Any] = json.loads(text)
    except (ValueError, RecursionError):
        items = text[1:-1].split(",")
    return [str(item).strip() for item in items]


def _fail(message: str) -> NoReturn:
    raise configargparse.ConfigFileParserException(message) from None
