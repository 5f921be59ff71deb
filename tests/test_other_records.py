"""Records of other applications give common fields by a general rule. The forms are those of real records."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from slurp.documents.document import build
from slurp.events.frames import parse
from tests.harness import commit

Json = dict[str, Any]

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
_ENVELOPE = {"@timestamp", "did", "kind", "uri", "commit", "jetstream", "event", "other_record"}


def of(record: Json, collection: str = "com.example.thing") -> Json:
    """Return the common fields of a record."""
    source: Json = orjson.loads(build(parse(commit(1, record, collection)), "host", 1).body)
    return {name: value for name, value in source.items() if name not in _ENVELOPE}


BLOG_ENTRY = {
    "title": "On needles",
    "content": "# Hello\n\nAll [about](https://www.needle.example/a) needles.",
    "theme": "github-light",
    "visibility": "public",
    "ogp": {"url": "https://cdn.example/preview.png"},
}
PARAGRAPHS = {
    "title": "Leaf",
    "author": DID,
    "publication": f"at://{DID}/pub.example.publication/1",
    "description": "short",
    "tags": ["Plants"],
    "pages": [
        {
            "$type": "pub.example.pages.linearDocument",
            "id": "0198b5a7-1c9d-7000-8000-3f1b6a7c8d9e",
            "blocks": [
                {"block": {"plaintext": "First paragraph", "facets": [
                    {"index": {"byteStart": 0}, "features": [
                        {"uri": "https://leaf.example/"}, {"did": DID}, {"tag": "Oak"},
                    ]},
                ]}},
                {"block": {"image": {"$type": "blob", "mimeType": "image/png"}, "alt": "an oak"}},
                {"block": {"plaintext": "Second paragraph"}},
            ],
        }
    ],
}  # fmt: skip
LINK_POST = {
    "title": "Show: a thing",
    "subject": {"$type": "fyi.example.post#link", "url": "https://news.example.com/x"},
}
REVIEW = {
    "title": "Dune",
    "text": "Great",
    "rating": 8,
    "creativeWorkType": "movie",
    "identifiers": {"imdbId": "tt1160419"},
    "posterUrl": "https://image.example.org/p.jpg",
    "tags": ["Sci-Fi"],
    "language": "PT_br",
}
MEETING = {
    "name": "Meetup",
    "description": "Come and see, 会いましょう",
    "mode": "community.example.calendar.event#inperson",
    "startsAt": "2026-01-01T10:00:00Z",
    "uris": [{"uri": "https://meet.example.org/", "name": "Website"}],
    "locations": [{"street": "12 Long Road", "locality": "Montréal"}],
}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(
            BLOG_ENTRY,
            {
                "name": "On needles",
                "text": BLOG_ENTRY["content"],
                "length": {"graphemes": 59},
                "links": ["https://www.needle.example/a"],
                "domains": ["needle.example"],
            },
            id="blog entry",
        ),
        pytest.param(
            PARAGRAPHS,
            {
                "name": "Leaf",
                "text": "First paragraph\nSecond paragraph",
                "length": {"graphemes": 32},
                "description": "short",
                "tags": ["Plants", "Oak"],
                "tags_folded": ["plants", "oak"],
                "links": ["https://leaf.example/"],
                "domains": ["leaf.example"],
                "mentions": [DID],
                "alt": ["an oak"],
            },
            id="paragraphs",
        ),
        pytest.param(
            LINK_POST,
            {"name": "Show: a thing", "links": ["https://news.example.com/x"], "domains": ["example.com"]},
            id="link",
        ),
        pytest.param(
            REVIEW,
            {
                "name": "Dune",
                "text": "Great",
                "length": {"graphemes": 5},
                "tags": ["Sci-Fi"],
                "tags_folded": ["sci-fi"],
                "langs": ["pt-BR"],
                "lang": ["pt"],
            },
            id="review",
        ),
        pytest.param(
            MEETING,
            {
                "name": "Meetup",
                "text": MEETING["description"],
                "length": {"graphemes": 20},
                "links": ["https://meet.example.org/"],
                "domains": ["example.org"],
            },
            id="meeting",
        ),
        pytest.param(
            {"status": "🙏🏽"}, {"text": "🙏🏽", "length": {"graphemes": 1}, "emoji": ["🙏🏽"]}, id="emoji"
        ),
        pytest.param(
            {"subject": "https://read.example.net/long", "tags": ["to read"]},
            {
                "links": ["https://read.example.net/long"],
                "domains": ["example.net"],
                "tags": ["to read"],
                "tags_folded": ["to read"],
            },
            id="bookmark",
        ),
        pytest.param(
            {"repo": f"at://{DID}/sh.example.repo/1", "id": "a1-b2", "kind": "open"}, {}, id="no text"
        ),
    ],
)
def test_a_record_of_another_application(record: Json, expected: Json) -> None:
    assert of(record) == expected


def test_the_rule_does_not_apply_to_lexicons_that_are_known() -> None:
    record = {"$type": "com.atproto.lexicon.schema", "lexicon": 1, "description": "a long text about nothing"}
    assert of(record, "com.atproto.lexicon.schema") == {"record": {"com.atproto.lexicon.schema": record}}


def test_a_record_that_is_deep_or_large_is_read_in_part() -> None:
    deep: Any = "never read"
    for _ in range(50):
        deep = {"content": deep}
    wide = [f"https://host{number}.example/" for number in range(30_000)]
    source = of({"note": "a note", "deep": deep, "wide": wide})
    assert source["text"] == "a note"
    assert len(source["links"]) == 100


@pytest.mark.parametrize("value", [None, 1, True, [], {}, [[["x"]]], {"$type": 7}, "x" * 2**21])
def test_odd_values_are_treated_as_absent(value: Any) -> None:
    record = dict.fromkeys(
        ("title", "name", "text", "description", "tags", "lang", "alt", "facets", "labels", "subject", "url"),
        value,
    )
    of(record)


CARD = {"uri": "https://a.example/", "description": "A long text of a page"}
POST_LIKE = {"text": "Hi", "embed": {"external": CARD}}


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({**REVIEW, "mainCredit": "Denis Villeneuve"}, "Great"),
        ({"title": "Dune", "authors": "Frank Herbert and others", "review": "Loved"}, "Loved"),
        (POST_LIKE, "Hi"),
        ({"status": "公開", "text": "今日"}, "今日"),
        ({"name": "M", "description": "Short", "locations": [{"street": "12 Long Street, yard"}]}, "Short"),
        ({"title": "Live", "agent": "Mozilla/5.0 (X11; Linux x86_64) like Gecko"}, None),
        ({"title": "Pull", "body": "Fixes it", "patch": "diff of many words"}, "Fixes it"),
        ({"name": "laptop", "key": "ssh-rsa AAAA ada at home"}, None),
        ({"body": {"value": "Nice"}, "target": {"selector": {"exact": "a long quotation of it"}}}, "Nice"),
        ({"text": "Fluffy cakes", "ingredients": ["two cups of flour", "1 egg", "salt"]}, "Fluffy cakes"),
        ({"ingredients": ["two cups of flour", "1 egg", "salt"]}, "two cups of flour\n1 egg\nsalt"),
        (
            {"pages": [{"blocks": [{"block": {"plaintext": "One"}}, {"block": {"children": [
                {"content": {"plaintext": "Two"}, "children": [{"content": {"plaintext": "Three"}}]}]}}]}]},
            "One\nTwo\nThree",
        ),
    ],
)  # fmt: skip
def test_the_text_is_what_the_author_wrote(record: Json, text: str | None) -> None:
    assert of(record).get("text") == text


def test_languages_of_programs_are_not_languages_of_people() -> None:
    assert "lang" not in of({"langBreakdown": {"inputs": [{"lang": "css"}]}, "blocks": [{"language": "ts"}]})
    assert of({"lang": "de"})["lang"] == ["de"]


def test_links_in_markdown_are_links() -> None:
    content = (
        "See [a](https://a.example/p_(q)), <https://b.example/>, HTTPS://c.example/x. and\n"
        "![picture](https://img.example/x.png) [ref]: https://d.example/y"
    )
    assert of({"content": content})["links"] == [
        "https://a.example/p_(q)",
        "https://b.example/",
        "HTTPS://c.example/x",
        "https://d.example/y",
    ]


def test_addresses_of_pictures_are_no_links() -> None:
    record = {
        "discoverUrl": "https://a.example/",
        "recover": "https://b.example/",
        "backdropUrl": "https://x.example/",
        "coverImage": {"url": "https://y.example/", "alt": "a cover"},
        "gif": "https://media.tenor.com/x.gif",
    }
    source = of(record)
    assert source["links"] == ["https://a.example/", "https://b.example/"]
    assert source["alt"] == ["a cover"]


def test_tags_may_be_objects() -> None:
    assert of({"tags": [{"name": "Foo", "id": "x y"}], "genres": ["Rock"]})["tags"] == ["Foo", "Rock"]
