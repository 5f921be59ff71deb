"""Normalize language tags (BCP 47, RFC 5646), and omit those that are not in IANA's registry of subtags."""

from __future__ import annotations

import re
from functools import lru_cache

import langcodes

_TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
# Longest tag that is accepted; https://www.rfc-editor.org/rfc/rfc5646#section-4.4.1
_LENGTH = 35


def normalize_tag(tag: str) -> str | None:
    """Return a tag in canonical case: `pt_br` → `pt-BR`, `ZH-hant` → `zh-Hant`; None if it is not a tag."""
    # Checked before the cache, which would otherwise keep texts of any length.
    return _normalize_cached(tag) if len(tag) <= _LENGTH else None


@lru_cache(maxsize=4096)
def _normalize_cached(tag: str) -> str | None:
    tag = tag.strip().replace("_", "-")
    if not _TAG.fullmatch(tag) or not langcodes.tag_is_valid(tag):
        return None
    primary, *others = tag.lower().split("-")
    subtags = [primary]
    for position, subtag in enumerate(others):
        # After a singleton (-u-, -x-) come extensions, which are lower case throughout.
        if any(len(before) == 1 for before in others[:position]):
            subtags.append(subtag)
        elif len(subtag) == 2:
            subtags.append(subtag.upper())
        elif len(subtag) == 4 and subtag.isalpha():
            subtags.append(subtag.title())
        else:
            subtags.append(subtag)
    return "-".join(subtags)


def primary_subtag(tag: str) -> str:
    """Return the primary subtag: `pt-BR` → `pt`."""
    return tag.partition("-")[0]
