"""URLs of records: the registrable domain of a link, and the bsky.app page of a record."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from urllib.parse import quote

import ada_url
from publicsuffixlist import PublicSuffixList

# Characters that are enough for any host name, and a bound for the parser.
_EXAMINED_LENGTH = 1024
# https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4
_MAX_HOST = 253
# A label of a host that can exist. The underscore is not allowed in names of hosts; there are such hosts.
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
# Scheme, host and what ends it.
_AUTHORITY = re.compile(r"[^/\\]*[/\\]+[^/\\?#]+[/\\?#]")
# Top-level domains for documentation and tests (RFC 2606).
_RESERVED = frozenset({"example", "test"})
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?:[a-z]{{2,63}}|xn--{_LABEL})")


def domain_of(link: str) -> str | None:
    """Return the registrable domain of a link: `https://www.news.example.co.uk/x` → `example.co.uk`.

    The link is parsed as browsers do (https://url.spec.whatwg.org), with the domain in ASCII by UTS #46. A
    host that is itself a public suffix (`gov.uk`) is its own domain. None for IP addresses, for hosts that
    cannot exist, and for schemes other than http and https.
    """
    host = host_of(link)
    return None if host is None else registrable_domain(host)


def host_of(link: str) -> str | None:
    """Return the host of a link in ASCII and lower case; None for schemes other than http and https."""
    if len(link) > _EXAMINED_LENGTH:
        # Where the host ends must be known.
        if not _AUTHORITY.match(link, 0, _EXAMINED_LENGTH):
            return None
        link = link[:_EXAMINED_LENGTH]
    try:
        url = ada_url.URL(link)
    except ValueError:
        return None
    return url.hostname if url.protocol in ("https:", "http:") else None


@lru_cache(maxsize=16_384)
def registrable_domain(host: str) -> str | None:
    """Return the registrable domain of a host in ASCII and lower case; None as for `domain_of`."""
    host = host.removesuffix(".")
    if len(host) > _MAX_HOST or not _HOST.fullmatch(host) or not all(map(_is_label, host.split("."))):
        return None
    suffixes = _suffixes()
    last = host.rpartition(".")[2]
    # A top-level domain that is not on the list is text behind a link: `example.com”`, `example.comhello`.
    if last not in _RESERVED and suffixes.publicsuffix(last, accept_unknown=False) is None:
        return None
    return suffixes.privatesuffix(host) or host


def _is_label(label: str) -> bool:
    """Return whether a label in Punycode is one that a browser writes."""
    if not label.startswith("xn--"):
        return True
    try:
        text = label[4:].encode().decode("punycode")
        return text.isprintable() and not text.isascii() and text.encode("punycode").decode() == label[4:]
    except UnicodeError:
        return False


@cache
def _suffixes() -> PublicSuffixList:
    """Return the public suffix list, loaded at the first link: 60 ms.

    It includes the private part: two GitHub pages have two owners.
    """
    return PublicSuffixList()


_DID = re.compile(r"did:[a-z]+:[A-Za-z0-9._:%-]*[A-Za-z0-9._-]")
_MAX_DID = 2048

# Path segment of the page on bsky.app, by collection.
PAGE_PATHS = {
    "app.bsky.feed.post": "post",
    "app.bsky.feed.generator": "feed",
    "app.bsky.graph.list": "lists",
}


def profile_url(did: str) -> str:
    """Return the bsky.app page of an account."""
    return f"https://bsky.app/profile/{quote(did, safe=':')}"


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
    """Return whether a text is a DID. https://atproto.com/specs/did"""
    return text.startswith("did:") and len(text) <= _MAX_DID and _DID.fullmatch(text) is not None
