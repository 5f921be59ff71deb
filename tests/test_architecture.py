"""Imports point downward, and no module imports itself by way of others (docs/architecture.md)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests import architecture


def test_every_package_and_module_has_a_layer() -> None:
    placed = {name for names in architecture.LAYERS for name in names}
    assert placed == {architecture.unit(name) for name in architecture.modules() if name != "slurp"}


def test_imports_between_packages_point_downward() -> None:
    assert architecture.upward() == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert architecture.cycles() == []


def test_the_table_of_imports_is_current() -> None:
    assert architecture.page() == architecture.PAGE.read_text(encoding="utf-8"), "run make docs"


def test_no_file_is_several_things() -> None:
    long = {str(path): lines for path, lines in lengths().items() if lines > 450}
    assert not long


def test_small_modules_have_their_reason_in_the_documentation() -> None:
    small = {
        str(path)
        for path, lines in lengths().items()
        if lines < 40 and path.parts[0] == "slurp" and path.name not in ("__init__.py", "__main__.py")
    }
    section = architecture.PAGE.read_text(encoding="utf-8").split("## Small modules")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(slurp/\S+)` \|", section, re.MULTILINE)) == small


def lengths() -> dict[Path, int]:
    """Return the number of lines of each Python file that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py"], cwd=architecture.ROOT, check=True, capture_output=True, text=True
    ).stdout
    files = [Path(name) for name in listed.split("\0") if name]
    return {
        path: len((architecture.ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in files
        if (architecture.ROOT / path).is_file()
    }
