"""Functions for single values of documents: pages, times, language tags, domains, emoji and graphemes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from slurp.documents.graphemes import count_graphemes, find_emoji
from slurp.documents.languages import normalize_tag
from slurp.documents.times import hour_and_weekday, parse_created_at
from slurp.documents.urls import domain_of, page_url

AUTHOR = "did:plc:author"


@pytest.mark.parametrize(
    ("uri", "page"),
    [
        (
            f"at://{AUTHOR}/app.bsky.feed.post/3l6oveex3ii2l",
            f"https://bsky.app/profile/{AUTHOR}/post/3l6oveex3ii2l",
        ),
        (
            f"at://{AUTHOR}/app.bsky.graph.list/3l6oveex3ii2l",
            f"https://bsky.app/profile/{AUTHOR}/lists/3l6oveex3ii2l",
        ),
        ("at://did:web:a.b/app.bsky.feed.generator/f", "https://bsky.app/profile/did:web:a.b/feed/f"),
        ("at://alice.example/app.bsky.feed.post/r", "https://bsky.app/profile/alice.example/post/r"),
        ("at://did:plc:me/app.bsky.feed.like/r", None),
        ("at://did:plc:me/app.bsky.feed.post", None),
        ("at://did:plc:me/app.bsky.feed.post/", None),
        ("at://did:plc:me/app.bsky.feed.post/a/b", None),
        ("https://example.com/x/app.bsky.feed.post/r", None),
        ("", None),
    ],
)
def test_pages_exist_for_posts_feeds_and_lists(uri: str, page: str | None) -> None:
    assert page_url(uri) == page


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        ("2026-07-04T14:38:08.999Z", "2026-07-04T14:38:08.999Z"),
        ("2026-07-04T16:38:08.999123456+02:00", "2026-07-04T14:38:08.999123Z"),
        (" 2026-07-04t14:38:08z", "2026-07-04T14:38:08.000000Z"),
        ("2026-07-04 14:38", "2026-07-04T14:38:00.000000Z"),
        ("2026-07-04", "2026-07-04T00:00:00.000000Z"),
        ("1990-01-01T00:00:00Z", "1990-01-01T00:00:00.000000Z"),
        ("1989-12-31T23:59:59.999Z", None),
        ("2030-01-02T00:00:00.000Z", "2030-01-02T00:00:00.000Z"),
        ("2030-01-02T00:00:00.001Z", None),
        ("2030-01-02T02:00:00.001+02:00", None),
        ("9999-12-31T23:59:59-23:00", None),
        ("2026-02-30T00:00:00.000Z", None),
        ("0000-01-01T00:00:00.000Z", None),
        ("yesterday", None),
        ("", None),
        (1_783_175_888, None),
        (["2026-07-04"], None),
    ],
)
def test_claimed_times_are_normalized_and_kept_from_1990_to_a_day_later(
    claimed: Any, expected: str | None
) -> None:
    assert parse_created_at(claimed, "2030-01-01T00:00:00.000000Z") == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("1970-01-01T00:00:00+00:00", ("00", "4 Thu")),
        ("2026-11-22T23:59:59.999999+00:00", ("23", "7 Sun")),
        ("2026-11-23T00:00:00+00:00", ("00", "1 Mon")),
        ("2026-11-23T01:30:00+02:00", ("23", "7 Sun")),
        ("1969-12-31T23:59:59+00:00", ("23", "3 Wed")),
    ],
)
def test_hour_and_weekday_are_those_of_utc(moment: str, expected: tuple[str, str]) -> None:
    micros = (datetime.fromisoformat(moment) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6
    assert hour_and_weekday(int(micros)) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        *(("en", "en"), ("ZH-hant-tw", "zh-Hant-TW"), ("en_US", "en-US"), ("es-419", "es-419")),
        *(("sr-latn", "sr-Latn"), ("en-x-YO", "en-x-yo")),
        *(("", None), ("e", None), ("日本語", None), ("english language", None), ("a" * 40, None)),
    ],
)
def test_language_tags_are_normalized(tag: str, expected: str | None) -> None:
    assert normalize_tag(tag) == expected


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://www.news.example.co.uk/x?y", "example.co.uk"),
        ("HTTP://Example.COM:8080", "example.com"),
        ("https://user:word@a.example.com/", "example.com"),
        ("https://user@a.example.com/", "example.com"),
        ("https://someone.github.io/page", "someone.github.io"),
        ("https://müsli.example/", "xn--msli-0ra.example"),
        ("https://192.168.0.1/", None),
        ("https://[::1]/", None),
        ("https://co.uk/", "co.uk"),
        ("https://www.gov.uk/x", "www.gov.uk"),
        ("https://gov.uk/", "gov.uk"),
        ("https://s3.amazonaws.com/bucket", "s3.amazonaws.com"),
        ("https://straße.de/x", "xn--strae-oqa.de"),
        ("https://βόλος.com/", "xn--nxasmm1c.com"),
        ("https://пример.рф/", "xn--e1afmkfd.xn--p1ai"),
        ("https://ASCII.jp：ついに来た！", None),
        ("https://example.com),", None),
        ("https://example.com”", None),
        ("https://example.com…", None),
        ("https://example.com\\@evil.example/", "example.com"),
        ("https:/\texample.com", "example.com"),
        ("https://a_b.tumblr.com/", "tumblr.com"),
        ("https://localhost/", None),
        ("https://0x7f.1/", None),
        ("ftp://example.com/", None),
        ("at://did:plc:a/b", None),
        ("mailto:a@example.com", None),
        ("https://" + "a" * 300 + ".com", None),
        ("https://", None),
    ],
)
def test_links_give_registrable_domains(link: str, expected: str | None) -> None:
    assert domain_of(link) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ascii 123 #*", []),
        ("© ™ 1 → ☺\ufe0e", []),
        ("☺ ♥ 🗓 🕊", ["☺️", "♥️", "🗓️", "🕊️"]),
        ("⭐ ⭐️ ⚡️ ⚡ 1⃣ 1️⃣", ["⭐", "⚡", "1️⃣"]),
        ("❤‍🔥 ❤️‍🔥 👁‍🗨 👁️‍🗨️", ["❤️‍🔥", "👁️‍🗨️"]),
        ("👨‍👩‍👧 🇩🇪🇫🇷 1️⃣ ❤️ ❤‍🔥 ©️", ["👨‍👩‍👧", "🇩🇪", "🇫🇷", "1️⃣", "❤️", "❤️‍🔥", "©️"]),
        ("🙏🏽🙏🏽🙏", ["🙏🏽", "🙏"]),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿🏳️‍🌈🤦🏽‍♀️", ["🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏳️‍🌈", "🤦🏽‍♀️"]),
    ],
)
def test_emoji_are_found_once_each(text: str, expected: list[str]) -> None:
    assert find_emoji(text) == expected


def test_combined_characters_are_one_grapheme() -> None:
    assert count_graphemes("👨‍👩‍👧e\u0301\r\n🇩🇪") == 4
