"""What the documents promise about the command line is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slurp.config import build_parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "elk" / "README.md"]


def options() -> set[str]:
    actions = build_parser()._actions
    return {name for action in actions for name in action.option_strings if name.startswith("--")}


def test_the_readme_has_every_option_in_its_table() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)", PAGES[0].read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(rows) == options() - {"--help"}
    assert len(rows) == len(set(rows))


def test_the_defaults_in_the_readme_are_those_of_the_help() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    for action in build_parser()._actions:
        default = re.search(r"\(default: ([^\s)]+)\)", action.help or "")
        if default and default[1] not in ("the", "below"):
            (row,) = re.findall(rf"^\| `{action.option_strings[-1]}[ `].*$", text, flags=re.MULTILINE)
            assert default[1] in row, row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
