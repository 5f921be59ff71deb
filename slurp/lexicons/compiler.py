"""Lexicon definitions → trees of fields, one for each record type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from slurp.lexicons.field_types import BLOB, BOOLEAN, CID_LINK, LONG, keyword, string_field
from slurp.lexicons.nodes import EVERYTHING_ELSE, Branch, Leaf, LeftOut, Node, merge_nodes
from slurp.lexicons.overrides import KEYWORDS, LEFT_OUT
from slurp.lexicons.reader import Definition, LexiconError, Lexicons

# Elasticsearch refuses a field below 20 objects (index.mapping.depth.limit); `record`, the parts
# of the NSID and the two levels of a blob count as well.
MAX_DEPTH = 16

# A lexicon of a few lines can fan out to billions of fields; no honest record type has this many.
MAX_NODES = 10_000

# A dot in a name would make Elasticsearch see another path, and an empty name is refused.
_FIELD_NAME = re.compile(r"[A-Za-z$_][A-Za-z0-9$_-]*")

_TYPE = {"$type": Leaf(keyword(512))}


@dataclass
class Compiler:
    """Turns the record types of `lexicons` into trees.

    `known` are trees of definitions that are not among `lexicons`. What cannot be resolved is an
    error, or with `lenient` left out with a warning: somebody else's lexicon, and the program
    should start.
    """

    lexicons: Lexicons
    known: Mapping[str, Node] = field(default_factory=dict)
    lenient: bool = False
    warnings: list[str] = field(default_factory=list)
    used_choices: set[tuple[str, str]] = field(default_factory=set)
    _nodes: int = 0

    def record(self, nsid: str) -> Branch:
        """The tree of the record type `nsid`."""
        self._nodes = 0
        main = self.lexicons.find(nsid, nsid)
        if main is None:
            raise LexiconError(f"{self.lexicons.where(nsid)}: defs.main is missing; repair the lexicon")
        where = self.lexicons.where(nsid)
        try:
            node = self._definition(main, main.body, (main.address,), depth=1 + len(nsid.split(".")))
        except RecursionError:
            raise LexiconError(f"{where}: definitions nested without end; remove the file") from None
        if not isinstance(node, Branch):
            reason = node.reason if isinstance(node, LeftOut) else "it is no object"
            raise LexiconError(f"{where}: the record has no fields: {reason}; remove the file")
        return node

    def _definition(
        self, home: Definition, body: Mapping[str, Any], open_refs: tuple[str, ...], depth: int
    ) -> Node:
        """The tree of `body`, which stands in `home`; `open_refs` are the definitions around it."""
        self._count(home)
        match body.get("type"):
            case "string":
                return Leaf(string_field(body))
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
                return LeftOut("bytes say nothing to a search")
            case "unknown":
                return LeftOut("anything at all, says the lexicon")
            case "record" | "array" as container:
                inside = "record" if container == "record" else "items"
                return self._definition(home, self._part(home, body, inside), open_refs, depth)
            case "object":
                return self._object(home, body, open_refs, depth)
            case "ref":
                return self._reference(home, body.get("ref"), open_refs, depth)
            case "union":
                return self._union(home, body, open_refs, depth)
            case other:
                return self._trouble(home, f"type {other!r} is unknown here")

    def _object(
        self, home: Definition, body: Mapping[str, Any], open_refs: tuple[str, ...], depth: int
    ) -> Node:
        if depth >= MAX_DEPTH:
            return LeftOut(f"deeper than {MAX_DEPTH} objects")
        is_definition = body is home.body or body is home.body.get("record")
        left_out = LEFT_OUT.get(home.address, {}) if is_definition else {}
        keywords = KEYWORDS.get(home.address, frozenset()) if is_definition else frozenset()
        properties: dict[str, Node] = {}
        declared = self._part(home, body, "properties") if "properties" in body else {}
        for name in declared:
            if not _FIELD_NAME.fullmatch(name):
                properties[name] = LeftOut("the name cannot be a field name")
            elif name in left_out:
                properties[name] = LeftOut(left_out[name])
                self.used_choices.add((home.address, name))
            elif name in keywords:
                properties[name] = Leaf(keyword())
                self.used_choices.add((home.address, name))
            else:
                part = self._part(home, declared, name)
                properties[name] = self._definition(home, part, open_refs, depth + 1)
        rest = left_out.get(EVERYTHING_ELSE)
        if rest is not None:
            self.used_choices.add((home.address, EVERYTHING_ELSE))
        return Branch(properties, rest)

    def _union(
        self, home: Definition, body: Mapping[str, Any], open_refs: tuple[str, ...], depth: int
    ) -> Node:
        refs = body.get("refs")
        if not isinstance(refs, list):
            return self._trouble(home, 'a union without "refs"')
        merged: Node = Branch(_TYPE, None if refs else "an open union; its variants are in other lexicons")
        for ref in refs:
            variant = self._reference(home, ref, open_refs, depth)
            if isinstance(variant, LeftOut):
                # One variant without fields of its own does not cost those of the others.
                variant = Branch(rest=variant.reason)
            merged = merge_nodes(merged, variant)
        return merged

    def _reference(self, home: Definition, ref: Any, open_refs: tuple[str, ...], depth: int) -> Node:
        if not isinstance(ref, str):
            return self._trouble(home, 'a reference without "ref"')
        target = self.lexicons.find(ref, home.nsid)
        if target is None:
            address = ref.removeprefix("lex:") if "#" in ref else f"{ref.removeprefix('lex:')}#main"
            if address in self.known:
                return self.known[address]
            return self._trouble(home, f"{ref} is in no file here")
        if target.address in open_refs:
            return LeftOut(f"recursion: {target.address} inside itself")
        return self._definition(target, target.body, (*open_refs, target.address), depth)

    def _part(self, home: Definition, body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        part = body.get(name)
        if not isinstance(part, dict):
            where = self.lexicons.where(home.nsid)
            raise LexiconError(f"{where}: {name!r} in defs.{home.name} is no JSON object; repair the lexicon")
        return part

    def _trouble(self, home: Definition, problem: str) -> LeftOut:
        message = f"{self.lexicons.where(home.nsid)}: defs.{home.name}: {problem}"
        if not self.lenient:
            raise LexiconError(f"{message}; add the lexicon that defines it or repair this one")
        if message not in self.warnings:
            self.warnings.append(message)
        return LeftOut(problem)

    def _count(self, home: Definition) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            where = self.lexicons.where(home.nsid)
            raise LexiconError(f"{where}: more than {MAX_NODES:,} fields in one record type; remove the file")


def unused_choices(used: set[tuple[str, str]]) -> Iterator[str]:
    """Decisions of `choices` that no lexicon needed."""
    for table in (LEFT_OUT, KEYWORDS):
        for address, names in table.items():
            for name in names:
                if (address, name) not in used:
                    yield f"{address} {name}"
