"""Odd values of real posts: one bad field hides no good one, and what people see can be found."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.documents.document import build
from slurp.documents.record_values import visible
from slurp.documents.sanitize import is_storable
from slurp.events.frames import parse
from slurp.lexicons import RecordShapes, committed
from tests.conftest import SHARED
from tests.harness import InProcess, commit, posts_with_integer

Json = dict[str, Any]

POST = "at://did:plc:bbbbbbbbbbbbbbbbbbbbbbbb/app.bsky.feed.post/3lbhtyteurk2y"
REFERENCE = {"uri": POST, "cid": "bafyreigsh4ganevrnub3ggqpzymbguqpqvpvegmerwe624y6aqt6fs7zxm"}
IMAGES = {"$type": "app.bsky.embed.images", "images": [{"alt": "a red bridge"}]}
CARD = {"$type": "app.bsky.embed.external", "external": {"uri": "https://shop.example.org/a", "title": "New"}}
QUOTE = {"$type": "app.bsky.embed.record", "record": REFERENCE}
BOTH = {"$type": "app.bsky.embed.recordWithMedia", "record": QUOTE, "media": IMAGES}
FOREIGN = {"$type": "com.example.embed.image", "images": [{"alt": "A rover", "image": "bafk"}]}
SHAPES = RecordShapes(committed())
PROFILE = "app.bsky.actor.profile"


def of(record: Json, collection: str = "app.bsky.feed.post") -> Json:
    document: Json = orjson.loads(build(parse(commit(1, record, collection)), "host", 1).body)
    return document


def with_main(value: Any) -> Any:
    """Return the value with `#main` at the end of each `$type`."""
    if isinstance(value, list):
        return [with_main(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: f"{item}#main" if name == "$type" else with_main(item) for name, item in value.items()}


@pytest.mark.parametrize("embed", [IMAGES, CARD, QUOTE, BOTH])
def test_a_type_with_main_is_the_same_type(embed: Json) -> None:
    plain, main = of({"embed": embed}), of({"embed": with_main(embed)})
    assert plain["media"]
    assert "mistyped" not in main
    for name in ("media", "alt", "links", "domains", "external", "quote"):
        assert plain.get(name) == main.get(name)


@pytest.mark.parametrize(
    ("description", "alt"),
    [
        ("Alt: a grey cat dances", ["a grey cat dances"]),
        ("ALT: a dog runs", ["a dog runs"]),
        ("Alt: \u200b", None),
        (" \u200bAlt： a dog runs", ["a dog runs"]),
        ("a dog runs", ["a dog runs"]),
    ],
)
def test_the_description_of_a_gif_is_its_alternative_text(description: str, alt: list[str] | None) -> None:
    uri = "https://media.tenor.com/abcAAAAC/cat.gif?hh=281&ww=498"
    external = {"uri": uri, "title": "cat dancing", "description": description}
    source = of({"embed": {"$type": "app.bsky.embed.external", "external": external}})
    assert source["media"] == {"kinds": ["gif"], "count": 1}
    assert source.get("alt") == alt
    assert source["external"]["title"] == "cat dancing"
    assert "links" not in source
    assert "domains" not in source


@pytest.mark.parametrize(
    "uri",
    ["http://media.tenor.com/a.gif", " https://media1.tenor.com:443/a.gif", "HTTPS://STATIC.KLIPY.COM/x.gif"],
)
def test_the_host_makes_a_gif(uri: str) -> None:
    external = {"uri": uri, "title": "t", "description": "ALT: x"}
    source = of({"embed": {"$type": "app.bsky.embed.external", "external": external}})
    assert source["media"]["kinds"] == ["gif"]
    assert "links" not in source


def test_a_card_that_names_a_gif_host_is_no_gif() -> None:
    external = {"uri": "https://example.com/media.tenor.com/a.gif", "title": "t", "description": "ALT: x"}
    source = of({"embed": {"$type": "app.bsky.embed.external", "external": external}})
    assert source["media"]["kinds"] == ["external"]
    assert source["external"]["description"] == "ALT: x"


def test_tags_have_no_blanks_and_one_folded_spelling() -> None:
    tags = [" needlecast", "needle\xadcast ", " # needlecast", "#İzmir", "izmir", "İZMİR", "#", " "]
    source = of({"tags": tags})
    assert source["tags"] == ["needlecast", "İzmir", "izmir", "İZMİR"]
    assert source["tags_folded"] == ["needlecast", "izmir"]


def test_mentions_are_dids_and_languages_are_registered() -> None:
    features = [
        {"$type": "app.bsky.richtext.facet#mention", "did": did} for did in ("did:plc:a", "alice.example")
    ]
    source = of({"facets": [{"features": features}], "langs": ["pt_br", "xx", "jp", "zh-hant"]})
    assert source["mentions"] == ["did:plc:a"]
    assert source["langs"] == ["pt-BR", "zh-Hant"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("שלום\u200f חברים", "שלום חברים"),
        ("ping \u202a@ada.example\u202c today", "ping @ada.example today"),
        ("a word\xadbreak here", "a wordbreak here"),
        ("thanks \u2068Needlename\u2069!", "thanks Needlename!"),
        ("v\u200bi\u200da\u2060gra\ufeff", "viagra"),
        # The joiners of Persian and Telugu, and of emoji, stay.
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("క్\u200cష", "క్\u200cష"),
        ("👩\u200d🚀 ❤️\u200d🔥", "👩\u200d🚀 ❤️\u200d🔥"),
        ("plain ascii", "plain ascii"),
        ("Needle\ufe0fname Needle\U000e0061name a\u3164b", "Needlename Needlename a b"),
        ("ネコ\u200cネコ แมว\u200cแมว", "ネコネコ แมวแมว"),
        ("1\ufe0f\u20e3 ❤\ufe0f 🏴\U000e0067\U000e0062\U000e007f 葛\U000e0100",) * 2,
        ("ខ្ញុំ\u200bឆ្មា a\u200bb", "ខ្ញុំ\u200bឆ្មា ab"),
        ("e\u200b\u0301 e\xad\u0301", "é é"),
        ("cafe\u0301 Z" + "\u0301" * 31, "café Ź" + "\u0301" * 29),
    ],
)
def test_invisible_characters_are_not_searched(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_the_record_keeps_what_the_searched_text_leaves_out() -> None:
    source = of({"text": "a word\xadbreak"})
    assert source["text"] == "a wordbreak"
    assert source["record"]["app.bsky.feed.post"]["text"] == "a word\xadbreak"


# Values that do not fit


@pytest.mark.parametrize(
    ("record", "mistyped"),
    [
        ({"embed": "x"}, {"embed": ["x"]}),
        ({"embed": FOREIGN}, {"embed": [FOREIGN]}),
        ({"embed": {**IMAGES, "presentation": {"a": 1}}}, {"embed.presentation": [{"a": 1}]}),
        ({"embed": {**BOTH, "media": FOREIGN}}, {"embed.media": [FOREIGN]}),
        (
            {"facets": [{"features": [{"$type": "blue.poll.facet#x", "tag": {"n": 1}}, {"tag": "good"}]}, 7]},
            # Nothing of a feature is mapped besides its type.
            {"facets": [7]},
        ),
        ({"embed": {"$type": "app.bsky.embed.of.2030", "record": [[REFERENCE, 5]]}}, {"embed.record": [5]}),
    ],
)
def test_only_what_does_not_fit_is_taken_out(record: Json, mistyped: Json) -> None:
    nsid = "app.bsky.feed.post"
    fitting, taken = SHAPES.separate(nsid, {"text": "t", **record})
    assert taken == mistyped
    assert fitting["text"] == "t"
    assert SHAPES.separate(nsid, fitting) == (fitting, {})


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"text": ["x"], "embed": None, "facets": [], "unknown": {"a": {"b": 1}}},
        {"embed": BOTH, "labels": {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "x"}]}},
    ],
)
def test_a_record_that_fits_is_not_copied(record: Json) -> None:
    assert SHAPES.fits("app.bsky.feed.post", record, is_storable)
    assert SHAPES.separate("app.bsky.feed.post", record) == (record, {})


def test_one_bad_field_hides_no_other(es: Elasticsearch, indexer: InProcess) -> None:
    created = {"createdAt": "2026-11-20T10:00:00.000Z"}
    tag = {"features": [{"$type": "app.bsky.richtext.facet#tag", "tag": "mars"}]}
    rover = {"text": "Rover picture, needlerover #mars", "langs": ["en"], "facets": [tag], "embed": FOREIGN}
    nora = {"displayName": "Nora Needleprofile", "description": "about bridges", "pinnedPost": POST}
    frames = [commit(1, {**created, **rover}), commit(2, {**created, **nora}, PROFILE)]
    counted = indexer.feed(frames)
    assert (counted.indexed, counted.quarantined) == (2, 0)
    es.indices.refresh(index=indexer.today)

    def hits(*clauses: Json) -> list[Json]:
        found = es.search(index=indexer.today, query={"bool": {"filter": list(clauses)}})
        return [hit["_source"] for hit in found["hits"]["hits"]]

    (post,) = hits({"match": {"text": "needlerover"}}, {"term": {"lang": "en"}}, {"term": {"tags": "mars"}})
    assert post["mistyped"] == {"embed": [FOREIGN]}
    (profile,) = hits({"match": {"name": "needleprofile"}}, {"exists": {"field": "created_at"}})
    assert profile["mistyped"] == {"pinnedPost": [POST]}


def test_a_quarantined_document_keeps_its_common_fields(es: Elasticsearch, indexer: InProcess) -> None:
    indexer.feed(indexer.posts(1))
    index = indexer.today
    # A user may map a field, so that rejections remain possible.
    es.indices.put_mapping(index=index, properties=posts_with_integer("stars"))
    record = {"text": "needlequarantine", "langs": ["de"], "stars": "many", "tags": ["x"]}
    counted = indexer.feed([commit(900, record)])
    assert counted.quarantined == 1
    es.indices.refresh(index=index)
    found = es.search(index=index, query={"match": {"text": "needlequarantine"}})["hits"]["hits"]
    (source,) = [hit["_source"] for hit in found]
    assert (source["lang"], source["tags"]) == (["de"], ["x"])
    assert orjson.loads(source["quarantine"]["raw"])["commit"]["record"] == record
    assert "record" not in source


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("שלום\u200f חברים", "שלום"),
        ("ping \u202a@ada.example\u202c today", "ada.example"),
        ("a word\xadbreak here", "wordbreak"),
        ("thanks \u2068Needlename\u2069!", "needlename"),
    ],
)
def test_a_search_for_the_visible_word_finds_the_post(
    es: Elasticsearch, indexer: InProcess, text: str, query: str
) -> None:
    indexer.feed([commit(1, {"text": text})])
    es.indices.refresh(index=indexer.today)
    assert es.count(index=indexer.today, query={"match": {"text": query}})["count"] == 1


def _mutated(value: Any, rng: random.Random) -> Any:
    """Return the value with one or two parts replaced by something of another type, or removed."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice([*value])
        return {**value, name: _mutated(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _mutated(value[at], rng), *value[at + 1 :]]
    odd: list[Any] = ["", "x", 0, -1.5, 10**30, True, None, [], {}, [[1]], {"$type": "com.example.x", "a": 1}]
    return rng.choice([*odd, POST, "\ud800", "x" * 40_000, [value, "x"], {"uri": value}])


@pytest.mark.slow
def test_mutated_real_records_leave_nothing_in_quarantine(
    es: Elasticsearch, indexer: InProcess, corpus: list[Path]
) -> None:
    cases = (SHARED / "cases").glob("*.jsonl")
    lines = [line for path in (*corpus, *cases) for line in path.read_bytes().splitlines() if line.strip()]
    events = [event for event in map(orjson.loads, lines) if "record" in event.get("commit", {})]
    rng = random.Random(16)
    frames = []
    for number in range(10_000):
        source = rng.choice(events)["commit"]
        record = source["record"] if number % 10 == 0 else _mutated(source["record"], rng)
        event = orjson.loads(commit(number, None, source["collection"]))
        event["commit"]["record"] = record
        # Not orjson, which rejects large integers and surrogates.
        frames.append(json.dumps(event).encode())
    counted = indexer.feed(frames)
    assert (counted.indexed, counted.quarantined, counted.dead_lettered) == (10_000, 0, 0)


def test_entities_of_2023_give_links_mentions_and_tags() -> None:
    entities = [
        {"type": "link", "value": "https://www.example.com/x", "index": {"start": 0, "end": 4}},
        {"type": "mention", "value": "did:plc:cccccccccccccccccccccccc"},
        {"type": "mention", "value": "alice.example"},
        {"type": "hashtag", "value": "#Old"},
        {"type": "unheard-of", "value": "x"},
        {"type": ["link"], "value": "https://b.example/"},
        "no entity",
    ]
    facets = [{"features": [{"tag": "new"}]}]
    source = of({"text": "x", "entities": entities, "facets": facets})
    assert source["links"] == ["https://www.example.com/x"]
    assert source["domains"] == ["example.com"]
    assert source["mentions"] == ["did:plc:cccccccccccccccccccccccc"]
    assert source["tags"] == ["new", "Old"]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a #Caturday, again", ["caturday"]),
        ("(#Cats) and ＃ねこ。", ["cats", "ねこ"]),
        ("#marked #unmarked", ["unmarked"]),
        ("#1 place, #2024, C# and F#", None),
        ("https://a.example/#part x#y &#39; ##", None),
        ("#covid19 #love❤", ["covid19", "love❤"]),
        (f"#{'x' * 65}", None),
    ],
)
def test_hashtags_in_text_without_a_facet_have_a_field_of_their_own(
    text: str, tags: list[str] | None
) -> None:
    source = of({"text": text, "facets": [{"features": [{"tag": "Marked"}]}]})
    assert source.get("tags_text") == tags


