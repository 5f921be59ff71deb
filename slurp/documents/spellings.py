"""Find other spellings of the words in a text, under which people search for them.

The analyzer of a full Elasticsearch finds `café` for `cafe`. That of the small distribution compares letter
by letter, and no analyzer without a dictionary knows where a Korean noun ends and its particle begins.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from slurp.documents.record_values import normalize

# The fields that have spellings.
FIELDS = ("text", "alt", "name", "description")

# Characters. Bounds the size of `spellings`.
_EXAMINED_LENGTH = 50_000
# Characters of a word. Nobody types a longer one into a search.
_MAX_WORD = 32
# Syllables of a Korean word; no noun is longer.
_LONGEST_BEGINNING = 10

# Those that people type for `'`.
APOSTROPHES = "’‘ʼ＇"
_APOSTROPHES = f"'{APOSTROPHES}"
# Marks of Latin and Greek letters, and the vowels of Hebrew and Arabic.
_MARKS = "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1-\u05c7\u064b-\u065f\u0670"
# A word that has a letter beyond ASCII, or an apostrophe inside.
_WORD = re.compile(
    rf"(?<![\w{_APOSTROPHES}])(?:[A-Za-z0-9_]++[{_APOSTROPHES}](?=\w)|[A-Za-z0-9_]*+[^\W\x00-\x7f])"
    rf"(?:[\w{_MARKS}]|[{_APOSTROPHES}](?=\w))*+"
)
_WIDTH_FORM = re.compile("[\uff00-\uffef]")
_HANGUL = re.compile("[가-힣]{2,}")

# Letters that Unicode does not decompose.
_LETTERS = {
    "Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "Ø": "O", "ø": "o", "Đ": "D", "đ": "d", "Ð": "D", "ð": "d",
    "Ł": "L", "ł": "l", "Þ": "TH", "þ": "th", "ß": "ss", "ẞ": "SS", "ı": "i", "Ħ": "H", "ħ": "h", "ŋ": "n",
    "Ё": "Е", "ё": "е",
}  # fmt: skip
# Latin, Greek, Hebrew and Arabic letters are often written without their marks; the marks of other scripts
# are vowels, or make other letters.
_MARKED = re.compile(
    "[\u0300-\u036f\u00c0-\u024f\u1e00-\u1eff\u0370-\u03ff\u1f00-\u1fff\u0591-\u05f4\u0600-\u06ff"
    "\ufb00-\ufb06\ufb1d-\ufb4f\u0401\u0451]"
)


def without_marks(text: str) -> str:
    """Return the text without accents and other marks that people leave out: `café` → `cafe`."""
    return text if text.isascii() else _MARKED.sub(lambda match: _letter_without_marks(match[0]), text)


@lru_cache(maxsize=4096)
def _letter_without_marks(letter: str) -> str:
    if letter in _LETTERS:
        return _LETTERS[letter]
    decomposed = unicodedata.normalize("NFKD", letter)
    return "".join(part for part in decomposed if unicodedata.category(part) != "Mn")


def add_spellings(source: dict[str, Any]) -> None:
    """Add `spellings`: those of all texts of the document."""
    texts: list[str] = []
    for name in FIELDS:
        if (text := source.get(name)) is not None:
            if type(text) is str:
                texts.append(text)
            else:
                texts += text
    if texts and (spellings := other_spellings("\n".join(texts))):
        source["spellings"] = spellings


def other_spellings(text: str) -> str | None:
    """Return other spellings of the words in a text, separated by blanks; None if there are none.

    Both apostrophes (`don't`, `don’t`), letters without their marks (`cafe`), full-width letters in the usual
    width, and the beginnings of Korean words (`고양이` of `고양이가`).
    """
    if text.isascii() and "'" not in text:
        return None
    words = dict.fromkeys(_WORD.findall(text[:_EXAMINED_LENGTH]))
    found = dict.fromkeys(
        spelling
        for word in words
        if len(word) <= _MAX_WORD
        for spelling in _spellings(word)
        if spelling not in words
    )
    return " ".join(found) or None


@lru_cache(maxsize=16_384)
def _spellings(word: str) -> list[str]:
    usual = normalize("NFKC", word) if _WIDTH_FORM.search(word) else word
    straight = usual
    for apostrophe in APOSTROPHES:
        straight = straight.replace(apostrophe, "'")
    found = [straight, straight.replace("'", "’")] if "'" in straight or usual != word else []
    if (bare := without_marks(straight)) != straight:
        found += (bare, bare.replace("'", "’")) if "'" in bare else (bare,)
    for syllables in _HANGUL.findall(usual):
        found += (syllables[:end] for end in range(1, min(len(syllables), _LONGEST_BEGINNING + 1)))
    return found
