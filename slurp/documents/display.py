"""Strangers' text and links, made fit to be shown. Escaping for HTML is the template's."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple
from urllib.parse import urlsplit

from slurp.documents.urls import domain_of

_LINK = 2048
_UNFIT = "\ufffd"
# Marks that turn the direction of what stands behind them; left alone, they reach beyond their text.
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_MARKS = re.compile("[\u061c\u200e\u200f]")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")


class Link(NamedTuple):
    """`domain` is what a reader is shown of `url`."""

    url: str
    domain: str


def prose(text: object, most: int = 600) -> str:
    """A text of several lines, shortened to `most` characters."""
    lines = _BLANK_LINES.sub("\n\n", _shortened(str(text).strip(), most))
    return "".join(c if c == "\n" else _fit(c) for c in _TURNS.sub(_UNFIT, lines.replace("\r", "")))


def label(text: object, most: int = 80) -> str:
    """A name of one line, in which nothing is hidden."""
    return "".join(map(_fit, _MARKS.sub(_UNFIT, _TURNS.sub(_UNFIT, _shortened(str(text), most)))))


def link(url: object) -> Link | None:
    """Of http and https only; None for what no browser should be led to."""
    if not isinstance(url, str) or len(url) > _LINK or not url.isprintable() or " " in url or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    # In ASCII, so that letters of another script pass for no others.
    return Link(url, label(domain_of(url) or host))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _fit(char: str) -> str:
    """Controls, halves of pairs and what is no character at all become a sign that something was there."""
    category = unicodedata.category(char)
    if category in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"):
        return " " if char in "\t\n\r" else _UNFIT
    return char
