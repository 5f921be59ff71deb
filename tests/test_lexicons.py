"""Compilation of small lexicons to mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.lexicons import Compiled, LexiconError, Lexicons, committed, compile, load, merge
from slurp.lexicons.__main__ import main
from slurp.lexicons.asset import LEFT_OUT_FILE, MAPPING_FILE, outdated, render, write
from slurp.lexicons.overrides import EXAMPLE_USES

Json = dict[str, Any]

BASE = committed()

DATE = {"type": "date", "format": "strict_date_optional_time", "ignore_malformed": True}
LONG = {"type": "long", "index": False, "ignore_malformed": True}
SHORT_TEXT = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}
TYPE = {"type": "keyword", "ignore_above": 512}


def lexicon(nsid: str, /, properties: Json | None = None, **defs: Json) -> Json:
    """Return a document with a record of these properties, if given, and further definitions."""
    if properties is not None:
        defs["main"] = {"type": "record", "record": {"type": "object", "properties": properties}}
    return {"lexicon": 1, "id": nsid, "defs": defs}


def objects(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def reference(to: str) -> Json:
    return {"type": "ref", "ref": to}


def union(*refs: str) -> Json:
    return {"type": "union", "refs": list(refs)}


STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}


def lexicons(*documents: Json) -> Lexicons:
    return Lexicons({document["id"]: document for document in documents}, {})


def build(*documents: Json) -> Compiled:
    """Compile as third-party lexicons, which need not include the public ones."""
    return compile(lexicons(*documents), base=BASE)


def fields(*documents: Json, nsid: str = "org.example.thing") -> Json:
    properties: Json = build(*documents).mapping_of(nsid)["properties"]
    return properties


def one(definition: Json, **defs: Json) -> Any:
    """Return the mapping of a property with this definition; None if it is left out."""
    return fields(lexicon("org.example.thing", {"it": definition, "other": INTEGER}, **defs)).get("it")


def reasons(*documents: Json, nsid: str = "org.example.thing") -> Json:
    return dict(build(*documents).left_out.get(nsid, {}))


@pytest.mark.parametrize(
    ("definition", "mapping"),
    [
        ({"type": "string", "format": "datetime"}, DATE),
        *(
            ({"type": "string", "format": name}, {"type": "keyword", "ignore_above": length})
            for length, names in (
                (1024, ("at-identifier", "at-uri", "did", "uri")),
                (512, ("handle", "nsid", "tid", "record-key", "language", "of-the-future")),
            )
            for name in names
        ),
        ({"type": "string", "knownValues": ["a"]}, {"type": "keyword", "ignore_above": 256}),
        ({"type": "string", "enum": ["a"], "maxLength": 9}, {"type": "keyword", "ignore_above": 256}),
        ({"type": "string", "const": "a"}, {"type": "keyword", "ignore_above": 256}),
        ({"type": "token"}, {"type": "keyword", "ignore_above": 256}),
        (STRING, {"type": "text"}),
        ({"type": "string", "maxGraphemes": 64, "maxLength": 640}, SHORT_TEXT),
        ({"type": "string", "maxLength": 640}, SHORT_TEXT),
        ({"type": "string", "maxGraphemes": 65, "maxLength": 100}, {"type": "text"}),
        ({"type": "string", "maxLength": 641}, {"type": "text"}),
        (INTEGER, LONG),
        ({"type": "boolean"}, {"type": "boolean", "ignore_malformed": True}),
        ({"type": "array", "items": {"type": "array", "items": INTEGER}}, LONG),
        (objects(a=INTEGER), {"dynamic": False, "properties": {"a": LONG}}),
    ],
)
def test_each_definition_gives_its_mapping(definition: Json, mapping: Json) -> None:
    assert one(definition) == mapping


def test_a_blob_has_type_and_size() -> None:
    assert one({"type": "blob"}) == {
        "dynamic": False,
        "properties": {"mimeType": {"type": "keyword", "ignore_above": 256}, "size": LONG},
    }


def test_content_hashes_are_not_mapped() -> None:
    hashes = {"link": {"type": "cid-link"}, "text": {"type": "string", "format": "cid"}, "n": INTEGER}
    compiled = build(lexicon("org.example.thing", {**hashes, "file": {"type": "blob"}}))
    assert set(compiled.mapping_of("org.example.thing")["properties"]) == {"n", "file"}
    left_out = compiled.left_out["org.example.thing"]
    assert {"link.$link", "text", "file.ref.$link"} <= {*left_out}
    assert left_out["text"] == "content hash; in `_source`"


@pytest.mark.parametrize("kind", ["bytes", "unknown"])
def test_definitions_without_fields_are_left_out_with_a_reason(kind: str) -> None:
    assert one({"type": kind}) is None
    assert set(reasons(lexicon("org.example.thing", {"a": {"type": kind}, "b": INTEGER}))) == {"a"}


def test_an_nsid_becomes_nested_objects_without_dynamic_fields() -> None:
    inner = {"dynamic": False, "properties": {"n": LONG}}
    for part in ("thing", "example", "org", "record"):
        inner = {"dynamic": False, "properties": {part: inner}}
    assert build(lexicon("org.example.thing", {"n": INTEGER})).mapping == inner


def test_references_are_resolved_locally_and_in_other_files() -> None:
    assert fields(
        lexicon(
            "org.example.thing",
            {
                "local": reference("#number"),
                "main": reference("org.example.other"),
                "named": reference("lex:org.example.other#named"),
            },
            number=INTEGER,
        ),
        # `#number` in this file is not `#number` in the other.
        lexicon("org.example.other", main=objects(x=reference("#number")), named=STRING, number=STRING),
    ) == {
        "local": LONG,
        "main": {"dynamic": False, "properties": {"x": {"type": "text"}}},
        "named": {"type": "text"},
    }


def test_a_reference_to_a_record_gives_its_object() -> None:
    other = lexicon("org.example.other", {"n": INTEGER})
    mapping = fields(lexicon("org.example.thing", {"it": reference("org.example.other")}), other)
    assert mapping == {"it": {"dynamic": False, "properties": {"n": LONG}}}


def test_a_union_is_the_merge_of_its_variants() -> None:
    mapping = one(
        union("#a", "#b"),
        a=objects(n=INTEGER, did={"type": "string", "format": "did"}, in_=objects(x=INTEGER)),
        b=objects(n=INTEGER, did={"type": "string", "format": "handle"}, in_=objects(y=STRING)),
    )
    assert mapping["properties"] == {
        "$type": TYPE,
        "n": LONG,
        "did": {"type": "keyword", "ignore_above": 1024},
        "in_": {"dynamic": False, "properties": {"x": LONG, "y": {"type": "text"}}},
    }


@pytest.mark.parametrize("order", [("#a", "#b", "#c"), ("#c", "#b", "#a"), ("#b", "#a", "#c")])
def test_a_property_with_different_variants_is_left_out(order: tuple[str, ...]) -> None:
    document = lexicon(
        "org.example.thing",
        {"it": union(*order)},
        a=objects(x=INTEGER, y=STRING, z=INTEGER),
        b=objects(x=STRING, y=objects(deep=INTEGER), z=INTEGER),
        c=objects(x=INTEGER),
    )
    assert fields(document)["it"]["properties"] == {"$type": TYPE, "z": LONG}
    assert reasons(document) == {
        "it.x": "variants disagree: long or text",
        "it.y": "variants disagree: object or text",
    }


def test_a_union_without_variants_keeps_the_type() -> None:
    document = lexicon("org.example.thing", {"it": union()})
    assert fields(document)["it"]["properties"] == {"$type": TYPE}
    assert list(reasons(document)) == ["it.*"]


def test_recursion_is_left_out_where_it_repeats() -> None:
    document = lexicon(
        "org.example.thing",
        {"tree": reference("#tree")},
        tree=objects(n=INTEGER, child=reference("#tree"), any=union("#tree", "#leaf")),
        leaf=objects(leaf=INTEGER),
    )
    tree = fields(document)["tree"]["properties"]
    assert tree["n"] == LONG
    assert "child" not in tree
    assert tree["any"]["properties"] == {"$type": TYPE, "leaf": LONG}
    assert set(reasons(document)) == {"tree.child", "tree.any.*"}


def test_depth_is_limited_below_the_limit_of_elasticsearch() -> None:
    nested: Json = {"type": "blob"}
    for _ in range(30):
        nested = objects(d=nested)
    mapping: Json = build(lexicon("org.example.thing", {"n": INTEGER, "d": nested})).mapping["properties"]
    depth = 0
    while mapping:
        depth += 1
        mapping = next((m["properties"] for m in mapping.values() if "properties" in m), {})
    assert depth < 20


def test_invalid_field_names_are_left_out() -> None:
    document = lexicon("org.example.thing", {"a.b": INTEGER, "": INTEGER, " ": INTEGER, "ok-1": INTEGER})
    assert set(fields(document)) == {"ok-1"}
    assert set(reasons(document)) >= {"a.b", " "}


def test_an_object_without_properties_is_listed() -> None:
    assert reasons(lexicon("org.example.thing", {"a": objects(), "b": INTEGER})) == {
        "a": "an object without properties"
    }


def test_fields_are_counted_as_elasticsearch_counts_them() -> None:
    compiled = build(
        lexicon("org.example.thing", {"a": objects(n=INTEGER), "s": {"type": "string", "maxLength": 9}})
    )
    # record, org, example, thing; a, a.n; s, s.keyword
    assert compiled.fields == 8
    assert compiled.fields_by_record_type() == {"org.example.thing": 5}


def test_third_party_lexicons_may_refer_to_public_definitions() -> None:
    references = {f"p{number}": reference(address) for number, address in enumerate(EXAMPLE_USES)}
    compiled = build(lexicon("org.example.thing", {**references, "post": reference("app.bsky.feed.post")}))
    assert compiled.warnings == ()
    properties = compiled.mapping_of("org.example.thing")["properties"]
    assert len(properties) == len(EXAMPLE_USES) + 1
    assert properties["post"] == BASE.mapping_of("app.bsky.feed.post")
    assert compiled.left_out["org.example.thing"]["post.entities"]


def test_an_unresolved_third_party_reference_is_a_warning() -> None:
    compiled = build(
        lexicon(
            "org.example.thing",
            {
                "x": reference("org.nowhere.defs#x"),
                "u": union("org.nowhere.defs#x", "#a"),
                "f": {"type": "float"},
            },
            a=objects(n=INTEGER),
        )
    )
    properties = compiled.mapping_of("org.example.thing")["properties"]
    assert properties["u"]["properties"] == {"$type": TYPE, "n": LONG}
    assert set(properties) == {"u"}
    assert set(compiled.left_out["org.example.thing"]) == {"x", "u.*", "f"}
    assert len(compiled.warnings) == 2
    assert "org.nowhere.defs#x is not defined in any file" in compiled.warnings[0]


def test_merging_adds_record_types_and_keeps_existing_ones() -> None:
    extra = build(lexicon("org.example.thing", {"n": INTEGER, "b": {"type": "bytes"}}))
    merged = merge(BASE, extra)
    assert merged.mapping_of("org.example.thing") == extra.mapping_of("org.example.thing")
    assert all(merged.mapping_of(nsid) == BASE.mapping_of(nsid) for nsid in BASE.record_types)
    assert merged.left_out["org.example.thing"].keys() == {"b"}
    assert merged.fields == BASE.fields + 4
    assert merged.revision not in (BASE.revision, extra.revision)
    assert len(merged.record_types) == len(BASE.record_types) + 1
    assert committed() == BASE


@pytest.mark.parametrize(
    ("nsid", "message"),
    [
        ("app.bsky.feed.post", "already mapped: app.bsky.feed.post"),
        ("app.bsky.feed", "app.bsky.feed is a prefix of app.bsky.feed.post"),
        ("app.bsky.feed.post.more", "app.bsky.feed.post is a prefix of app.bsky.feed.post.more"),
    ],
)
def test_merging_rejects_collisions(nsid: str, message: str) -> None:
    with pytest.raises(LexiconError, match=message):
        merge(BASE, build(lexicon(nsid, {"n": INTEGER})))


def test_an_nsid_that_is_a_prefix_of_another_is_rejected() -> None:
    with pytest.raises(LexiconError, match=r"org\.example\.a is a prefix of org\.example\.a\.b"):
        build(lexicon("org.example.a", {"n": INTEGER}), lexicon("org.example.a.b", {"n": INTEGER}))


def test_too_many_fields_are_rejected_with_names_and_counts() -> None:
    many = {f"n{number}": INTEGER for number in range(800)}
    with pytest.raises(
        LexiconError, match=r"1,104 fields .* 300 others .* org\.example\.thing 801, .*small 300"
    ):
        compile(
            lexicons(
                lexicon("org.example.thing", many),
                lexicon("org.example.small", dict.fromkeys(list(many)[:299], INTEGER)),
            ),
            base=BASE,
            other_fields=300,
        )
    extra = build(lexicon("org.example.thing", dict.fromkeys(list(many)[:700], INTEGER)))
    with pytest.raises(LexiconError, match=r"limit of 1,000.*org\.example\.thing 701"):
        merge(BASE, extra)


def test_exponentially_many_fields_are_rejected() -> None:
    # Ten references on each of nine levels give a billion fields from a kilobyte.
    levels = {
        f"l{level}": objects(**{f"p{n}": reference(f"#l{level + 1}") for n in range(10)})
        for level in range(9)
    }
    with pytest.raises(LexiconError, match="more than 10,000 fields"):
        build(lexicon("org.example.thing", {"x": reference("#l0")}, **levels, l9=INTEGER))


def test_an_infinite_chain_of_references_is_rejected() -> None:
    chain = {f"l{level}": reference(f"#l{level + 1}") for level in range(3000)}
    with pytest.raises(LexiconError, match="nested infinitely"):
        build(lexicon("org.example.thing", {"x": reference("#l0")}, **chain, l3000=INTEGER))


BAD_INPUT = {
    "invalid JSON": (b"{", r"a\.json: invalid JSON .*fix or remove"),
    "no lexicon": (b'{"name":"x"}', r"a\.json: not a lexicon"),
    "a list": (b"[]", r"a\.json: not a lexicon"),
    "version": (b'{"lexicon":2,"id":"a.b.c","defs":{}}', r"a\.json: lexicon version 2"),
    "id": (b'{"lexicon":1,"id":"../x","defs":{}}', r'a\.json: "id" is not an NSID'),
    "defs": (b'{"lexicon":1,"id":"a.b.c","defs":[]}', r'a\.json: "defs" is missing'),
    "definition": (
        b'{"lexicon":1,"id":"a.b.c","defs":{"main":1}}',
        r"a\.json: defs\.main is not a JSON object",
    ),
    "no record": (b'{"lexicon":1,"id":"a.b.c","defs":{}}', "none of the 1 lexicons defines a record"),
    "no object": (
        b'{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"record","record":{"type":"string"}}}}',
        r"a\.json: the record has no fields",
    ),
    "properties": (
        b'{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"record","record":{"type":"object","properties":[]}}}}',
        r"a\.json: 'properties' in defs\.main is not a JSON object",
    ),
    "reference": (
        orjson.dumps(lexicon("a.b.c", {"x": reference("org.nowhere.x")})),
        r"a\.json: defs\.main: org\.nowhere\.x is not defined in any file; add the lexicon",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_invalid_input_is_reported_in_one_line_with_the_file(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(LexiconError, match=message):
        compile(load(tmp_path))
    assert main(["build", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_empty_directories_and_repeated_nsids_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="no such directory"):
        load(tmp_path / "missing")
    with pytest.raises(LexiconError, match="no lexicon"):
        load(tmp_path)
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes(orjson.dumps(lexicon("a.b.c", {"n": INTEGER})))
    with pytest.raises(LexiconError, match=r"b\.json: a\.b\.c is also in .*a\.json"):
        load(tmp_path)


def test_the_revision_depends_on_content_and_not_on_formatting(tmp_path: Path) -> None:
    document = lexicon("org.example.thing", {"n": INTEGER})
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    assert load(tmp_path).revision == lexicons(document).revision
    assert lexicons(lexicon("org.example.thing", {"m": INTEGER})).revision != lexicons(document).revision


def test_the_generated_bytes_do_not_depend_on_the_order(tmp_path: Path) -> None:
    first, second = (
        lexicon("org.example.b", {"y": INTEGER, "x": STRING}),
        lexicon("org.example.a", {"n": INTEGER}),
    )
    reordered = {**first, "defs": {"main": {"record": objects(x=STRING, y=INTEGER), "type": "record"}}}
    assert render(build(first, second)) == render(build(second, reordered))
    compiled = build(first, second)
    write(compiled, tmp_path)
    assert outdated(compiled, tmp_path) == []
    (tmp_path / MAPPING_FILE).write_bytes(b"{}\n")
    assert outdated(compiled, tmp_path) == [MAPPING_FILE]
    (tmp_path / LEFT_OUT_FILE).unlink()
    assert outdated(compiled, tmp_path) == [MAPPING_FILE, LEFT_OUT_FILE]
