"""Language tags, BCP 47 (RFC 5646): spelled in one way, whatever way they were written."""

from __future__ import annotations

import re
from functools import lru_cache

_TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
# Longer than any tag that says something; https://www.rfc-editor.org/rfc/rfc5646#section-4.4.1
_LENGTH = 35


def normalised(tag: str) -> str | None:
    """`pt_br` → `pt-BR`, `ZH-hant` → `zh-Hant`; None for what is no tag."""
    # Before the cache, which would keep whatever strangers call a language.
    return _normalised(tag) if len(tag) <= _LENGTH else None


@lru_cache(maxsize=4096)
def _normalised(tag: str) -> str | None:
    tag = tag.strip().replace("_", "-")
    if not _TAG.fullmatch(tag):
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


def primary(tag: str) -> str:
    """`pt-BR` → `pt`."""
    return tag.partition("-")[0]
