"""URLs in records: the registrable domain of a link, and the bsky.app page of a record."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList

_HOST = re.compile(r"\s*https?://(?:[^/?#@]*@)?([^/?#:@\[\]\s]+)", re.IGNORECASE)
# https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4
_LENGTH = 253


def domain_of(link: str) -> str | None:
    """`https://www.news.example.co.uk/x` → `example.co.uk`; None for IP addresses and bare suffixes."""
    # Far behind any host name, and a bound for the expression.
    host = _HOST.match(link, 0, 1024)
    return registrable(host[1]) if host else None


@lru_cache(maxsize=16_384)
def registrable(host: str) -> str | None:
    """In ASCII and lower case, as it stands in the DNS: `müsli.example` → `xn--msli-0ra.example`."""
    try:
        ascii_host = host.strip(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None
    if not ascii_host or len(ascii_host) > _LENGTH or ascii_host.rpartition(".")[2].isdigit():
        return None
    domain: str | None = _suffixes().privatesuffix(ascii_host)
    return domain


@cache
def _suffixes() -> PublicSuffixList:
    """Read once, at the first link: 60 ms. With the private part: two GitHub pages have two owners."""
    return PublicSuffixList()


# By collection.
PLACES = {
    "app.bsky.feed.post": "post",
    "app.bsky.feed.generator": "feed",
    "app.bsky.graph.list": "lists",
}


def page_of(uri: str) -> str | None:
    """The page of `at://did/collection/rkey`; None for records without one of their own."""
    return page_in(uri.split("/"))


def page_in(parts: list[str]) -> str | None:
    """The same of an `at://` URI that is split at all its slashes."""
    if len(parts) != 5 or (place := PLACES.get(parts[3])) is None or parts[0] != "at:" or not parts[4]:
        return None
    return f"https://bsky.app/profile/{parts[2]}/{place}/{parts[4]}"


def at_uri(text: str) -> list[str] | None:
    """An `at://` URI split at its slashes, with the authority, a DID or handle, in the third place.

    None for any other text. https://atproto.com/specs/at-uri-scheme
    """
    return text.split("/") if text.startswith("at://") else None


def is_did(text: str) -> bool:
    return text.startswith("did:")
