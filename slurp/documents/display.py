"""Sanitizing of untrusted text and links for display. The HTML escaping is left to the template."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple
from urllib.parse import urlsplit

from slurp.documents.urls import domain_of

_MAX_URL = 2048
_REPLACEMENT = "\ufffd"
# Bidirectional embeddings, overrides and isolates: left open, they reverse the text after their own.
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
# Invisible directional marks, which running text in Arabic and Hebrew needs.
_BIDI_MARKS = re.compile("[\u061c\u200e\u200f]")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")


class Link(NamedTuple):
    """A link; `domain` is the part of `url` that is displayed."""

    url: str
    domain: str


def clean_text(text: object, max_length: int = 600) -> str:
    """Return a text of several lines, sanitized and shortened to `max_length` characters."""
    lines = _BLANK_LINES.sub("\n\n", shorten(str(text).strip(), max_length))
    visible = _BIDI_CONTROLS.sub(_REPLACEMENT, lines.replace("\r", ""))
    return "".join(c if c == "\n" else _sanitize_character(c) for c in visible)


def clean_label(text: object, max_length: int = 80) -> str:
    """Return a name on one line, without invisible characters, shortened to `max_length` characters."""
    visible = _BIDI_MARKS.sub(_REPLACEMENT, _BIDI_CONTROLS.sub(_REPLACEMENT, shorten(str(text), max_length)))
    return "".join(map(_sanitize_character, visible))


def safe_link(url: object) -> Link | None:
    """Return an http or https URL with its domain; None for any other scheme and for malformed URLs."""
    if not isinstance(url, str) or len(url) > _MAX_URL or not url.isprintable() or " " in url or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    # In ASCII, so that letters of another script cannot imitate a known domain.
    return Link(url, clean_label(domain_of(url) or host))


def shorten(text: str, max_length: int) -> str:
    """Return a text of at most `max_length` characters, with an ellipsis if it was longer."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def _sanitize_character(char: str) -> str:
    """Replace controls, surrogates, private and unassigned characters by U+FFFD, white space by a blank."""
    category = unicodedata.category(char)
    if category in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"):
        return " " if char in "\t\n\r" else _REPLACEMENT
    return char
