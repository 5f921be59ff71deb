"""The layers of the packages and modules in `slurp/`, and the import graph that docs/architecture.md shows.

`python -m tests.architecture build` writes the graph into docs/architecture.md; `--check` compares.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- graph: begin, made by make docs -->", "<!-- graph: end -->"

# From the top to the bottom. A module may import what stands below its own line; modules of one package may
# import each other, without cycles.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli", "deadletter", "demo"),
    ("service", "check", "reference"),
    ("tasks", "threads"),
    ("startup",),
    ("web",),
    ("monitoring", "kibana", "embedded"),
    ("trends", "backfill"),
    ("actors",),
    ("deletions",),
    ("pipeline", "tool"),
    ("jetstream", "elastic"),
    ("documents", "simulator"),
    ("lexicons", "archive"),
    ("config",),
    ("replay_command",),
    ("options",),
    ("scheduler", "progress_bar"),
    ("proxies", "logs", "events", "watchdog", "user_folders", "response_body"),
    ("process", "backoff", "addresses", "units", "errors"),
)


def modules() -> dict[str, Path]:
    """Return the dotted names of all modules below `slurp`, with their files."""
    found = {}
    for path in sorted((ROOT / "slurp").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of `slurp` that a module imports, also within functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            inside = [f"{node.module}.{one.name}" for one in node.names]
            names = [one if one in known else str(node.module) for one in inside]
        else:
            continue
        found |= {one for one in names if one == "slurp" or one.startswith("slurp.")}
    return found - {name, "slurp"}


def edges() -> Iterator[tuple[str, str]]:
    """Yield each import as (importing module, imported module), without those of `slurp/__init__.py`."""
    known = modules()
    for name, path in known.items():
        if name != "slurp":
            for target in sorted(imports(name, path, known)):
                yield name, target


def unit(name: str) -> str:
    """Return the package or top-level module of a module: `slurp.jetstream.dialer` → `jetstream`."""
    return name.split(".")[1]


def layer(name: str) -> int:
    """Return the number of the layer of a unit, counted from the top. Raises KeyError for an unknown one."""
    for number, names in enumerate(LAYERS):
        if name in names:
            return number
    raise KeyError(f"{name} has no layer in tests/architecture.py")


def upward() -> list[str]:
    """Return the imports that do not point downward."""
    return [
        f"{source} imports {target}"
        for source, target in edges()
        if unit(source) != unit(target) and layer(unit(source)) >= layer(unit(target))
    ]


def cycles() -> list[str]:
    """Return the modules that import each other in a circle, as text."""
    graph: dict[str, set[str]] = {}
    for source, target in edges():
        graph.setdefault(source, set()).add(target)
    found, done = [], set[str]()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return found


def table() -> str:
    """Return the import graph as a table: each layer from the top, its members, and what they import."""
    found: dict[str, set[str]] = {}
    count = 0
    for source, target in edges():
        if unit(source) != unit(target):
            found.setdefault(unit(source), set()).add(unit(target))
            count += 1
    lines = ["| layer | package or module | imports |", "|---|---|---|"]
    for number, names in enumerate(reversed(LAYERS), start=1):
        for name in names:
            imported = sorted(found.get(name, ()), key=lambda one: (layer(one), one))
            targets = ", ".join(f"`{one}`" for one in imported)
            lines.append(f"| {number} | `{name}` | {targets or '-'} |")
    upward_edges = len(upward())
    lines.append(f"\n{count} imports between these, {upward_edges} of them upward or within a layer.")
    return "\n".join(lines)


def page() -> str:
    """Return docs/architecture.md with the current table."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


if __name__ == "__main__":
    if sys.argv[1:] == ["build"]:
        PAGE.write_text(page(), encoding="utf-8")
    elif sys.argv[1:] == ["build", "--check"]:
        sys.exit(0 if page() == PAGE.read_text(encoding="utf-8") else f"{PAGE} is outdated: run make docs")
    else:
        sys.exit("usage: python -m tests.architecture build [--check]")
