"""Compile lexicon definitions to trees of fields, one for each record type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slurp.lexicons.field_types import BLOB, BOOLEAN, CID_LINK, LONG, keyword, string_node
from slurp.lexicons.nodes import EVERYTHING_ELSE, Branch, Leaf, LeftOut, Node, merge_nodes
from slurp.lexicons.overrides import COMMON_FIELDS, KEYWORDS, LEFT_OUT
from slurp.lexicons.reader import Definition, LexiconError, Lexicons

# Elasticsearch rejects a field below 20 objects (index.mapping.depth.limit); `record`, the parts of the NSID
# and the two levels of a blob count as well.
MAX_DEPTH = 16

# A lexicon of a few lines can expand to billions of fields; no legitimate record type has this many.
MAX_NODES = 10_000

# Elasticsearch reads a dot in a name as a path, and rejects an empty name.
_FIELD_NAME = re.compile(r"[A-Za-z$_][A-Za-z0-9$_-]*")

_TYPE = {"$type": Leaf(keyword(512))}


@dataclass
class Compiler:
    """Compiles the record types of `lexicons` to trees.

    `known` are trees of definitions that are not among `lexicons`. A definition that cannot be resolved is an
    error; with `lenient`, for third-party lexicons, it is left out with a warning, so that the worker starts.
    """

    lexicons: Lexicons
    known: Mapping[str, Node] = field(default_factory=dict)
    lenient: bool = False
    warnings: list[str] = field(default_factory=list)
    used_overrides: set[tuple[str, str]] = field(default_factory=set)
    _nodes: int = 0

    def record(self, nsid: str) -> Branch:
        """Return the tree of the record type `nsid`. Raises LexiconError."""
        self._nodes = 0
        main = self.lexicons.find(nsid, nsid)
        if main is None:
            raise LexiconError(f"{self.lexicons.where(nsid)}: defs.main is missing; fix the lexicon")
        where = self.lexicons.where(nsid)
        try:
            node = self._definition(main, main.body, (main.address,), depth=1 + len(nsid.split(".")))
        except RecursionError:
            raise LexiconError(f"{where}: definitions are nested infinitely; remove the file") from None
        if not isinstance(node, Branch):
            reason = node.reason if isinstance(node, LeftOut) else "it is not an object"
            raise LexiconError(f"{where}: the record has no fields: {reason}; remove the file")
        for path, common in COMMON_FIELDS.get(nsid, {}).items():
            node, found = _without(node, path.split("."), LeftOut(f"common field `{common}`"))
            if found:
                self.used_overrides.add((nsid, path))
        return node

    def _definition(
        self, scope: Definition, body: Mapping[str, Any], open_refs: tuple[str, ...], depth: int
    ) -> Node:
        """Return the tree of `body`, a part of `scope`; `open_refs` are the definitions that enclose it."""
        self._count(scope)
        match body.get("type"):
            case "string":
                return string_node(body)
            case "token":
                return Leaf(keyword())
            case "integer":
                return Leaf(LONG)
            case "boolean":
                return Leaf(BOOLEAN)
            case "blob":
                return BLOB
            case "cid-link":
                return CID_LINK
            case "bytes":
                return LeftOut("bytes cannot be searched")
            case "unknown":
                return LeftOut("of unknown type by the lexicon")
            case "record" | "array" as container:
                inside = "record" if container == "record" else "items"
                return self._definition(scope, self._part(scope, body, inside), open_refs, depth)
            case "object":
                return self._object(scope, body, open_refs, depth)
            case "ref":
                return self._reference(scope, body.get("ref"), open_refs, depth)
            case "union":
                return self._union(scope, body, open_refs, depth)
            case other:
                return self._unresolved(scope, f"unknown type {other!r}")

    def _object(
        self, scope: Definition, body: Mapping[str, Any], open_refs: tuple[str, ...], depth: int
    ) -> Node:
        if depth >= MAX_DEPTH:
            return LeftOut(f"deeper than {MAX_DEPTH} objects")
        is_definition = body is scope.body or body is scope.body.get("record")
        left_out = LEFT_OUT.get(scope.address, {}) if is_definition else {}
        keywords = KEYWORDS.get(scope.address, frozenset()) if is_definition else frozenset()
        properties: dict[str, Node] = {}
        declared = self._part(scope, body, "properties") if "properties" in body else {}
        for name in declared:
            if not _FIELD_NAME.fullmatch(name):
                properties[name] = LeftOut("the name is not a valid field name")
            elif name in left_out:
                properties[name] = LeftOut(left_out[name])
                self.used_overrides.add((scope.address, name))
            elif name in keywords:
                properties[name] = Leaf(keyword())
                self.used_overrides.add((scope.address, name))
            else:
                part = self._part(scope, declared, name)
                properties[name] = self._definition(scope, part, open_refs, depth + 1)
        rest = left_out.get(EVERYTHING_ELSE)
        if rest is not None:
            self.used_overrides.add((scope.address, EVERYTHING_ELSE))
        return Branch(properties, rest)

    def _union(
        self, scope: Definition, body: Mapping[str, Any], open_refs: tuple[str, ...], depth: int
    ) -> Node:
        refs = body.get("refs")
        if not isinstance(refs, list):
            return self._unresolved(scope, 'a union without "refs"')
        merged: Node = Branch(_TYPE, None if refs else "open union; its variants are in other lexicons")
        for ref in refs:
            variant = self._reference(scope, ref, open_refs, depth)
            if isinstance(variant, LeftOut):
                # A variant without fields of its own does not remove those of the others.
                variant = Branch(rest=variant.reason)
            merged = merge_nodes(merged, variant)
        return merged

    def _reference(self, scope: Definition, ref: Any, open_refs: tuple[str, ...], depth: int) -> Node:
        if not isinstance(ref, str):
            return self._unresolved(scope, 'a reference without "ref"')
        target = self.lexicons.find(ref, scope.nsid)
        if target is None:
            address = ref.removeprefix("lex:") if "#" in ref else f"{ref.removeprefix('lex:')}#main"
            if address in self.known:
                return self.known[address]
            return self._unresolved(scope, f"{ref} is not defined in any file")
        if target.address in open_refs:
            return LeftOut(f"recursion: {target.address} inside itself")
        return self._definition(target, target.body, (*open_refs, target.address), depth)

    def _part(self, scope: Definition, body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        part = body.get(name)
        if not isinstance(part, dict):
            where = self.lexicons.where(scope.nsid)
            raise LexiconError(
                f"{where}: {name!r} in defs.{scope.name} is not a JSON object; fix the lexicon"
            )
        return part

    def _unresolved(self, scope: Definition, problem: str) -> LeftOut:
        message = f"{self.lexicons.where(scope.nsid)}: defs.{scope.name}: {problem}"
        if not self.lenient:
            raise LexiconError(f"{message}; add the lexicon that defines it or fix this one")
        if message not in self.warnings:
            self.warnings.append(message)
        return LeftOut(problem)

    def _count(self, scope: Definition) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            where = self.lexicons.where(scope.nsid)
            raise LexiconError(f"{where}: more than {MAX_NODES:,} fields in one record type; remove the file")


def _without(branch: Branch, path: Sequence[str], reason: LeftOut) -> tuple[Branch, bool]:
    """Return the tree with the field at `path` left out, and whether there is such a field."""
    name, *rest = path
    node = branch.properties.get(name)
    if not rest:
        found = isinstance(node, Leaf)
        return (Branch({**branch.properties, name: reason}, branch.rest), True) if found else (branch, False)
    if not isinstance(node, Branch):
        return branch, False
    below, found = _without(node, rest, reason)
    return Branch({**branch.properties, name: below}, branch.rest), found


def unused_overrides(used: set[tuple[str, str]]) -> Iterator[str]:
    """Yield the overrides that no lexicon needed."""
    for table in (LEFT_OUT, KEYWORDS, COMMON_FIELDS):
        for address, names in table.items():
            for name in names:
                if (address, name) not in used:
                    yield f"{address} {name}"
