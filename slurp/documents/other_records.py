"""Common fields of records of other applications, by a general rule: the names and forms of their values.

There are blogs, reviews, events and bookmarks on the network. Their lexicons name the same things in many
ways, and new ones appear every week.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from slurp.documents.graphemes import find_emoji
from slurp.documents.record_parts import (
    Record,
    Source,
    add_alternative_texts,
    add_labels,
    add_languages,
    add_links,
    add_mentions,
    add_reference,
    add_tags,
    add_text,
)
from slurp.documents.record_values import text_of, visible

# Bounds for hostile records.
_MAX_DEPTH = 20
_MAX_VALUES = 20_000
_MAX_LINKS = 100

# Names of values in lower case; titles and descriptions in order of preference.
_TITLES = ("title", "name", "displayname", "headline")
_DESCRIPTIONS = ("description", "summary", "subtitle", "excerpt")
_TAGS = frozenset({"tags", "hashtags", "keywords", "categories"})
_LANGUAGES = frozenset({"lang", "langs", "language", "languages"})
# A text may have any name. One with these names may be a single word.
_TEXTS = frozenset(
    {"text", "content", "body", "plaintext", "markdown", "message", "note", "comment", "review", "caption"}
)
# The addresses of pictures are not those that the author refers to.
_PICTURE = re.compile("ogp|image|img|avatar|thumb|poster|cover|icon|logo|banner|picture|photo|artwork")

_LINK = re.compile(r"https?://\S+")
_MARKDOWN_LINK = re.compile(r"\]\((https?://[^\s()]+)")
_IDENTIFIER = re.compile(r"(?:at://|did:|https?://)\S+|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+(?:#\w+)?")
# Two words, or a letter of a script that no identifier has.
_PROSE = re.compile(r"[^\W\d_]\W{0,3}\s\W{0,3}[^\W\d_]|[^\W\d_\x00-\x7f]")


class _Value(NamedTuple):
    """A text in a record."""

    path: tuple[str, ...]
    """The names that lead to it, in lower case; an element of a list has the path of the list."""
    text: str

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def is_link(self) -> bool:
        return _LINK.fullmatch(self.text) is not None and not _PICTURE.search(" ".join(self.path))

    @property
    def is_tag(self) -> bool:
        return self.name in _TAGS or (self.name == "tag" and "facets" in self.path)

    @property
    def is_text(self) -> bool:
        """Whether people read it: not an identifier, an address, a time or one word of a vocabulary."""
        if self.is_tag or self.name in _LANGUAGES or self.name == "alt" or _IDENTIFIER.fullmatch(self.text):
            return False
        return self.name in _TEXTS or bool(_PROSE.search(self.text) or find_emoji(self.text))


def add_by_general_rule(source: Source, record: Record) -> None:
    """Add `name`, `text`, `description`, `tags`, `links`, `langs`, `alt`, `mentions`, `labels` and `subject`.

    The name is a title at the top of the record, and the text is its longest other text. The texts of one
    path, such as the paragraphs of a document, are one text. No record raises an exception here.
    """
    values = list(islice(_values(record, (), _MAX_DEPTH), _MAX_VALUES))
    add_reference(source, "subject", record.get("subject"), whole=True)
    add_tags(source, (value.text for value in values if value.is_tag))
    add_mentions(source, (value.text for value in values if value.name == "did" and "facets" in value.path))
    add_languages(source, [value.text for value in values if value.name in _LANGUAGES])
    add_alternative_texts(source, (value.text for value in values if value.name == "alt"))
    add_labels(source, record)
    title = _first(values, _TITLES)
    if title:
        source["name"] = visible(title.text)
    longest = max(_texts(value for value in values if value is not title), key=len, default="")
    add_text(source, longest)
    links = [value.text for value in values if value.is_link]
    add_links(source, [*links, *_MARKDOWN_LINK.findall(longest)][:_MAX_LINKS])
    description = _first(values, _DESCRIPTIONS)
    if description and description.text != longest:
        source["description"] = visible(description.text)


def _values(value: Any, path: tuple[str, ...], depth: int) -> Iterator[_Value]:
    """Yield the texts in a value, in order of appearance."""
    if type(value) is str:
        if text_of(value):
            yield _Value(path, value)
    elif depth and type(value) is list:
        for item in value:
            yield from _values(item, path, depth - 1)
    elif depth and type(value) is dict:
        for name, item in value.items():
            if not name.startswith("$"):
                yield from _values(item, (*path, name.lower()), depth - 1)


def _first(values: Sequence[_Value], names: Iterable[str]) -> _Value | None:
    """Return the value at the top of the record that has the first of `names`."""
    found = {value.name: value for value in reversed(values) if len(value.path) == 1}
    return next((found[name] for name in names if name in found), None)


def _texts(values: Iterable[_Value]) -> list[str]:
    by_path: dict[tuple[str, ...], list[str]] = {}
    for value in values:
        if value.is_text:
            by_path.setdefault(value.path, []).append(value.text)
    return ["\n".join(texts) for texts in by_path.values()]
