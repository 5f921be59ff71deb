"""Access to user-written values: one of the wrong type is treated as absent; the visible text is searched."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

import regex

# Characters: longer than any legal record. A frame may hold 16 million letters, and counting their graphemes
# takes 20 s and 1 GB.
MAX_TEXT = 2**20


# Characters without a glyph (Default_Ignorable_Code_Point), as parts of a set. The first four are kept where
# they change what people see.
_SELECTORS = "\ufe00-\ufe0f\u180b-\u180d\U000e0100-\U000e01ef"
_TAGS = "\U000e0020-\U000e007f"
_JOINERS = "\u200c\u200d"
_WORD_BREAK = "\u200b"
_FILLERS = "\u3164\uffa0"
_NEVER_VISIBLE = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u180f\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e00ff"
    "\U000e01f0-\U000e0fff"
)
# Part of a set of characters.
SOMETIMES_VISIBLE = f"{_SELECTORS}{_TAGS}{_JOINERS}{_WORD_BREAK}"
_INVISIBLE = re.compile(
    f"(?P<selector>[{_SELECTORS}])|(?P<tags>[{_TAGS}]+)|(?P<joiner>[{_JOINERS}]+)|(?P<word_break>{_WORD_BREAK}+)"
    f"|(?P<filler>[{_FILLERS}]+)|[{_NEVER_VISIBLE}]+"
)
# One set is searched faster than many alternatives.
_MAYBE_INVISIBLE = re.compile(f"[{SOMETIMES_VISIBLE}{_FILLERS}{_NEVER_VISIBLE}]")
# Characters that have variants: emoji, symbols, ideographs, and the letters of two scripts.
_HAS_VARIANTS = regex.compile(
    r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{S}\p{Ideographic}\p{Mongolian}\p{Myanmar}]"
)
# Scripts in which the joiners U+200C and U+200D change letters: Arabic and Indic ones.
_JOINED = re.compile(
    "[\u0600-\u077f\u07c0-\u07ff\u0840-\u08ff\u0900-\u0dff\u0f00-\u109f\u1700-\u18af\ua800-\ua8ff"
    "\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)
_PICTURE = regex.compile(r"\p{Extended_Pictographic}")
_BEFORE_PICTURE = regex.compile(r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\uFE0F]")
# Scripts without blanks between words, which a zero-width space separates: Thai, Lao, Burmese, Khmer.
_WITHOUT_BLANKS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_BLACK_FLAG = "\U0001f3f4"

# More marks on one letter than any language has (https://www.unicode.org/reports/tr15, stream-safe text). The
# time of a normalization is quadratic in their number. Five characters are letters that decompose into marks.
_MARK = r"[[^\p{ccc=0}]\u0F73\u0F75\u0F81\uFF9E\uFF9F]"
_MANY_MARKS = regex.compile(rf"({_MARK}{{30}}){_MARK}+", regex.VERSION1)
_MANY_DIGITS = re.compile(r"&#[0-9]{8,}")

_TAG = re.compile("<[^<>]*>")
_LINE_BREAK = re.compile("<br ?/?>|</(?:p|li|blockquote|h[1-6])>", re.IGNORECASE)


def text_of(value: Any) -> str | None:
    """Return a non-empty string that is not longer than a legal record; None for any other value."""
    return value if type(value) is str and 0 < len(value) <= MAX_TEXT else None


def texts_of(value: Any) -> Iterator[str]:
    """Yield the strings in a list that `text_of` accepts; a string is a list of one."""
    if type(value) is list:
        yield from (item for item in value if text_of(item))
    elif text_of(value):
        yield value


def type_of(value: dict[str, Any]) -> str:
    """Return the `$type` of an object without `#main`; an empty string if it has none."""
    kind = value.get("$type")
    return kind.removesuffix("#main") if type(kind) is str else ""


def dict_of(value: Any) -> dict[str, Any]:
    """Return an object; an empty one for any other value."""
    return value if type(value) is dict else {}


def dicts_of(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; an empty list for any other value."""
    return [item for item in value if type(item) is dict] if type(value) is list else []


def text_of_html(text: str) -> str:
    """Return the text of simple HTML, as Mastodon writes it: paragraphs, line breaks, links."""
    # A character reference of thousands of digits is an error of the parser.
    return html.unescape(_MANY_DIGITS.sub("", _TAG.sub("", _LINE_BREAK.sub("\n", text)))).strip()


def visible_of(value: Any) -> str | None:
    """Return what people see of a string that `text_of` accepts; None if that is nothing."""
    text = text_of(value)
    return None if text is None else visible(text) or None


def visible(text: str) -> str:
    """Return the text without invisible characters, with composed letters: `word\xadbreak` → `wordbreak`."""
    if text.isascii():
        return text
    if not _MAYBE_INVISIBLE.search(text):
        return normalize("NFC", text)
    return normalize("NFC", _INVISIBLE.sub(_visible_part, text))


def never_visible() -> list[str]:
    """Return the characters that `visible` always removes, without those of rare planes."""
    found = ((character, _INVISIBLE.fullmatch(character)) for character in map(chr, range(0x10000)))
    return [character for character, match in found if match is not None and match.lastgroup is None]


def _visible_part(match: re.Match[str]) -> str:
    """Return an invisible character where it changes what people see, else nothing."""
    kind = match.lastgroup
    if kind is None:
        return ""
    text = match.string
    before, after = text[max(0, match.start() - 1) : match.start()], text[match.end() : match.end() + 1]
    if kind == "selector":
        is_keycap = after == "\u20e3" and before in "0123456789#*"
        is_kept = is_keycap or bool(_HAS_VARIANTS.match(before))
    elif kind == "joiner":
        is_kept = bool(
            (_JOINED.match(before) and _JOINED.match(after))
            or (match[0] == "\u200d" and _BEFORE_PICTURE.match(before) and _PICTURE.match(after))
        )
    elif kind == "word_break":
        is_kept = bool(_WITHOUT_BLANKS.match(before) and _WITHOUT_BLANKS.match(after))
    elif kind == "filler":
        return " "
    else:
        is_kept = before == _BLACK_FLAG
    return match[0] if is_kept else ""


def normalize(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """Return a normalization form of Unicode, with at most 30 marks on a letter."""
    return unicodedata.normalize(form, _MANY_MARKS.sub(r"\1", text))
