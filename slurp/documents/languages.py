"""Normalize language tags (BCP 47, RFC 5646), and omit those that are not in IANA's registry of subtags."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from language_tags import tags

_TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
# Longest tag that is accepted; https://www.rfc-editor.org/rfc/rfc5646#section-4.4.1
_LENGTH = 35


class Languages(NamedTuple):
    """Language tags in canonical case, and their primary subtags, each once."""

    langs: tuple[str, ...]
    lang: tuple[str, ...]


def normalize_tags(texts: tuple[str, ...]) -> Languages:
    """Return the languages of a record; what is not a tag is left out."""
    # Checked before the cache, which would otherwise keep texts of any length and number.
    if len(texts) == 1 and len(texts[0]) <= _LENGTH:
        return _normalize_all_cached(texts)
    return _normalize_all(tuple(text for text in texts if len(text) <= _LENGTH))


def _normalize_all(texts: tuple[str, ...]) -> Languages:
    langs = dict.fromkeys(tag for text in texts if (tag := normalize_tag(text)))
    return Languages(tuple(langs), tuple(dict.fromkeys(map(primary_subtag, langs))))


_normalize_all_cached = lru_cache(maxsize=4096)(_normalize_all)


def normalize_tag(tag: str) -> str | None:
    """Return a tag in canonical case: `pt_br` → `pt-BR`, `ZH-hant` → `zh-Hant`; None if it is not a tag."""
    # Checked before the cache, which would otherwise keep texts of any length.
    return _normalize_cached(tag) if len(tag) <= _LENGTH else None


@lru_cache(maxsize=4096)
def _normalize_cached(tag: str) -> str | None:
    tag = tag.strip().replace("_", "-")
    if not _TAG.fullmatch(tag):
        return None
    primary, *others = tag.lower().split("-")
    if tags.language(primary) is None:
        return None
    subtags = [primary]
    for position, subtag in enumerate(others):
        if len(subtag) == 1:
            # After a singleton (-u-, -x-) come extensions, which are lower case throughout.
            return "-".join(subtags + others[position:])
        kind = _kind(subtag)
        if tags.type(subtag, kind) is None:
            return None
        subtags.append(_CASES[kind](subtag))
    return "-".join(subtags)


def _kind(subtag: str) -> str:
    """Return the type that a subtag behind the language has by its form."""
    if len(subtag) == 2 or (len(subtag) == 3 and subtag.isdigit()):
        return "region"
    if len(subtag) == 3:
        return "extlang"
    return "script" if len(subtag) == 4 and subtag.isalpha() else "variant"


_CASES = {"region": str.upper, "extlang": str.lower, "script": str.title, "variant": str.lower}


def primary_subtag(tag: str) -> str:
    """Return the primary subtag: `pt-BR` → `pt`."""
    return tag.partition("-")[0]
