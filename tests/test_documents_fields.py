"""The common fields of each record type, compared value by value for recorded and simulated events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.documents.document import build
from slurp.documents.fields import FIELDS
from slurp.events.frames import parse
from slurp.lexicons import RecordShapes, committed, compile, load
from slurp.simulator.event_generator import EventGenerator
from slurp.simulator.options import NetworkOptions
from tests.test_hostile_records import ARRIVED, commit, document

ME = "did:plc:me"
AUTHOR = "did:plc:author"
POST = f"at://{AUTHOR}/app.bsky.feed.post/3l6oveex3ii2l"
LIST = f"at://{AUTHOR}/app.bsky.graph.list/3l6oveex3ii2l"
ENVELOPE = ("@timestamp", "did", "kind", "uri", "commit", "identity", "account", "jetstream", "event")


def common_fields_of(frame: bytes) -> dict[str, Any]:
    """Return the document without envelope and record, which have their own tests."""
    source = orjson.loads(build(parse(frame), "host", ARRIVED).body)
    return {
        name: value
        for name, value in source.items()
        if name not in (*ENVELOPE, "record", "other_record", "mistyped")
    }


def of(collection: str, record: dict[str, Any]) -> dict[str, Any]:
    return common_fields_of(commit({"createdAt": "2020-01-02T03:04:05.678Z", **record}, collection))


def event_frames(corpus: list[Path]) -> list[bytes]:
    return [line for path in corpus for line in path.read_bytes().splitlines() if line.strip()]


EXPECTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "app.bsky.feed.like": (
        {
            "subject": {"uri": POST, "cid": "bafy1"},
            "via": {"uri": f"at://{ME}/app.bsky.feed.repost/r", "cid": "c"},
        },
        {
            "subject": {"uri": POST, "did": AUTHOR, "collection": "app.bsky.feed.post"},
            "via": {"uri": f"at://{ME}/app.bsky.feed.repost/r", "did": ME},
        },
    ),
    "app.bsky.feed.repost": (
        {"subject": {"uri": "at://alice.example/app.bsky.feed.post/r", "cid": 5}},
        {"subject": {"uri": "at://alice.example/app.bsky.feed.post/r", "collection": "app.bsky.feed.post"}},
    ),
    "app.bsky.graph.follow": ({"subject": AUTHOR}, {"subject": {"did": AUTHOR}}),
    "app.bsky.graph.block": ({"subject": AUTHOR}, {"subject": {"did": AUTHOR}}),
    "app.bsky.graph.listblock": (
        {"subject": LIST},
        {"subject": {"uri": LIST, "did": AUTHOR, "collection": "app.bsky.graph.list"}},
    ),
    "app.bsky.graph.listitem": (
        {"subject": ME, "list": LIST},
        {"subject": {"did": ME}, "list": {"uri": LIST, "did": AUTHOR}},
    ),
    "app.bsky.feed.threadgate": (
        {"post": POST, "allow": []},
        {"subject": {"uri": POST, "did": AUTHOR, "collection": "app.bsky.feed.post"}},
    ),
    "app.bsky.feed.postgate": (
        {"post": POST},
        {"subject": {"uri": POST, "did": AUTHOR, "collection": "app.bsky.feed.post"}},
    ),
    "app.bsky.graph.list": (
        {
            "name": "Birds",
            "description": "of #Kiel",
            "descriptionFacets": [
                {"features": [{"tag": "Kiel"}, {"did": ME}, {"uri": "https://a.example.co.uk/"}]}
            ],
        },
        {
            "name": "Birds",
            "description": "of #Kiel",
            "tags": ["Kiel"],
            "tags_folded": ["kiel"],
            "mentions": [ME],
            "links": ["https://a.example.co.uk/"],
            "domains": ["example.co.uk"],
        },
    ),
    "app.bsky.graph.starterpack": (
        {"name": "Friends", "description": "all", "list": LIST},
        {"name": "Friends", "description": "all", "list": {"uri": LIST, "did": AUTHOR}},
    ),
    "app.bsky.feed.generator": (
        {"displayName": "Cats", "description": "and dogs", "did": "did:web:feeds.example.com"},
        {"name": "Cats", "description": "and dogs"},
    ),
    "app.bsky.actor.profile": (
        {
            "displayName": "Ada",
            "description": "bio",
            "website": "https://ada.example.org/",
            "labels": {"values": [{"val": "!no-unauthenticated"}, {"val": 7}]},
        },
        {
            "name": "Ada",
            "description": "bio",
            "links": ["https://ada.example.org/"],
            "domains": ["example.org"],
            "labels": ["!no-unauthenticated"],
        },
    ),
    "app.bsky.graph.verification": (
        {"subject": AUTHOR, "displayName": "Ada", "handle": "ada.example"},
        {"subject": {"did": AUTHOR}, "name": "Ada"},
    ),
    "app.bsky.labeler.service": ({"labels": {"values": [{"val": "x"}]}}, {"labels": ["x"]}),
    "site.standard.document": (
        {"title": "T", "description": "D", "textContent": "long", "tags": ["A", "a"]},
        {
            "name": "T",
            "description": "D",
            "text": "long",
            "length": {"graphemes": 4},
            "tags": ["A", "a"],
            "tags_folded": ["a"],
        },
    ),
    "site.standard.graph.recommend": (
        {"document": f"at://{AUTHOR}/site.standard.document/r"},
        {
            "subject": {
                "uri": f"at://{AUTHOR}/site.standard.document/r",
                "did": AUTHOR,
                "collection": "site.standard.document",
            }
        },
    ),
    "site.standard.graph.subscription": (
        {"publication": f"at://{AUTHOR}/site.standard.publication/r"},
        {
            "subject": {
                "uri": f"at://{AUTHOR}/site.standard.publication/r",
                "did": AUTHOR,
                "collection": "site.standard.publication",
            }
        },
    ),
    "site.standard.publication": (
        {"name": "P", "url": "https://blog.example.net"},
        {"name": "P", "links": ["https://blog.example.net"], "domains": ["example.net"]},
    ),
    "chat.bsky.actor.declaration": ({"allowIncoming": "all"}, {}),
    "com.example.other": (
        {"subject": {"uri": POST}, "via": "web"},
        {"subject": {"uri": POST, "did": AUTHOR, "collection": "app.bsky.feed.post"}},
    ),
}


@pytest.mark.parametrize("collection", EXPECTED)
def test_each_record_type_gives_its_common_fields(collection: str) -> None:
    record, expected = EXPECTED[collection]
    assert of(collection, record) == {"created_at": "2020-01-02T03:04:05.678Z", **expected}


def test_a_post_gives_all_its_common_fields() -> None:
    image = {"alt": "a cat", "image": {}}
    found = of(
        "app.bsky.feed.post",
        {
            "text": "Füße 👩‍🚀🇩🇪 👩‍🚀",
            "langs": ["pt_br", "EN", "pt", "?"],
            "tags": ["#Ｃａｔ", "cat"],
            "facets": [
                {"features": [{"$type": "app.bsky.richtext.facet#tag", "tag": "CatUrday"}, "?", {"tag": 1}]},
                {"features": [{"did": AUTHOR}, {"uri": "https://www.example.com/1"}]},
            ],
            "reply": {
                "root": {"uri": POST, "cid": "c"},
                "parent": {"uri": f"at://{ME}/app.bsky.feed.post/p"},
            },
            "labels": {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "nudity"}]},
            "embed": {
                "$type": "app.bsky.embed.recordWithMedia",
                "media": {"$type": "app.bsky.embed.images", "images": [image, {"alt": ""}, {"alt": 3}]},
                "record": {"$type": "app.bsky.embed.record", "record": {"uri": POST, "cid": "c"}},
            },
        },
    )
    assert found == {
        "created_at": "2020-01-02T03:04:05.678Z",
        "text": "Füße 👩‍🚀🇩🇪 👩‍🚀",
        "length": {"graphemes": 9},
        "emoji": ["👩‍🚀", "🇩🇪"],
        "langs": ["pt-BR", "en", "pt"],
        "lang": ["pt", "en"],
        "tags": ["CatUrday", "Ｃａｔ", "cat"],
        "tags_folded": ["caturday", "cat"],
        "mentions": [AUTHOR],
        "links": ["https://www.example.com/1"],
        "domains": ["example.com"],
        "reply": {
            "root": {"uri": POST, "did": AUTHOR},
            "parent": {"uri": f"at://{ME}/app.bsky.feed.post/p", "did": ME},
        },
        "labels": ["nudity"],
        "media": {"kinds": ["image", "quote"], "count": 3},
        "alt": ["a cat"],
        "quote": {"uri": POST, "did": AUTHOR},
        "spellings": "Fusse",
    }


def test_no_document_has_a_page_or_a_hash_besides_its_record() -> None:
    """Pages on bsky.app are computed where they are shown; hashes are in the record."""
    pointer = {"uri": POST, "cid": "bafy1"}
    embed = {"$type": "app.bsky.embed.record", "record": pointer}
    record = {"text": "x", "reply": {"root": pointer, "parent": pointer}, "embed": embed}
    for frame in (commit(record, "app.bsky.feed.post"), commit({"subject": pointer}, "app.bsky.feed.like")):
        source = orjson.loads(document(frame).body)
        record_text = orjson.dumps(source.pop("record"))
        assert record_text.count(b"bafy1") == record_text.count(POST.encode())
        assert b"bsky.app/" not in orjson.dumps(source)
        assert b"bafy1" not in orjson.dumps(source)


@pytest.mark.parametrize(
    ("embed", "media"),
    [
        ({"$type": "app.bsky.embed.video", "alt": "v"}, {"kinds": ["video"], "count": 1}),
        ({"$type": "app.bsky.embed.video", "presentation": "gif"}, {"kinds": ["gif"], "count": 1}),
        ({"$type": "app.bsky.embed.gallery", "items": [{}, {}]}, {"kinds": ["image"], "count": 2}),
        (
            {"$type": "app.bsky.embed.external", "external": {"uri": "https://a.b"}},
            {"kinds": ["external"], "count": 0},
        ),
        (
            {"$type": "app.bsky.embed.external", "external": {"uri": "https://media.tenor.com/x.gif"}},
            {"kinds": ["gif"], "count": 1},
        ),
        ({"$type": "app.bsky.embed.record", "record": {"uri": LIST}}, {"kinds": ["record"], "count": 0}),
    ],
)
def test_an_embed_gives_kinds_and_count_of_media(embed: dict[str, Any], media: dict[str, Any]) -> None:
    assert of("app.bsky.feed.post", {"embed": embed})["media"] == media


def test_recorded_events_give_the_values_read_by_a_person(corpus: list[Path]) -> None:
    """The first event of each record type, with values read from the file by a person."""
    first: dict[str, dict[str, Any]] = {}
    for frame in event_frames(corpus[:1]):
        event = parse(frame)
        if "record" in event.get("commit", {}):
            first.setdefault(event["commit"]["collection"], common_fields_of(frame))
    video = "https://www.youtube.com/watch?v=V5lDo-jw8mA"
    target = "did:plc:r2zybk6op3ymzpz6jhqpkoy5"
    spread = "did:plc:lthsfxxeghkgg44eummxtvbe"
    by = "did:plc:mc4ihv54ep37qtc6xtq5ab2f"
    assert first["app.bsky.feed.post"] == {
        "created_at": "2026-07-04T14:38:06.240Z",
        "text": "www.youtube.com/watch?v=V5lD...",
        "length": {"graphemes": 31},
        "langs": ["en"],
        "lang": ["en"],
        "links": [video],
        "domains": ["youtube.com"],
        "media": {"kinds": ["external"], "count": 0},
        "external": {
            "title": "What does America's 250th anniversary mean to Native Americans?",
            "description": "YouTube video by Reuters",
        },
    }
    like = first["app.bsky.feed.like"]
    assert like.pop("created_at") == "2026-07-04T14:38:08.999Z"
    assert like == {
        "subject": {
            "uri": f"at://{target}/app.bsky.feed.post/3mpsjbtci2c2o",
            "did": target,
            "collection": "app.bsky.feed.post",
        },
    }
    assert first["app.bsky.feed.repost"] == {
        "created_at": "2026-07-04T14:38:07.594Z",
        "subject": {
            "uri": f"at://{spread}/app.bsky.feed.post/3mpt6c57uy22u",
            "did": spread,
            "collection": "app.bsky.feed.post",
        },
        "via": {"uri": f"at://{by}/app.bsky.feed.repost/3mpta65gqot2j", "did": by},
    }
    assert first["app.bsky.graph.follow"] == {
        "created_at": "2026-07-04T14:38:07.396Z",
        "subject": {"did": "did:plc:mlbpil2fwz43vfn6uuysxtqa"},
    }
    assert first["app.bsky.graph.block"] == {
        "created_at": "2026-07-04T14:38:07.255Z",
        "subject": {"did": "did:plc:wmv3rxaywejtjg4kmrq7bhsy"},
    }
    assert first["fm.teal.alpha.actor.status"] == {"text": "Dianna Lopez", "length": {"graphemes": 12}}
    status = first["app.bsky.actor.status"]
    assert status["created_at"] == "2026-07-04T14:38:06.730Z"
    assert status["links"] == ["https://www.twitch.tv/Zarynos_VT"]
    assert status["domains"] == ["twitch.tv"]
    assert status["media"] == {"kinds": ["external"], "count": 0}
    assert status["external"]["title"] == "Zarynos_VT - Twitch"


def test_every_common_field_is_in_the_table(corpus: list[Path]) -> None:
    network = EventGenerator(3, NetworkOptions(accounts=200))
    simulated = [network.event(ARRIVED + number, number).frame for number in range(1, 4000)]
    paths = {
        path for frame in [*event_frames(corpus), *simulated] for path in _paths(common_fields_of(frame), "")
    }
    assert paths <= {field.path for field in FIELDS}
    assert {"text", "emoji", "reply.root.did", "quote.did", "via.did", "list.uri", "alt", "labels"} <= paths


def _paths(value: dict[str, Any], prefix: str) -> Iterable[str]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _paths(item, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_a_record_is_stored_unchanged() -> None:
    record = {"text": "a", "facets": [{"x": None}], "subject": 5, "deep": [[{"é": 1.5}]]}
    assert orjson.loads(document(commit(record)).body)["record"] == {"app.bsky.feed.post": record}
    body = orjson.loads(document(commit(record, "com.example.other")).body)
    assert body["other_record"] == record
    assert "record" not in body


def test_further_collections_can_be_mapped(tmp_path: Path) -> None:
    lexicon = {
        "lexicon": 1,
        "id": "com.example.other",
        "defs": {
            "main": {"type": "record", "record": {"type": "object", "properties": {"a": {"type": "integer"}}}}
        },
    }
    (tmp_path / "other.json").write_bytes(orjson.dumps(lexicon))
    other = RecordShapes(compile(load(tmp_path), base=committed()))
    frame = commit({"a": 1}, "com.example.other")
    body = orjson.loads(build(parse(frame), "host", ARRIVED, other).body)
    assert body["record"] == {"com.example.other": {"a": 1}}


def test_every_event_has_its_hour_and_weekday(corpus: list[Path]) -> None:
    for frame in event_frames(corpus):
        source = orjson.loads(build(parse(frame), "host", ARRIVED).body)
        moment = datetime.fromisoformat(source["@timestamp"])
        assert source["event"]["hour"] == f"{moment:%H}"
        assert source["event"]["weekday"] == f"{moment:%u %a}"