@pytest.mark.parametrize(
    "spellings",
    [
        ["İzmir", "izmir", "İZMİR", "i\u0307zmir"],
        ["Diyarbakır", "DİYARBAKIR", "diyarbakir"],
        ["ΐ", "Ϊ́"],
        ["❤", "❤\ufe0f"],
        ["می\u200cخواهم", "میخواهم"],
        ["Ｃａｔ", "cat", "# #cat", "﹟cat", "cat\ufe0f"],
        ["Straße", "STRASSE"],
    ],
)
def test_spellings_of_a_tag_are_folded_to_one(spellings: list[str]) -> None:
    assert len(of({"tags": spellings})["tags_folded"]) == 1


def test_a_keycap_is_a_tag() -> None:
    assert of({"tags": ["#️⃣"]})["tags"] == ["#️⃣"]


NO_DIDS = ["did:", "did:plc:", "did:x", "did:web:", "did:plc:a b", "did:plc:a/b", "did:plc:a#b", "did:PLC:a"]


@pytest.mark.parametrize("did", [*NO_DIDS, "did:plc:aaa\n", "did:🦋:a", f"did:plc:{'a' * 2100}"])
def test_only_dids_are_mentioned(did: str) -> None:
    assert "mentions" not in of({"facets": [{"features": [{"did": did}]}]})


