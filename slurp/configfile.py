"""Config files: one option a line. What is not understood is an error with the file's name and a line number.

docs/cli.md has the rules. A line may hold a secret, so no error repeats a value.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TextIO

import configargparse

# They end the program without its work, or say where the others stand.
FLAGS_ONLY = ("--help", "--version", "--config", "--print-completion", "--check")
# Options whose values are secrets. Each has one more, which names a file.
SECRETS = ("es-pass", "es-api-key", "kibana-pass")

_NAME = re.compile(r"[^\s:=]+")
# The heading of an INI file, and what separates documents in YAML: both mean nothing here.
_DECORATION = re.compile(r"\[[\w .:/-]*\]\s*([#;].*)?|-{3,}").fullmatch
_COMMENT = re.compile(r"(^|\s)[#;]").search
_LIKE_AN_OPTION = re.compile(r"(--)?[a-z][a-z_-]{0,40}").fullmatch
_SWITCH = {"true": "true", "yes": "true", "on": "true", "1": "true"} | {
    "false": "false",
    "no": "false",
    "off": "false",
    "0": "false",
}


class ConfigFile(configargparse.ConfigFileParser):  # type: ignore[misc]
    """Reads the files for configargparse, which makes one of this without arguments."""

    def __init__(self) -> None:
        self.actions: Mapping[str, argparse.Action] = {}
        """The options of the command line by their name without dashes, as `es-user`."""
        self.lines: dict[tuple[str, str], int] = {}
        """By file and option: the number of the line, which is the last one of a list."""

    def parse(self, stream: TextIO) -> dict[str, str | list[str]]:
        """Return the values by option, a list of them for options that can be repeated.

        Raises ConfigFileParserException, which configargparse turns into an error of usage.
        """
        found: dict[str, str | list[str]] = {}
        try:
            for number, line in enumerate(stream, start=1):
                try:
                    self._read(line.strip(), stream.name, number, found)
                except ValueError as error:
                    _reject(f"{stream.name}, line {number}: {error}")
        except UnicodeDecodeError:
            _reject(f"{stream.name}: not UTF-8 text; save it as UTF-8")
        return found

    def _read(self, line: str, file: str, number: int, found: dict[str, str | list[str]]) -> None:
        if not line or line[0] in "#;" or _DECORATION(line):
            return
        if (match := _NAME.match(line)) is None:
            raise ValueError("this is no 'name = value'")
        rest = line[match.end() :].strip()
        has_separator = rest[:1] in ("=", ":")
        name, action = self._option(match[0], is_certain=has_separator)
        # Before the value of the first is lost: both may be meant.
        if name in found and not is_list(action):
            raise ValueError(f"{name} is set in line {self.lines[file, name]} already; remove one of them")
        self.lines[file, name] = number
        if not has_separator and (not rest or rest[0] in "#;"):
            if action.nargs != 0:
                raise ValueError(f"{name} needs a value; write '{name} = value'")
            found[name] = "true"
            return
        value = _value(rest[1:].strip() if has_separator else rest, name, action)
        if isinstance(value, list):
            value = [*found.get(name, ()), *value]
        found[name] = value

    def _option(self, text: str, *, is_certain: bool) -> tuple[str, argparse.Action]:
        """Return name and action of an option that a line begins with."""
        name = text.removeprefix("--")
        if f"--{name}" in FLAGS_ONLY:
            raise ValueError(f"--{name} is a flag only")
        if (action := self.actions.get(name)) is not None:
            return name, action
        hint = suggestion(f"--{name}", [f"--{known}" for known in self.actions])
        # A line without a separator may be half a secret.
        if _LIKE_AN_OPTION(text) and (is_certain or hint):
            raise ValueError(f"unknown option --{name}{hint}")
        raise ValueError("this is no 'name = value' with the name of an option")


def is_list(action: argparse.Action) -> bool:
    """Whether an option can be repeated."""
    return isinstance(action, argparse._AppendAction)


def suggestion(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ", did you mean …?" with the name in `known` that is most like `name`, '' if none is."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f", did you mean {close[0]}?" if close else ""


def _value(text: str, name: str, action: argparse.Action) -> str | list[str]:
    quote = text[:1] if text[:1] in ("'", '"') else ""
    if quote:
        value, closed, rest = text[1:].partition(quote)
        if not closed:
            raise ValueError(f"{name}: the quote {quote} is not closed; quote the value with the other kind")
        if rest and (not rest[0].isspace() or rest.strip()[0] not in "#;"):
            raise ValueError(f"{name}: there is text behind the closing quote {quote}")
    else:
        comment = _COMMENT(text)
        if comment and name in SECRETS:
            raise ValueError(
                f"{name}: is {comment[0].strip()} the begin of a comment? Quote the value, or move the "
                "comment to another line"
            )
        value = text[: comment.start()].strip() if comment else text
    if action.nargs == 0:
        if value.lower() not in _SWITCH:
            raise ValueError(f"{name} takes true or false")
        return _SWITCH[value.lower()]
    in_brackets = not quote and value.startswith("[") and value.endswith("]")
    if is_list(action):
        return _items(value) if in_brackets else [value]
    if in_brackets:
        raise ValueError(f"{name} takes one value, not a list in brackets; quote a value that has brackets")
    return value


def _items(text: str) -> list[str]:
    """Return the items of a list in brackets: in JSON, or as they are with commas between."""
    try:
        items: list[Any] = json.loads(text)
    except (ValueError, RecursionError):
        items = text[1:-1].split(",")
    return [str(item).strip() for item in items]


def _reject(message: str) -> NoReturn:
    raise configargparse.ConfigFileParserException(message) from None
