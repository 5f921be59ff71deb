"""Generate docs/fields.md and the mapping of the common fields from the table in `fields`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from slurp import lexicons
from slurp.documents.example_queries import examples
from slurp.documents.fields import FIELDS, mapping

_HEAD = """\
# Fields

<!-- Made by `python -m slurp.documents build`: edit slurp/documents/fields.py instead. -->

A document is one event. Fields that mean the same in every collection stand at the top; the
record itself, unchanged, stands below `record` and the NSID of its collection, for example
`record.app.bsky.feed.post.text`. The record of a collection that has no mapped fields stands in
`other_record`. Fields that a record has and the mapping has not are kept in `_source`, but cannot
be searched.

What Elasticsearch would refuse is changed: in `record`, names of fields that are blank or contain a
dot, a percent sign or NUL are percent-encoded; in `other_record`, levels deeper than 18 become JSON
text, a NUL in a name becomes �, and names of more than 400 characters are cut and given a hash. A
record that is no object stands in `other_record.value`.

## Common fields
"""


def page() -> str:
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    yield from _table("Field", "Type", "Meaning", "From")
    for field in FIELDS:
        yield _row(f"`{field.path}`", _type(field.mapping), field.meaning, field.source)
    yield "\n## Questions\n\nEach is a body for `GET bluesky-events-*/_search`."
    for example in examples():
        body = orjson.dumps(example.query, option=orjson.OPT_INDENT_2).decode()
        yield f"\n### {example.question}\n\n```json\n{body}\n```"
    yield "\n### A value in a record without mapped fields\n"
    yield (
        '`{"query": {"term": {"other_record.trackName": "…"}}}`; '
        'in whatever field: `{"query": {"term": {"other_record": "…"}}}`'
    )
    yield "\n## Fields of record types\n"
    compiled = lexicons.committed()
    for nsid in compiled.record_types:
        yield f"### `{nsid}`\n"
        rows = [_row(f"`{path}`", _type(mapping)) for path, mapping in _leaves(compiled.mapping_of(nsid), "")]
        if rows:
            yield f"Below `record.{nsid}`:\n"
            yield from _table("Field", "Type")
            yield from rows
        else:
            yield "No field is mapped."
        yield ""


def _leaves(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, child in mapping.get("properties", {}).items():
        if "properties" in child:
            yield from _leaves(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _type(mapping: Mapping[str, Any]) -> str:
    """`text, keyword in .keyword`."""
    if mapping.get("enabled") is False:
        return "not indexed"
    kind = str(mapping["type"])
    return ", ".join(
        [kind, *(f"{child['type']} in `.{name}`" for name, child in mapping.get("fields", {}).items())]
    )


def _table(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield _row(*("---" for _ in titles))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


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
