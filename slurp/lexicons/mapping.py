"""Build one Elasticsearch mapping from trees of fields, count its fields, and merge two mappings."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from slurp.lexicons.compiler import Compiler, unused_overrides
from slurp.lexicons.nodes import Branch, Node, left_out_of, mapping_of, node_of
from slurp.lexicons.overrides import EXAMPLE_USES
from slurp.lexicons.reader import LexiconError, Lexicons

ROOT = "record"
META_KEY = "skeetslurper"

# The default of index.mapping.total_fields.limit.
MAX_FIELDS = 1000
# Reserved for fields that are not from lexicons; a caller that knows their number passes it.
OTHER_FIELDS = 200


@dataclass(frozen=True)
class Compiled:
    """The record types that have mapped fields.

    `mapping` is the content of `template.mappings` in the component template. `left_out` maps each record
    type to the paths that are not mapped, with the reasons.
    """

    mapping: Mapping[str, Any]
    left_out: Mapping[str, Mapping[str, str]]
    record_types: tuple[str, ...]
    revision: str
    warnings: tuple[str, ...] = ()

    @property
    def fields(self) -> int:
        """Number of fields as counted for index.mapping.total_fields.limit."""
        return count_fields(self.mapping["properties"])

    @property
    def component_template(self) -> dict[str, Any]:
        """Body for `PUT _component_template/…`."""
        meta = {META_KEY: {"lexicons": {"revision": self.revision, "record_types": list(self.record_types)}}}
        return {"_meta": meta, "template": {"mappings": self.mapping}}

    def mapping_of(self, nsid: str) -> Mapping[str, Any]:
        """Return the mapping of one record type. Raises KeyError if it has none."""
        node: Mapping[str, Any] = self.mapping["properties"][ROOT]
        for part in nsid.split("."):
            node = node["properties"][part]
        return node

    def fields_by_record_type(self) -> Counter[str]:
        """Return the number of fields of each record type."""
        return Counter({nsid: _count(self.mapping_of(nsid)) for nsid in self.record_types})

    def tree_of(self, nsid: str) -> Node:
        """Return the tree of fields of one record type."""
        return node_of(self.mapping_of(nsid), self.left_out.get(nsid, {}))


def compile(
    lexicons: Lexicons, *, base: Compiled | None = None, other_fields: int = OTHER_FIELDS
) -> Compiled:
    """Return the mapping of all record types in `lexicons`. Raises LexiconError.

    Without `base`, for the public lexicons, a definition that cannot be resolved is an error. With `base`,
    for third-party lexicons, references may lead to definitions of `base`, and others become warnings.
    """
    if not lexicons.record_types:
        raise LexiconError(
            f"none of the {len(lexicons.documents)} lexicons defines a record; use another directory"
        )
    _reject_prefixes(lexicons.record_types)
    compiler = Compiler(lexicons, known=_known_definitions(base) if base else {}, lenient=base is not None)
    trees = {nsid: compiler.record(nsid) for nsid in lexicons.record_types}
    compiled = Compiled(
        mapping=_mapping({nsid: mapping_of(tree) or _EMPTY for nsid, tree in trees.items()}),
        left_out={nsid: paths for nsid, tree in trees.items() if (paths := dict(sorted(left_out_of(tree))))},
        record_types=lexicons.record_types,
        revision=lexicons.revision,
        warnings=tuple(compiler.warnings),
    )
    _reject_too_many_fields(compiled, other_fields)
    if base is None and (unused := sorted(unused_overrides(compiler.used_overrides))):
        raise LexiconError(f"no lexicon uses {', '.join(unused)}; remove it from slurp/lexicons/overrides.py")
    return compiled


def merge(base: Compiled, extra: Compiled, *, other_fields: int = OTHER_FIELDS) -> Compiled:
    """Return `base` with the third-party record types of `extra`. Raises LexiconError if they collide."""
    if both := sorted({*base.record_types} & {*extra.record_types}):
        raise LexiconError(f"already mapped: {', '.join(both)}; remove these lexicons from the directory")
    record_types = tuple(sorted((*base.record_types, *extra.record_types)))
    _reject_prefixes(record_types)
    mappings = {nsid: source.mapping_of(nsid) for source in (base, extra) for nsid in source.record_types}
    merged = Compiled(
        mapping=_mapping(mappings),
        left_out={**base.left_out, **extra.left_out},
        record_types=record_types,
        revision=blake2b(f"{base.revision} {extra.revision}".encode(), digest_size=16).hexdigest(),
        warnings=(*base.warnings, *extra.warnings),
    )
    _reject_too_many_fields(merged, other_fields)
    return merged


def count_fields(properties: Mapping[str, Any]) -> int:
    """Return the number of fields, objects and multi-fields, as Elasticsearch counts them."""
    return sum(_count(mapping) for mapping in properties.values())


def _count(mapping: Mapping[str, Any]) -> int:
    return 1 + count_fields(mapping.get("properties", {})) + count_fields(mapping.get("fields", {}))


_EMPTY: Mapping[str, Any] = {"dynamic": False, "properties": {}}


def _mapping(by_record_type: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put each mapping under `record` and the parts of its NSID: Elasticsearch reads a dot as an object."""
    root: dict[str, Any] = {"dynamic": False, "properties": {}}
    for nsid in sorted(by_record_type):
        *parents, last = (ROOT, *nsid.split("."))
        node = root
        for part in parents:
            node = node["properties"].setdefault(part, {"dynamic": False, "properties": {}})
        node["properties"][last] = by_record_type[nsid]
    return root


def _known_definitions(base: Compiled) -> dict[str, Node]:
    """Return trees that third-party lexicons may refer to: record types and `overrides.EXAMPLE_USES`."""
    known = {f"{nsid}#main": base.tree_of(nsid) for nsid in base.record_types}
    for address, (nsid, path) in EXAMPLE_USES.items():
        node: Node | None = known.get(f"{nsid}#main")
        for name in path.split("."):
            node = node.properties.get(name) if isinstance(node, Branch) else None
        if node is not None:
            known[address] = node
    return known


def _reject_prefixes(record_types: Iterable[str]) -> None:
    """Reject an NSID inside another: fields of a record and a namespace would become one object."""
    pairs = [f"{short} is a prefix of {long}" for short, long in _prefixes(sorted(record_types))]
    if pairs:
        raise LexiconError(f"{len(pairs)} record types collide: {'; '.join(pairs)}; remove one of each pair")


def _prefixes(record_types: list[str]) -> Iterator[tuple[str, str]]:
    return (
        (short, long)
        for short, long in itertools.permutations(record_types, 2)
        if long.startswith(f"{short}.")
    )


def _reject_too_many_fields(compiled: Compiled, other_fields: int) -> None:
    if compiled.fields + other_fields <= MAX_FIELDS:
        return
    biggest = ", ".join(f"{nsid} {count}" for nsid, count in compiled.fields_by_record_type().most_common(10))
    raise LexiconError(
        f"{compiled.fields:,} fields from lexicons and {other_fields} others exceed the limit of "
        f"{MAX_FIELDS:,}; remove lexicons; the largest are: {biggest}"
    )
