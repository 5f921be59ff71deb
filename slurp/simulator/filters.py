"""Subscription filters and query parameters, shared by both protocols. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_TIME_CURSOR = 10**15
"""Cursors from this value on are Unix microseconds (September 2001), below it sequence numbers."""
MAX_COLLECTIONS = 100
MAX_DIDS = 10_000

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_PREFIX = re.compile(rf"[a-zA-Z](?:[a-zA-Z0-9-]{{0,61}}[a-zA-Z0-9])?(?:\.{_LABEL})*\.\*").fullmatch
_NSID = re.compile(
    rf"[a-zA-Z](?:[a-zA-Z0-9-]{{0,61}}[a-zA-Z0-9])?(?:\.{_LABEL})+\.[a-zA-Z][a-zA-Z0-9]{{0,62}}"
).fullmatch
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]").fullmatch
_DIGITS = re.compile(r"[0-9]{1,19}").fullmatch
_MAX_INT64 = 2**63 - 1


class BadRequest(ValueError):
    """A request with invalid parameters; the text is sent to the client."""


@dataclass(frozen=True)
class Filter:
    """Which events a subscriber receives. An empty set does not restrict."""

    collections: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    dids: frozenset[str] = frozenset()
    max_size: int = 0
    """Bytes of a frame; 0 is no limit."""

    @property
    def matches_all(self) -> bool:
        """Whether all events match."""
        return not (self.collections or self.prefixes or self.dids or self.max_size)

    def matches(self, collection: str, did: str, size: int) -> bool:
        """Return whether an event passes; `collection` is empty for identity and account events."""
        if self.max_size and size > self.max_size:
            return False
        if self.dids and did not in self.dids:
            return False
        if not collection or not (self.collections or self.prefixes):
            return True
        return collection in self.collections or collection.startswith(self.prefixes)


def make_filter(
    collections: list[str],
    dids: list[str],
    max_size: int,
    names: tuple[str, str] = ("wantedCollections", "wantedDids"),
) -> Filter:
    """Return the filter for these parameters. Raises BadRequest, naming the parameter as in `names`."""
    if len(collections) > MAX_COLLECTIONS:
        raise BadRequest(f"{names[0]}: {len(collections)} values, at most {MAX_COLLECTIONS} are allowed")
    if len(dids) > MAX_DIDS:
        raise BadRequest(f"{names[1]}: {len(dids)} values, at most {MAX_DIDS} are allowed")
    for name in collections:
        if not is_nsid(name) and _PREFIX(name) is None:
            raise BadRequest(f"{names[0]}: {name[:80]!r} is neither an NSID nor a prefix like a.b.*")
    for did in dids:
        if _DID(did) is None:
            raise BadRequest(f"{names[1]}: invalid DID {did[:80]!r}")
    return Filter(
        collections=frozenset(name for name in collections if not name.endswith("*")),
        prefixes=tuple(sorted({name[:-1] for name in collections if name.endswith("*")})),
        dids=frozenset(dids),
        max_size=max_size,
    )


def is_nsid(name: str) -> bool:
    """Return whether `name` is a valid NSID, such as `app.bsky.feed.post`."""
    return _NSID(name) is not None


def last_value(params: Mapping[str, list[str]], name: str) -> str | None:
    """Return the last value of a query parameter; None when it is absent."""
    values = params.get(name)
    return values[-1] if values else None


def parse_cursor(params: Mapping[str, list[str]]) -> int | None:
    """Return the cursor of a request; None for a live subscription. Raises BadRequest."""
    text = last_value(params, "cursor")
    return None if text is None or text == "" else parse_number("cursor", text)


def parse_number(name: str, text: str) -> int:
    """Return the non-negative 64-bit integer in `text`. Raises BadRequest."""
    if _DIGITS(text) is None or int(text) > _MAX_INT64:
        raise BadRequest(f"{name}: {text[:80]!r} is not a non-negative integer")
    return int(text)


def parse_boolean(params: Mapping[str, list[str]], name: str) -> bool:
    """Return the value of a boolean parameter, False by default. Raises BadRequest."""
    text = (last_value(params, name) or "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise BadRequest(f"{name}: {text[:80]!r} is neither true nor false")
    return text in ("true", "1")
