"""What README.md promises about the command line is true; tests/test_docs.py looks at all pages."""

from __future__ import annotations

import re
from pathlib import Path

from slurp.options import build_parser

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def options() -> set[str]:
    actions = build_parser()._actions
    return {name for action in actions for name in action.option_strings if name.startswith("--")}


def test_the_readme_has_every_option_in_its_table() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(rows) == options() - {"--help"}
    assert len(rows) == len(set(rows))


def test_the_defaults_in_the_readme_are_those_of_the_help() -> None:
    text = README.read_text(encoding="utf-8")
    for action in build_parser()._actions:
        default = re.search(r"\(default: ([^\s)]+)\)", action.help or "")
        if default and default[1] not in ("the", "below"):
            (row,) = re.findall(rf"^\| `{action.option_strings[-1]}[ `].*$", text, flags=re.MULTILINE)
            assert default[1] in row, row
