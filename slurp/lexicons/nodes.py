"""A record's fields as a tree, between lexicon and mapping, and the merge of two trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Field = Mapping[str, Any]
"""The mapping of one field, like `{"type": "keyword", "ignore_above": 256}`."""

EVERYTHING_ELSE = "*"
"""Used as a property name for all properties of an object that are not mapped."""


@dataclass(frozen=True)
class Leaf:
    """A mapped field."""

    field: Field


@dataclass(frozen=True)
class LeftOut:
    """A property that records may have and the index does not map."""

    reason: str


@dataclass(frozen=True)
class Branch:
    """An object.

    `rest` is the reason why its other properties are unknown by design; None if there are none.
    """

    properties: Mapping[str, Node] = field(default_factory=dict)
    rest: str | None = None


Node = Leaf | LeftOut | Branch


def merge_nodes(one: Node, other: Node) -> Node:
    """Return the tree that holds for both variants of a union.

    Fields of equal type stay, objects are merged property by property, and properties that differ are left
    out, because a value of one type in a field of another type could cost the document.
    """
    match one, other:
        case LeftOut(), _:
            return one
        case _, LeftOut():
            return other
        case Branch(), Branch():
            return _merge_branches(one, other)
        case Leaf(), Leaf() if one.field["type"] == other.field["type"]:
            return Leaf(_merge_fields(one.field, other.field))
    return LeftOut(f"variants disagree: {' or '.join(sorted((_kind(one), _kind(other))))}")


def mapping_of(node: Leaf | Branch) -> dict[str, Any] | None:
    """Return the Elasticsearch mapping of `node`; None for an object with nothing to map."""
    if isinstance(node, Leaf):
        return dict(node.field)
    properties = {
        name: mapping
        for name, child in node.properties.items()
        if not isinstance(child, LeftOut) and (mapping := mapping_of(child)) is not None
    }
    # Explicit at each level, although inherited: a custom template must not make one dynamic.
    return {"dynamic": False, "properties": properties} if properties else None


def left_out_of(node: Node, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and reason of everything below `node` that its mapping does not have."""
    if isinstance(node, LeftOut):
        yield path, node.reason
    elif isinstance(node, Branch):
        prefix = f"{path}." if path else ""
        for name, child in node.properties.items():
            yield from left_out_of(child, prefix + name)
        if node.rest is not None:
            yield prefix + EVERYTHING_ELSE, node.rest
        elif path and not node.properties:
            yield path, "an object without properties"


def node_of(mapping: Mapping[str, Any], left_out: Mapping[str, str]) -> Node:
    """Return the tree that gave `mapping` and `left_out`, the inverse of `mapping_of` and `left_out_of`."""
    if "properties" not in mapping:
        return Leaf(mapping)
    children: dict[str, Node] = {
        name: node_of(child, _below(left_out, name)) for name, child in mapping["properties"].items()
    }
    for path, reason in left_out.items():
        name, _, deeper = path.partition(".")
        if name != EVERYTHING_ELSE and name not in children:
            # An object without mapped fields has left only the paths of its parts.
            children[name] = (
                node_of({"properties": {}}, _below(left_out, name)) if deeper else LeftOut(reason)
            )
    return Branch(children, left_out.get(EVERYTHING_ELSE))


def _below(left_out: Mapping[str, str], name: str) -> dict[str, str]:
    prefix = f"{name}."
    return {path.removeprefix(prefix): why for path, why in left_out.items() if path.startswith(prefix)}


def _merge_branches(one: Branch, other: Branch) -> Branch:
    properties = dict(one.properties)
    for name, node in other.properties.items():
        properties[name] = merge_nodes(properties[name], node) if name in properties else node
    return Branch(properties, one.rest or other.rest)


def _merge_fields(one: Field, other: Field) -> Field:
    """Return the wider of two fields of one type. A multi-field of either is kept: its length is bounded."""
    merged = {**one, **other}
    if "ignore_above" in merged:
        merged["ignore_above"] = max(one["ignore_above"], other["ignore_above"])
    return merged


def _kind(node: Node) -> str:
    return str(node.field["type"]) if isinstance(node, Leaf) else "object"
