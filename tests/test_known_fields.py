"""Fields of a record that are not in its compiled lexicon."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurp.lexicons import KnownFields, Lexicons, committed, compile

KNOWN = KnownFields(committed())
POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"

REF = {"$type": "com.atproto.repo.strongRef", "uri": "at://a/b/c", "cid": "bafy"}
BLOB = {"$type": "blob", "ref": {"$link": "bafy"}, "mimeType": "image/jpeg", "size": 1}


def test_known_fields_give_one_shared_empty_result() -> None:
    like = {"$type": LIKE, "subject": REF, "createdAt": "2026-11-23T20:02:33Z", "via": REF}
    post = {
        "$type": POST,
        "text": "hello",
        "createdAt": "2026-11-23T20:02:33Z",
        "langs": ["en"],
        "reply": {"root": REF, "parent": REF},
        "facets": [
            {
                "index": {"byteStart": 0, "byteEnd": 3},
                "features": [{"$type": "app.bsky.richtext.facet#tag", "tag": "x"}],
            }
        ],
        "embed": {
            "$type": "app.bsky.embed.recordWithMedia",
            "record": {"$type": "app.bsky.embed.record", "record": REF},
            "media": {"$type": "app.bsky.embed.images", "images": [{"alt": "", "image": BLOB}] * 4},
        },
    }
    assert KNOWN.unknown(LIKE, like) == ()
    assert KNOWN.unknown(POST, post) is KNOWN.unknown(LIKE, like)


@pytest.mark.parametrize(
    ("record", "paths"),
    [
        ({"new": 1}, ("new",)),
        ({"new": {"deep": {"deeper": 1}}, "text": ""}, ("new",)),
        ({"reply": {"root": {"uri": "", "new": 1}}}, ("reply.root.new",)),
        ({"embed": {"images": [{"alt": ""}, {"new": 1}, {"new": 2, "alt2": ""}]}},
         ("embed.images.new", "embed.images.alt2")),
        ({"embed": {"external": {"thumb": {**BLOB, "new": 1}}}}, ("embed.external.thumb.new",)),
        ({"embed": {"$type": "com.example.poll", "choices": []}}, ("embed.choices",)),
        # Left-out fields, for example those of a legacy blob, are known.
        ({"entities": [{"whatever": 1}], "facets": [{"index": {"whatever": 1}}]}, ()),
        ({"embed": {"images": [{"image": {"cid": "bafy", "mimeType": "image/png"}}]}}, ()),
        # Values of another type are checked by Elasticsearch.
        ({"reply": "no object", "embed": None, "langs": {"a": 1}, "facets": [1, "x", None]}, ()),
    ],
)  # fmt: skip
def test_unknown_fields_are_returned_as_paths(record: dict[str, Any], paths: tuple[str, ...]) -> None:
    assert KNOWN.unknown(POST, record) == paths


def test_fields_defined_by_other_lexicons_are_known() -> None:
    document = {"content": {"$type": "pub.leaflet.content", "pages": [{"a": 1}]}, "new": 1}
    assert KNOWN.unknown("site.standard.document", document) == ("new",)
    assert KNOWN.unknown("com.atproto.lexicon.schema", {"lexicon": 1, "id": "a.b.c", "defs": {}}) == ()


def test_unknown_fields_are_found_in_an_object_without_mapped_fields() -> None:
    parts = {"a": {"type": "bytes"}, "b": {"type": "unknown"}}
    record = {"type": "object", "properties": {"it": {"type": "object", "properties": parts}}}
    document = {"lexicon": 1, "id": "org.example.it", "defs": {"main": {"type": "record", "record": record}}}
    known = KnownFields(compile(Lexicons({"org.example.it": document}, {}), base=committed()))
    assert known.unknown("org.example.it", {"it": {"a": 1, "b": {"x": 1}, "c": 1}}) == ("it.c",)


def test_only_typed_record_types_are_contained() -> None:
    assert POST in KNOWN
    assert "org.example.thing" not in KNOWN
    with pytest.raises(KeyError):
        KNOWN.unknown("org.example.thing", {})


def test_the_result_is_bounded_for_any_user_input() -> None:
    paths = KNOWN.unknown(POST, {f"{number:03}" * 1000: 1 for number in range(1000)})
    assert len(paths) == 32
    assert {len(path) for path in paths} == {256}


def test_a_deeply_nested_record_is_handled() -> None:
    nested: Any = 1
    for _ in range(5000):
        nested = [{"embed": nested}]
    assert KNOWN.unknown(POST, {"embed": nested, "text": nested}) == ("embed.embed",)


json_values = st.recursive(
    st.sampled_from([None, True, 1, 2**70, 1.5, "", "text"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["embed", "images", "image", "ref", "reply", "root", "uri", "facets", "new", "", "a.b"]
            ),
            inner,
            max_size=6,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["embed", "reply", "facets", "text", "new"]), json_values))
def test_any_record_has_a_result(record: dict[str, Any]) -> None:
    paths = KNOWN.unknown(POST, record)
    assert len(paths) == len(set(paths)) <= 32
    assert ("new" in paths) == ("new" in record)
