"""README.md is short and links to all other pages. tests/test_docs.py checks the content of all pages."""

from __future__ import annotations

import re
from pathlib import Path

from slurp.options.definitions import build_parser

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def options() -> set[str]:
    """Return the long options of the worker."""
    actions = build_parser()._actions
    return {name for action in actions for name in action.option_strings if name.startswith("--")}


def rows(page: Path) -> list[str]:
    """Return the options that have a table row on a page."""
    return re.findall(
        r"^\| `(?:-\w[^`]*`, `)?(--[a-z-]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )


def test_the_readme_is_short_and_shows_the_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert re.search(r"!\[[^\]]+\]\(docs/page-[\w-]+\.png\)", text)


def test_the_option_table_is_in_cli_md_only() -> None:
    assert rows(README) == []
    assert set(rows(ROOT / "docs" / "cli.md")) == options()


def test_the_index_links_to_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"^- \[[^\]]+\]\(([\w.-]+\.md)\): ", index, flags=re.MULTILINE)
    assert sorted(linked) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"
    )
    assert "(docs/README.md)" in README.read_text(encoding="utf-8")