@pytest.mark.parametrize("did", ["did:plc:ewvi7nxzyoun6zhx", "did:web:example.com%3A8443", "did:key:zQ3-x"])
def test_dids_are_mentioned(did: str) -> None:
    assert of({"facets": [{"features": [{"did": did}]}]})["mentions"] == [did]


@pytest.mark.parametrize(
    ("link", "domain"),
    [
        ("https://.example.com/", None),
        ("https://example.com../", None),
        ("https://example.com./", "example.com"),
        ("https://xn--zzzz99999.com/", None),
        ("https://xn--a.com/", None),
        ("https://example.comhello/", None),
        ("https://ada.example/", "ada.example"),
        ("https://x.com:" + "0" * 1100 + "8080@evil.com/", None),
        (f"https://example.com/{'x' * 2000}", "example.com"),
        (f"https://{'x' * 2000}.example.com/", None),
        ("https://user:pw@www.example.co.uk:8443/x", "example.co.uk"),
        ("https://gov.uk/", "gov.uk"),
        ("https://[::1]/", None),
        ("https://1.2.3.4/", None),
    ],
)
def test_domains_are_those_of_possible_hosts(link: str, domain: str | None) -> None:
    assert of({"facets": [{"features": [{"uri": link}]}]}).get("domains") == ([domain] if domain else None)


