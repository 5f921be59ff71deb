"""The files that are made from the table of fields: part of an asset, and a page of documentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from slurp.documents.fields import mapping
from slurp.documents.page import page

ROOT = Path(__file__).resolve().parents[2]
ASSET = ROOT / "slurp" / "elastic" / "assets" / "events.json"
PAGE = ROOT / "docs" / "fields.md"


def contents() -> dict[Path, str]:
    """What should stand in each file. Of the asset, the settings are kept as they are."""
    asset = orjson.loads(ASSET.read_bytes())
    return {ASSET: f"{_json({**asset, 'mappings': mapping()})}\n", PAGE: page()}


def outdated() -> list[Path]:
    return [
        path
        for path, text in contents().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def write() -> None:
    for path, text in contents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _json(value: Mapping[str, Any], indent: str = "") -> str:
    """An object that holds no others takes one line, as a person would write it."""
    if not any(isinstance(item, dict) for item in value.values()):
        return "{" + ", ".join(f"{_scalar(name)}: {_scalar(item)}" for name, item in value.items()) + "}"
    deeper = f"{indent}  "
    lines = [
        f"{deeper}{_scalar(name)}: {_json(item, deeper) if isinstance(item, dict) else _scalar(item)}"
        for name, item in value.items()
    ]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _scalar(value: Any) -> str:
    return orjson.dumps(value).decode()
