"""Sanitize user-written text and links for display. The templates escape HTML."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple
from urllib.parse import urlsplit

from slurp.documents.urls import domain_of

_MAX_LINK_LENGTH = 2048
_REPLACEMENT = "\ufffd"
# Characters that change the direction of the text behind them, also beyond the end of the field.
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_BIDI_MARKS = re.compile("[\u061c\u200e\u200f]")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")


class Link(NamedTuple):
    """A link: `url` and the `domain` to show for it."""

    url: str
    domain: str


def clean_text(text: object, most: int = 600) -> str:
    """Return a text of several lines, shortened to `most` characters, without control characters."""
    lines = _BLANK_LINES.sub("\n\n", _shorten(str(text).strip(), most))
    return "".join(
        c if c == "\n" else _replace_unprintable(c)
        for c in _BIDI_CONTROLS.sub(_REPLACEMENT, lines.replace("\r", ""))
    )


def clean_label(text: object, most: int = 80) -> str:
    """Return a name as one line, shortened to `most` characters, without invisible characters."""
    return "".join(
        map(
            _replace_unprintable,
            _BIDI_MARKS.sub(_REPLACEMENT, _BIDI_CONTROLS.sub(_REPLACEMENT, _shorten(str(text), most))),
        )
    )


def safe_link(url: object) -> Link | None:
    """Return a link for an http or https URL; None for any other value and for malformed URLs."""
    if (
        not isinstance(url, str)
        or len(url) > _MAX_LINK_LENGTH
        or not url.isprintable()
        or " " in url
        or "\\" in url
    ):
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    # In ASCII, so that look-alike letters of another script are visible.
    return Link(url, clean_label(domain_of(url) or host))


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _replace_unprintable(char: str) -> str:
    """Return a space for white space, and U+FFFD for control characters, surrogates and unassigned ones."""
    category = unicodedata.category(char)
    if category in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"):
        return " " if char in "\t\n\r" else _REPLACEMENT
    return char
