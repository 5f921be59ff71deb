"""Choose the Elasticsearch field for a scalar of a lexicon.

`ignore_malformed` is set wherever Elasticsearch supports it: user-written values may be of any type, and an
invalid value should cost the field and not the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurp.lexicons.nodes import Branch, Field, Leaf, LeftOut, Node

# Characters. A Lucene term may have 32,766 bytes, and a character has at most four.
URI_LENGTH = 1024
NAME_LENGTH = 512
VALUE_LENGTH = 256

# A text up to this length is a name or a tag, which is also aggregated: it gets a keyword subfield.
SHORT_GRAPHEMES = 64
SHORT_BYTES = 640

DATE: Field = {"type": "date", "format": "strict_date_optional_time", "ignore_malformed": True}
# Without points: a range over a size or a height is rare, and doc values answer it, only slower.
LONG: Field = {"type": "long", "index": False, "ignore_malformed": True}
BOOLEAN: Field = {"type": "boolean", "ignore_malformed": True}

_FORMAT_LENGTHS = {
    "at-identifier": URI_LENGTH,
    "at-uri": URI_LENGTH,
    "did": URI_LENGTH,
    "uri": URI_LENGTH,
}


def keyword(length: int = VALUE_LENGTH) -> Field:
    """Return a keyword field for values of up to `length` characters."""
    return {"type": "keyword", "ignore_above": length}


# A hash of content is as good as random: it costs 40 bytes and more, and nobody searches for one.
HASH = LeftOut("content hash; in `_source`")


def string_node(definition: Mapping[str, Any]) -> Node:
    """Return the field of a string: a keyword unless it is free text. Unknown formats are keywords, too."""
    return HASH if definition.get("format") == "cid" else Leaf(_string_field(definition))


def _string_field(definition: Mapping[str, Any]) -> Field:
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


# A reference to content as in JSON: {"$link": "bafy…"}.
CID_LINK = Branch({"$link": HASH})

# https://atproto.com/specs/data-model#blob-type, with the `cid` of its legacy form.
BLOB = Branch(
    {
        "mimeType": Leaf(keyword()),
        "size": Leaf(LONG),
        "ref": CID_LINK,
        "cid": LeftOut("only in the legacy form of a blob"),
    }
)