@pytest.mark.parametrize(
    ("text", "emoji"),
    [
        ("⭐\ufe0e ⚡\ufe0e 👍\ufe0e", None),
        ("⏱ ⌨ ⏸", ["⏱️", "⌨️", "⏸️"]),
        ("🧑🏿\ufe0f\u200d🚀", ["🧑🏿‍🚀"]),
        ("1\u20e3 1\ufe0f\u20e3", ["1️⃣"]),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"]),
    ],
)
def test_emoji_have_one_spelling(text: str, emoji: list[str] | None) -> None:
    assert of({"text": text}).get("emoji") == emoji


@pytest.mark.parametrize(
    ("langs", "expected"),
    [
        (["pt_br", "EN", "zh-hant-tw", "tok", "sr-latn", "es-419", "de-ch-1996", "zh-yue"],
         ["pt-BR", "en", "zh-Hant-TW", "tok", "sr-Latn", "es-419", "de-CH-1996", "zh-yue"]),
        (["root", "ger", "xx", "en-UK", "en-840", "en-usa", "zh-chs", "en-zzz", "jp", "", "x-private"], None),
        (["en-u-ca-buddhist", "en-x-foo"], ["en-u-ca-buddhist", "en-x-foo"]),
        ("en", ["en"]),
    ],
)  # fmt: skip
def test_languages_are_those_of_the_registry(langs: Any, expected: list[str] | None) -> None:
    assert of({"langs": langs}).get("langs") == expected


