"""URLs of records: the registrable domain of a link, and the bsky.app page of a record."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList

_HOST = re.compile(r"\s*https?://(?:[^/?#@]*@)?([^/?#:@\[\]\s]+)", re.IGNORECASE)
# https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4
_LENGTH = 253


def domain_of(link: str) -> str | None:
    """Return the registrable domain of a link: `https://www.news.example.co.uk/x` → `example.co.uk`.

    None for IP addresses and public suffixes.
    """
    # 1,024 characters are more than any host name needs and bound the regular expression.
    host = _HOST.match(link, 0, 1024)
    return registrable_domain(host[1]) if host else None


@lru_cache(maxsize=16_384)
def registrable_domain(host: str) -> str | None:
    """Return the registrable domain of a host in ASCII and lower case: `müsli.example` →
    `xn--msli-0ra.example`.

    None for IP addresses, public suffixes and invalid names.
    """
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
    """Return the public suffix list, loaded at the first link: 60 ms.

    It includes the private part: two GitHub pages have two owners.
    """
    return PublicSuffixList()


# Path segment of the page on bsky.app, by collection.
PAGE_PATHS = {
    "app.bsky.feed.post": "post",
    "app.bsky.feed.generator": "feed",
    "app.bsky.graph.list": "lists",
}


def page_url(uri: str) -> str | None:
    """Return the page on bsky.app of `at://did/collection/rkey`; None for records without a page."""
    return page_url_of(uri.split("/"))


def page_url_of(parts: list[str]) -> str | None:
    """Return the same for an `at://` URI that is split at all its slashes."""
    if len(parts) != 5 or (place := PAGE_PATHS.get(parts[3])) is None or parts[0] != "at:" or not parts[4]:
        return None
    return f"https://bsky.app/profile/{parts[2]}/{place}/{parts[4]}"


def split_at_uri(text: str) -> list[str] | None:
    """Return an `at://` URI split at its slashes, with the authority, a DID or handle, in third place.

    None for any other text. https://atproto.com/specs/at-uri-scheme
    """
    return text.split("/") if text.startswith("at://") else None


def is_did(text: str) -> bool:
    return text.startswith("did:")
