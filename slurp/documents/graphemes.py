"""Count grapheme clusters and find emoji (Unicode UAX #29 and UTS #51)."""

from __future__ import annotations

import re
from functools import cache

import emoji
import regex

# Characters that are always a grapheme of their own, so that counting them is counting code points: Latin,
# Greek, Cyrillic, punctuation, symbols, kana, Han, whole Hangul syllables, plain emoji. A test compares this
# with `\X`, which needs five times as long and is used for everything else only.
STANDALONE = (
    "\x00-\x0c\x0e-\x7e\xa0-\xac\xae-\u02ff\u0370-\u0482\u048a-\u052f"
    "\u2010-\u2027\u2030-\u205e\u20a0-\u20cf\u2100-\u2bff\u2e80-\u3029\u3031-\u303c\u3041-\u3096\u309b-\u30ff"
    "\u3105-\u312f\u3400-\u9fff\uac00-\ud7a3\uff01-\uff9d"
    "\U0001f300-\U0001f3fa\U0001f400-\U0001faff"
)
# A run of other characters, and the neighbors that may combine with it.
_COMBINING = re.compile(f"(?:[{STANDALONE}]?[^{STANDALONE}]++)++[{STANDALONE}]?+")
_CLUSTER = regex.compile(r"\X")
# All flags in a run of regional indicators except what ends it: `\X` looks back over the whole run at each
# one, so that 80,000 took 28 seconds.
_FLAGS = re.compile("(?:[\U0001f1e6-\U0001f1ff]{2})+(?=[\U0001f1e6-\U0001f1ff])")

_VS16 = "\ufe0f"

# One emoji: a flag, a keycap, or pictographs joined by ZWJ, with variation selectors, skin tones and tags.
# Letters and arrows that are text by default (©, ↔) count if a variation selector or a joiner makes them
# emoji; pictures that are text by default (☺, ⏱, 🗓) always count. U+FE0E says that one is text.
_EMOJI = regex.compile(
    r"""
      \p{Regional_Indicator}{2}
    | [0-9#*]\uFE0F?\u20E3
    | (?: (?!\p{Regional_Indicator}) \p{Emoji_Presentation} (?! \uFE0E ) \uFE0F?
        | \p{Extended_Pictographic} \uFE0F
        | (?! \p{Emoji_Presentation} )
          [\u2300-\u23FF\u2600-\u27BF\U0001F000-\U0001FAFF--[^\p{Emoji}]--\p{Regional_Indicator}--\p{Emoji_Modifier}]
          (?! \uFE0E )
        | \p{Extended_Pictographic} (?=\u200D\p{Extended_Pictographic} | \p{Emoji_Modifier})
      )
      (?: \uFE0F? \p{Emoji_Modifier} \uFE0F? )?
      (?: \u200D \p{Extended_Pictographic} \uFE0F? (?: \p{Emoji_Modifier} \uFE0F? )? )*
      (?: [\U000E0020-\U000E007E]+ \U000E007F )?
    """,
    regex.VERBOSE | regex.VERSION1,
)
# Every emoji contains one of these; the standard library finds them much faster.
_MAYBE_EMOJI = re.compile("[\xa9\xae\u203c-\u27bf\u2934-\u2b55\u3030\u303d\u3297\u3299\U0001f004-\U0001faff]")


def count_graphemes(text: str) -> int:
    """Return the number of grapheme clusters: a family of four, or a letter with its accents, is one."""
    if text.isascii():
        # The only cluster of two ASCII characters.
        return len(text) - text.count("\r\n")
    return len(text) - sum(len(part) - _count_clusters(part) for part in _COMBINING.findall(text))


def _count_clusters(part: str) -> int:
    ends = _FLAGS.sub("", part)
    return (len(part) - len(ends)) // 2 + len(_CLUSTER.findall(ends))


def find_emoji(text: str) -> list[str]:
    """Return the emoji in `text`, each once, in order of appearance; a ZWJ sequence is one emoji.

    Each has the spelling that Unicode calls fully-qualified, whatever the text has.
    """
    if text.isascii() or not _MAYBE_EMOJI.search(text):
        return []
    return list(dict.fromkeys(map(_fully_qualified, _EMOJI.findall(text))))


def _fully_qualified(found: str) -> str:
    return _fully_qualified_spellings().get(found.replace(_VS16, ""), found)


@cache
def _fully_qualified_spellings() -> dict[str, str]:
    """Return the fully-qualified spelling of each emoji by the spelling without variation selectors.

    https://unicode.org/Public/emoji/latest/emoji-test.txt
    """
    qualified = emoji.STATUS["fully_qualified"]
    return {
        text.replace(_VS16, ""): text
        for text, entry in emoji.EMOJI_DATA.items()
        if entry["status"] == qualified
    }
