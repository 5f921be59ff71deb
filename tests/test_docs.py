"""Links, commands, options, files and messages in the documentation exist."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurp.kibana import panels
from slurp.kibana.dashboards import DASHBOARDS, filters
from slurp.kibana.panel_queries import field_types, problems
from slurp.lexicons import committed
from slurp.options.definitions import build_parser
from tests.test_readme import options

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchor(heading: str) -> str:
    """Return the anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """Return the anchors of all headings of a page."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}


def code(path: Path) -> Iterator[str]:
    """Yield the lines of code blocks, and the code in backticks."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        # Without shell comments.
        yield from re.sub(r"(^|\s)#.*", "", block).splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def test_the_list_of_pages_is_complete() -> None:
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/cli.md", "elk/README.md"} <= {
        str(path.relative_to(ROOT)) for path in PAGES
    }


@page
def test_links_have_an_existing_target(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not fragment or fragment in anchors(path), f"{page.name} links to {target}"


@page
def test_make_targets_and_variables_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) [?:]?=", MAKEFILE, flags=re.MULTILINE))
    for text in code(page):
        for arguments in re.findall(r"(?:^|[;&(]\s*)make ((?:[a-zA-Z_=\d./-]+ ?)+)", text):
            for word in arguments.split():
                name, assignment, _ = word.partition("=")
                assert name in (variables if assignment else targets), f"{page.name}: make {arguments}"


@page
def test_modules_in_commands_exist(page: Path) -> None:
    for text in code(page):
        for name in re.findall(r"python[\d.]* -m ([\w.]+)", text):
            assert importlib.util.find_spec(name) is not None, f"{page.name}: {text}"


@page
def test_named_files_exist(page: Path) -> None:
    for text in code(page):
        for name in re.findall(r"(?<![\w./~-])((?:slurp|tests|deploy|elk|docs|bench)/[\w./-]+)", text):
            assert (ROOT / name.rstrip(".")).exists(), f"{page.name}: {name}"


# Options of other programs, which the text names.
OPTIONS_OF_OTHER_PROGRAMS = {"--only-binary :all:", "--protocols", "--quarantined", "--seconds"}
OPTIONS_OF_OTHER_PROGRAMS |= {"--did", "--uri", "--yes", "--verify", "--verify --yes", "--confirm"}
OPTIONS_OF_OTHER_PROGRAMS |= {"--no-links"}


@page
def test_options_of_the_worker_exist(page: Path) -> None:
    known = options() | {o for action in build_parser()._actions for o in action.option_strings}
    for text in code(page):
        if re.match(r"(\S*/)?(python )?skeetslurper(\.py)?( |$)", text):
            for name in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", text):
                assert name in known, f"{page.name}: {text}"
        elif text.startswith("--") and text not in OPTIONS_OF_OTHER_PROGRAMS:
            assert text.split()[0] in known, f"{page.name}: {text}"


def test_every_make_target_has_a_help_line() -> None:
    targets = re.findall(r"^([a-z-]+):(.*)$", MAKEFILE, flags=re.MULTILINE)
    assert [name for name, rest in targets if not re.search(r"## \S", rest)] == []
    phony = " ".join(re.findall(r"^\.PHONY: (.+)$", MAKEFILE, flags=re.MULTILINE))
    assert {name for name, _ in targets} == set(phony.split())
    shown = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert set(re.findall(r"^  make (\S+)", shown, flags=re.MULTILINE)) == set(phony.split())


def test_the_example_panel_is_valid() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    chart = eval(example, {**vars(panels), **vars(filters)})  # noqa: S307  from this repository
    assert list(problems(chart, field_types(chart.view, committed()))) == []
    used = {chart.style for board in DASHBOARDS for chart in board.charts if isinstance(chart, panels.Series)}
    assert chart.style in used, "no dashboard uses this style, so Kibana may not support it"


def string_literals() -> list[str]:
    """Return every string literal of the program, with … in place of each formatted value."""
    found: list[str] = []
    for path in (ROOT / "slurp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[\d.,]*[sdrf]", "…", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(str(part) for part in parts))
    return found


# Shorter fixed parts of a quoted message, such as " and ", occur anywhere.
SHORTEST_PART = 12


def quoted_messages() -> set[str]:
    """Return the log messages in the first column of the tables of docs/troubleshooting.md."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    tables = page.partition("## Runbook")[0]
    cells = re.findall(r"^\| (.*?) \| ", tables, flags=re.MULTILINE)
    return {message for cell in cells for message in re.findall(r"`([^`]+)`", cell)}


def fixed_parts(message: str) -> list[str]:
    """Return the parts of a quoted message to find in the source: all long ones, at least the longest."""
    parts = sorted((part.strip(" ;:,.()") for part in message.split("…")), key=len, reverse=True)
    return parts[:1] + [part for part in parts[1:] if len(part) >= SHORTEST_PART]


def test_quoted_log_messages_exist_in_the_source() -> None:
    messages = quoted_messages()
    assert len(messages) > 35
    printed = "\n".join(string_literals())
    parts = {part for message in messages for part in fixed_parts(message)}
    assert {part for part in parts if part not in printed} == set()


def test_every_long_part_of_a_quoted_message_is_checked() -> None:
    message = "… sends … for requested cursor …; reconnecting with a time as cursor"
    assert fixed_parts(message) == ["reconnecting with a time as cursor", "for requested cursor"]
    assert fixed_parts("gap: …") == ["gap"]


INVARIANTS = ROOT / "docs" / "invariants.md"


def test_invariants_name_tests_that_exist() -> None:
    text = INVARIANTS.read_text(encoding="utf-8")
    sections = re.split(r"^## (?=\d+\. )", text, flags=re.MULTILINE)[1:]
    assert [int(section.partition(".")[0]) for section in sections] == list(range(1, 12))
    for section in sections:
        named = re.findall(r"^- `(tests/test_\w+\.py)`: (.+(?:\n  .+)*)", section, flags=re.MULTILINE)
        assert bool(named) != ("Not implemented yet" in section), section.partition("\n")[0]
        for file, functions in named:
            defined = re.findall(r"^ *def (test_\w+)", (ROOT / file).read_text("utf-8"), flags=re.MULTILINE)
            for name in re.findall(r"`(\w+)`", functions):
                assert name in defined, f"{file}: {name}"
