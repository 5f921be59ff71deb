"""Access to user-written values: one of the wrong type is treated as absent; the visible text is searched."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

# Characters. A record is 1 MiB at most. Counting the graphemes of 16 million accented letters takes 20 s and
# 1 GB.
MAX_TEXT = 2**20


# Characters that Unicode says to ignore (Default_Ignorable_Code_Point), except those that a visible character
# needs: the variation selectors of emoji and ideographs, the tags of flags, and the joiners.
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001]+"
)
# The joiners U+200C and U+200D change letters of Arabic and Indic scripts, and join emoji. Elsewhere they are
# without effect.
_JOINED = (
    "\u0600-\u06ff\u0700-\u074f\u0750-\u077f\u07c0-\u07ff\u0840-\u085f\u08a0-\u08ff\u0900-\u0dff\u0e00-\u0eff"
    "\u0f00-\u109f\u1700-\u17ff\u1800-\u18af\ua800-\ua8ff\ufb50-\ufdff\ufe00-\ufe0f\ufe70-\ufefc"
    "\u200d\u203c-\u3299\U00010a00-\U00011fff\U0001e900-\U0001e95f\U0001f000-\U0001faff"
)
_TAG = re.compile("<[^<>]*>")
_LINE_BREAK = re.compile("<br ?/?>|</(?:p|li|blockquote|h[1-6])>", re.IGNORECASE)
_LONE_JOINERS = re.compile(f"(?<![{_JOINED}])[\u200c\u200d]+|[\u200c\u200d]+(?![{_JOINED}])")


def text_of(value: Any) -> str | None:
    """Return a non-empty string that is not longer than a legal record; None for any other value."""
    return value if type(value) is str and 0 < len(value) <= MAX_TEXT else None


def texts_of(value: Any) -> Iterator[str]:
    """Yield the strings in a list that `text_of` accepts."""
    if type(value) is list:
        yield from (item for item in value if text_of(item))


def dict_of(value: Any) -> dict[str, Any]:
    """Return an object; an empty one for any other value."""
    return value if type(value) is dict else {}


def dicts_of(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; an empty list for any other value."""
    return [item for item in value if type(item) is dict] if type(value) is list else []


def text_of_html(text: str) -> str:
    """Return the text of simple HTML, as Mastodon writes it: paragraphs, line breaks, links."""
    return html.unescape(_TAG.sub("", _LINE_BREAK.sub("\n", text))).strip()


def visible(text: str) -> str:
    """Return the text without invisible characters, with composed letters: `word\xadbreak` → `wordbreak`."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    text = _INVISIBLE.sub("", text)
    return _LONE_JOINERS.sub("", text) if "\u200c" in text or "\u200d" in text else text
