"""The generated files: a component template for Elasticsearch, and the paths that its mapping leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from slurp.lexicons.mapping import META_KEY, Compiled

MAPPING_FILE = "lexicons.json"
# A separate file, because the template is part of the cluster state of every node.
LEFT_OUT_FILE = "lexicons-left-out.json"

ASSETS = Path(__file__).resolve().parent.parent / "elastic" / "assets"


def committed() -> Compiled:
    """Return the record types that this version was built with."""
    assets = files("slurp.elastic") / "assets"
    body = orjson.loads((assets / MAPPING_FILE).read_bytes())
    left_out = orjson.loads((assets / LEFT_OUT_FILE).read_bytes())
    return from_component_template(body, left_out)


def from_component_template(body: Mapping[str, Any], left_out: Mapping[str, Mapping[str, str]]) -> Compiled:
    """Return the compiled lexicons stored in a component template and the file of left-out paths."""
    meta = body["_meta"][META_KEY]["lexicons"]
    return Compiled(
        mapping=body["template"]["mappings"],
        left_out=left_out,
        record_types=tuple(meta["record_types"]),
        revision=meta["revision"],
    )


def render(compiled: Compiled) -> dict[str, bytes]:
    """Return the content of each generated file: the same bytes for the same lexicons."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return {
        MAPPING_FILE: orjson.dumps(compiled.component_template, option=options),
        LEFT_OUT_FILE: orjson.dumps(compiled.left_out, option=options),
    }


def outdated(compiled: Compiled, directory: Path) -> list[str]:
    """Return the names of the generated files in `directory` that differ from `compiled`."""
    return [
        name
        for name, content in render(compiled).items()
        if not (directory / name).is_file() or (directory / name).read_bytes() != content
    ]


def write(compiled: Compiled, directory: Path) -> None:
    """Write the generated files into `directory`."""
    for name, content in render(compiled).items():
        (directory / name).write_bytes(content)
