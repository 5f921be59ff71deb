"""Which Elasticsearch field a scalar of a lexicon becomes.

`ignore_malformed` stands wherever Elasticsearch supports it: what strangers write may be of
any type, and a bad value should cost the field and not the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurp.lexicons.nodes import Branch, Field, Leaf, LeftOut

# Characters. A Lucene term may have 32,766 bytes, and a character takes at most four.
URI_LENGTH = 1024
NAME_LENGTH = 512
VALUE_LENGTH = 256

# Up to this a text is a name or a tag, which people also want to count: it gets a keyword too.
SHORT_GRAPHEMES = 64
SHORT_BYTES = 640

DATE: Field = {"type": "date", "format": "strict_date_optional_time", "ignore_malformed": True}
LONG: Field = {"type": "long", "ignore_malformed": True}
BOOLEAN: Field = {"type": "boolean", "ignore_malformed": True}

_FORMAT_LENGTHS = {
    "at-identifier": URI_LENGTH,
    "at-uri": URI_LENGTH,
    "did": URI_LENGTH,
    "uri": URI_LENGTH,
}


def keyword(length: int = VALUE_LENGTH) -> Field:
    return {"type": "keyword", "ignore_above": length}


def string_field(definition: Mapping[str, Any]) -> Field:
    """A string that is no free text is a keyword, also one of a format that is new to us."""
    if (format_ := definition.get("format")) is not None:
        return DATE if format_ == "datetime" else keyword(_FORMAT_LENGTHS.get(str(format_), NAME_LENGTH))
    if definition.keys() & {"knownValues", "enum", "const"}:
        return keyword()
    if _is_short(definition):
        return {"type": "text", "fields": {"keyword": keyword()}}
    return {"type": "text"}


def _is_short(definition: Mapping[str, Any]) -> bool:
    graphemes = definition.get("maxGraphemes")
    if isinstance(graphemes, int):
        return graphemes <= SHORT_GRAPHEMES
    length = definition.get("maxLength")
    return isinstance(length, int) and length <= SHORT_BYTES


# A reference to content as JSON spells it: {"$link": "bafy…"}.
CID_LINK = Branch({"$link": Leaf(keyword(NAME_LENGTH))})

# https://atproto.com/specs/data-model#blob-type, with the `cid` of its legacy form.
BLOB = Branch(
    {
        "mimeType": Leaf(keyword()),
        "size": Leaf(LONG),
        "ref": CID_LINK,
        "cid": LeftOut("only in the legacy form of a blob"),
    }
)
