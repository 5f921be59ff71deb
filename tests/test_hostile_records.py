"""Events with arbitrary user-written records become documents. Pure, without a node."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import orjson
import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from slurp.documents import sanitize
from slurp.documents.common_fields import _EXTRACTORS
from slurp.documents.document import Document, build
from slurp.documents.graphemes import count_graphemes, find_emoji
from slurp.events.frames import BadFrame, parse
from slurp.events.identity import event_id

ARRIVED = 1_795_464_168_637_452

_KNOWN = (
    "text embed images alt facets features tag uri did subject cid langs labels values val reply root parent"
    " record media external title createdAt displayName description list via tags $type $link name"
)
_NAMES = st.sampled_from(_KNOWN.split()) | st.text(max_size=5)
_ODD = (
    *("", "at://", "at://did:plc:a/app.bsky.feed.post/r", "did:", "https://[::1", "https://\x00.xn--"),
    *("#", "a-", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "\ud800"),
    *("app.bsky.embed.images", "app.bsky.embed.recordWithMedia", "app.bsky.embed.external"),
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(_ODD)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=25,
)
COLLECTIONS = st.sampled_from([*_EXTRACTORS, "com.example.other", "com.atproto.lexicon.schema"])


def commit(record: Any, collection: str = "app.bsky.feed.post") -> bytes:
    """Return a frame with `record`, as a Jetstream server would send it."""
    body = {"rev": "3n2ywdzozwuuw", "operation": "create", "collection": collection, "rkey": "r"}
    event = {"did": "did:plc:a", "time_us": ARRIVED, "kind": "commit", "commit": body | {"record": record}}
    return json.dumps(event).encode()


def document(frame: bytes) -> Document:
    return build(parse(frame), "host", ARRIVED)


@given(JSON, COLLECTIONS)
@example({"a": [float("nan"), 10**30, "\ud800"]}, "app.bsky.feed.post")
def test_any_record_becomes_a_document(record: Any, collection: str) -> None:
    frame = commit(record, collection)
    one, two = document(frame), document(frame)
    assert one == two
    assert one.id == event_id(parse(frame))
    assert orjson.loads(one.body)["commit"]["collection"] == collection


@pytest.mark.parametrize("collection", ["app.bsky.feed.post", "com.example.other"])
@pytest.mark.parametrize("levels", [17, 18, 19, 30, 100, 201, 254, 500, 900])
def test_a_deep_record_keeps_all_values(collection: str, levels: int) -> None:
    record: Any = "the bottom"
    for level in range(levels):
        record = {"deeper": record} if level % 2 else [record]
    body = orjson.loads(document(commit({"deeper": record}, collection)).body)
    assert "the bottom" in orjson.dumps(body).decode()
    if "other_record" in body:
        assert _levels(body["other_record"]) <= sanitize.FLAT_DEPTH


def _levels(value: Any) -> int:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return 1 + max(map(_levels, items), default=0)
    return 0


@given(JSON)
def test_json_text_is_valid_json_of_the_same_value(value: Any) -> None:
    try:
        value = parse(commit(value))["commit"]["record"]
    except BadFrame:
        return
    assert orjson.loads(sanitize.json_text(value)) == orjson.loads(sanitize.dumps({"x": value}))["x"]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("", "%"),
        ("  ", "%20%20"),
        ("a.b", "a%2Eb"),
        ("..", "%2E%2E"),
        ("a%2Eb", "a%252Eb"),
        ("$type", "$type"),
    ],
)
def test_names_that_a_mapping_rejects_are_encoded(name: str, written: str) -> None:
    assert sanitize.for_mapped_type({"facets": [{name: 1}]}) == {"facets": [{written: 1}]}


def test_names_in_a_flattened_field_are_bounded_and_without_nul() -> None:
    long, nul = sanitize.for_flattened({"n" * 40_000: 1, "a\0b": 2})
    assert long.startswith("nnn")
    assert len(long) <= sanitize.FLAT_NAME_LENGTH
    assert nul == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("collection", ["app.bsky.feed.post", "com.example.other"])
@pytest.mark.parametrize("record", [5, "text", [1, {"a": 2}], False])
def test_a_record_that_is_not_an_object_is_stored_as_value(collection: str, record: Any) -> None:
    assert orjson.loads(document(commit(record, collection)).body)["other_record"] == {"value": record}


@given(st.text())
@example("a\u0327b\u0327 \u0327")
@example("\r\n\n\r")
@example("é👨‍👩‍👧🇩🇪🇫🇷🇩")
@example("नमस्ते ก็ 각")
def test_the_grapheme_count_follows_unicode(text: str) -> None:
    assert count_graphemes(text) == len(regex.findall(r"\X", text))


# Characters that combine with their neighbors in some way.
_BINDING = "🇩🇪🇫🇷👩🏽🏴\u200d\ufe0f\u20e3\u0301\u0903\u0600\u1100\u1161\u11a8가각क्a1é\r\n\u200b\U000e0061"


@given(st.text(_BINDING, max_size=30) | st.text("🇩🇪🇫🇷\u0600\u0301a", max_size=12))
def test_the_grapheme_count_follows_unicode_for_combining_characters(text: str) -> None:
    assert count_graphemes(text) == len(regex.findall(r"\X", text))


@pytest.mark.parametrize(
    "unit",
    [
        *("🇩", "🇩\u0301", "🇩🇪a", "👩\u200d", "\u200d", "👋🏽", "🏽", "e\u0301", "\u0301", "\u0600", "\u0903"),
        *(
            "\u1100",
            "\u1161",
            "\u11a8",
            "가\u11a8",
            "क्",
            "🏴\U000e0061",
            "\U000e0061",
            "1\ufe0f\u20e3",
            "\n\r",
        ),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("first", ["é", "🇩", "👩"], ids=ascii)
def test_counting_graphemes_needs_linear_time(first: str, unit: str) -> None:
    text = first + unit * (200_000 // len(unit))
    started = time.process_time()
    assert count_graphemes(text) > 0
    find_emoji(text)
    assert time.process_time() - started < 5


def test_long_values_are_not_cached() -> None:
    def build_long(number: int) -> None:
        long = f"é{number}" * 100_000
        link = {"uri": f"https://{long}/{long}"}
        document(commit({"langs": [long], "tags": [long], "facets": [{"features": [link]}]}))

    build_long(0)
    tracemalloc.start()
    try:
        for number in range(1, 20):
            build_long(number)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


# Hostile records: each takes seconds or minutes if a step is quadratic.
_LONG = 60_000
HOSTILE: dict[str, dict[str, Any]] = {
    "marks": {"text": "a" + "\u0301" * _LONG + "\u0323" * _LONG},
    "letters that are marks": {"text": "\u0f73" * _LONG, "tags": ["a" + "\uff9e" * _LONG]},
    "runs of marks": {"text": ("a" + "\u0301" * 30 + "\u200b") * 20_000},
    "marks and width": {"text": "a\uff9e" + "\u0301\uff9e" * 24_999},
    "digits": {"text": "x", "bridgyOriginalText": "&#" + "1" * 5000 + ";"},
    "growing words": {"text": "ａ'" + "\ufdfa" * 49_000},
    "growing hashtags": {"text": " ".join(f"#{number}x" + "\ufdfa" * 55 for number in range(2000))},
    "marks in tags": {"tags": ["a" + "\u0301" * _LONG + "\u0323" * _LONG]},
    "marks in full width": {"text": "ａ" + "\u0301" * _LONG + "\u0323" * _LONG},
    "tags and hashtags": {
        "text": " ".join(f"#a{number}" for number in range(_LONG)),
        "tags": [f"b{number}" for number in range(_LONG)],
    },
    "growing tags": {"tags": ["ﷺ" * 300_000]},
    "deep lists": {"embed": None},
    "brackets": {"text": "[" * 400_000},
    "parentheses": {"text": "https://a" + "(" * 400_000},
    "apostrophes": {"text": "a'" * 200_000},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_takes_no_longer_than_it_is_long(name: str) -> None:
    record = dict(HOSTILE[name])
    if name == "growing tags":
        record["tags"] += [f"{number}" + "\ufdfa" * 1000 for number in range(300)]
    if name == "deep lists":
        values: Any = [*[None] * 150_000, 7]
        for _ in range(190):
            values = [values]
        record["embed"] = values
    for collection in ("app.bsky.feed.post", "com.example.thing"):
        began = time.process_time()
        body = document(commit(record, collection)).body
        assert time.process_time() - began < 3
        assert len(body) < 6_000_000


@pytest.mark.parametrize("path", ["embed", "facets", "labels", "entities"])
def test_a_type_that_is_deep_is_no_type(path: str) -> None:
    deep = b"[" * 990 + b"]" * 990
    value = {
        "embed": b'{"$type":%b}',
        "facets": b'[{"features":[{"$type":%b,"tag":"x"}]}]',
        "labels": b'{"$type":%b,"values":[{"val":"x"}]}',
        "entities": b'[{"type":%b,"value":"x"}]',
    }[path] % deep
    frame = commit({"text": "good", path: "@"}).replace(b'"@"', value)
    assert orjson.loads(document(frame).body)["text"] == "good"


def test_user_text_is_cached_only_if_it_is_short() -> None:
    """Caches live as long as the worker, and users of the network choose what they keep."""
    document(commit({"text": "x"}))
    tracemalloc.start()
    for number in range(50):
        long = f"{number}" + "x" * 200_000
        document(commit({long: {"a": 1}, "lang": long, "tags": [long]}, "com.example.thing"))
        document(commit({"embed": {"$type": long}, "langs": [long], "tags": [long], "text": f"é{long}"}))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 2_000_000