def test_what_is_only_invisible_is_absent() -> None:
    images = {"$type": "app.bsky.embed.images", "images": [{"alt": "\u200b"}]}
    source = of({"text": "\u200b", "tags": ["\u200b"], "embed": images})
    assert not source.keys() & {"text", "length", "alt", "tags"}
    assert "name" not in of({"displayName": "\u2060"}, PROFILE)


def test_parts_of_a_foreign_type_give_no_common_fields() -> None:
    features = [
        {"$type": "com.example.facet#emoji", "uri": "https://cdn.example/x.png"},
        {"$type": "com.example.facet#bold", "tag": "bold"},
        {"$type": "app.bsky.richtext.facet#tag", "tag": "good"},
    ]
    labels = {"$type": "com.example.labels", "values": [{"val": "evil"}]}
    source = of({"text": "x", "facets": [{"features": features}], "labels": labels})
    assert source["tags"] == ["good"]
    assert not source.keys() & {"links", "labels"}


def test_older_shapes_give_their_common_fields() -> None:
    assert of({"tags": "foo", "labels": [{"val": "nudity"}]})["labels"] == ["nudity"]
    followed = of({"subject": {"did": "did:plc:a", "declarationCid": "bafy"}}, "app.bsky.graph.follow")
    assert followed["subject"] == {"did": "did:plc:a"}
    both = {"createdAt": "bad", "publishedAt": "2020-01-01T00:00:00Z", "title": "t"}
    assert of(both, "site.standard.document")["created_at"].startswith("2020-01-01")


def test_the_content_of_an_open_union_without_members_is_mapped() -> None:
    content = {
        "$type": "pub.leaflet.content",
        "pages": [{"blocks": [{"block": {"plaintext": "Some words"}}]}],
    }
    source = of({"title": "t", "content": content}, "site.standard.document")
    assert "mistyped" not in source
    assert source["text"] == "Some words"
