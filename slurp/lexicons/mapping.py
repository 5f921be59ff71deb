"""Trees of fields → one Elasticsearch mapping, its field count, and the merge of two mappings."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from slurp.lexicons.compiler import Compiler, unused_choices
from slurp.lexicons.nodes import Branch, Node, left_out_of, mapping_of, node_of
from slurp.lexicons.overrides import SEEN_AT
from slurp.lexicons.reader import LexiconError, Lexicons

ROOT = "record"
MARK = "skeetslurper"

# index.mapping.total_fields.limit, as Elasticsearch has it unless told.
MAX_FIELDS = 1000
# Kept free for the fields that are not from lexicons; a caller that knows them may give their number.
OTHER_FIELDS = 200


@dataclass(frozen=True)
class Compiled:
    """The typed record types.

    `mapping` is what stands under `template.mappings` of the component template; `left_out` has
    for each record type the paths that are not mapped, with the reason.
    """

    mapping: Mapping[str, Any]
    left_out: Mapping[str, Mapping[str, str]]
    record_types: tuple[str, ...]
    revision: str
    warnings: tuple[str, ...] = ()

    @property
    def fields(self) -> int:
        """The number that counts against index.mapping.total_fields.limit."""
        return count_fields(self.mapping["properties"])

    @property
    def component_template(self) -> dict[str, Any]:
        """The body for `PUT _component_template/…`."""
        meta = {MARK: {"lexicons": {"revision": self.revision, "record_types": list(self.record_types)}}}
        return {"_meta": meta, "template": {"mappings": self.mapping}}

    def mapping_of(self, nsid: str) -> Mapping[str, Any]:
        """The mapping of one record type; KeyError for one that has none."""
        node: Mapping[str, Any] = self.mapping["properties"][ROOT]
        for part in nsid.split("."):
            node = node["properties"][part]
        return node

    def fields_by_record_type(self) -> Counter[str]:
        return Counter({nsid: _count(self.mapping_of(nsid)) for nsid in self.record_types})

    def tree_of(self, nsid: str) -> Node:
        return node_of(self.mapping_of(nsid), self.left_out.get(nsid, {}))


def compile(
    lexicons: Lexicons, *, base: Compiled | None = None, other_fields: int = OTHER_FIELDS
) -> Compiled:
    """The mapping of all record types in `lexicons`.

    Without `base` these are the public ones, and whatever cannot be resolved is an error. With it
    they are a third party's: references may lead to what `base` knows, others become a warning.
    """
    if not lexicons.record_types:
        raise LexiconError(
            f"none of {len(lexicons.documents)} lexicons defines a record; name another directory"
        )
    _refuse_prefixes(lexicons.record_types)
    compiler = Compiler(lexicons, known=_known_of(base) if base else {}, lenient=base is not None)
    trees = {nsid: compiler.record(nsid) for nsid in lexicons.record_types}
    compiled = Compiled(
        mapping=_mapping({nsid: mapping_of(tree) or _EMPTY for nsid, tree in trees.items()}),
        left_out={nsid: paths for nsid, tree in trees.items() if (paths := dict(sorted(left_out_of(tree))))},
        record_types=lexicons.record_types,
        revision=lexicons.revision,
        warnings=tuple(compiler.warnings),
    )
    _refuse_too_many(compiled, other_fields)
    if base is None and (unused := sorted(unused_choices(compiler.used_choices))):
        raise LexiconError(f"no lexicon has {', '.join(unused)}; remove it from slurp/lexicons/overrides.py")
    return compiled


def merge(base: Compiled, extra: Compiled, *, other_fields: int = OTHER_FIELDS) -> Compiled:
    """`base` and the third-party record types of `extra`; what collides is refused."""
    if both := sorted({*base.record_types} & {*extra.record_types}):
        raise LexiconError(f"typed already: {', '.join(both)}; remove these lexicons from the directory")
    record_types = tuple(sorted((*base.record_types, *extra.record_types)))
    _refuse_prefixes(record_types)
    mappings = {nsid: source.mapping_of(nsid) for source in (base, extra) for nsid in source.record_types}
    merged = Compiled(
        mapping=_mapping(mappings),
        left_out={**base.left_out, **extra.left_out},
        record_types=record_types,
        revision=blake2b(f"{base.revision} {extra.revision}".encode(), digest_size=16).hexdigest(),
        warnings=(*base.warnings, *extra.warnings),
    )
    _refuse_too_many(merged, other_fields)
    return merged


def count_fields(properties: Mapping[str, Any]) -> int:
    """Fields, objects and multi-fields below `properties`, as Elasticsearch counts them."""
    return sum(_count(mapping) for mapping in properties.values())


def _count(mapping: Mapping[str, Any]) -> int:
    return 1 + count_fields(mapping.get("properties", {})) + count_fields(mapping.get("fields", {}))


_EMPTY: Mapping[str, Any] = {"dynamic": False, "properties": {}}


def _mapping(by_record_type: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each mapping under `record` and the parts of its NSID: Elasticsearch reads a dot as an object."""
    root: dict[str, Any] = {"dynamic": False, "properties": {}}
    for nsid in sorted(by_record_type):
        *parents, last = (ROOT, *nsid.split("."))
        node = root
        for part in parents:
            node = node["properties"].setdefault(part, {"dynamic": False, "properties": {}})
        node["properties"][last] = by_record_type[nsid]
    return root


def _known_of(base: Compiled) -> dict[str, Node]:
    """Trees that third-party lexicons may refer to: whole record types, and `choices.SEEN_AT`."""
    known = {f"{nsid}#main": base.tree_of(nsid) for nsid in base.record_types}
    for address, (nsid, path) in SEEN_AT.items():
        node: Node | None = known.get(f"{nsid}#main")
        for name in path.split("."):
            node = node.properties.get(name) if isinstance(node, Branch) else None
        if node is not None:
            known[address] = node
    return known


def _refuse_prefixes(record_types: Iterable[str]) -> None:
    """One NSID inside another would make the fields of a record and a namespace one object."""
    pairs = [f"{short} is a prefix of {long}" for short, long in _prefixes(sorted(record_types))]
    if pairs:
        raise LexiconError(f"{len(pairs)} record types collide: {'; '.join(pairs)}; remove one of each pair")


def _prefixes(record_types: list[str]) -> Iterator[tuple[str, str]]:
    return (
        (short, long)
        for short, long in itertools.permutations(record_types, 2)
        if long.startswith(f"{short}.")
    )


def _refuse_too_many(compiled: Compiled, other_fields: int) -> None:
    if compiled.fields + other_fields <= MAX_FIELDS:
        return
    biggest = ", ".join(f"{nsid} {count}" for nsid, count in compiled.fields_by_record_type().most_common(10))
    raise LexiconError(
        f"{compiled.fields:,} fields from lexicons and {other_fields} others are more than {MAX_FIELDS:,};"
        f" remove lexicons; the biggest are: {biggest}"
    )
