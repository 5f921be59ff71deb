"""Common fields of records of other applications, by a general rule: the names and forms of their values.

There are blogs, reviews, events and bookmarks on the network. Their lexicons name the same things in many
ways, and new ones appear every week.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from slurp.documents.embeds import is_gif
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
from slurp.documents.record_values import text_of, visible_of

# Bounds for hostile records.
_MAX_DEPTH = 20
_MAX_VALUES = 20_000
_MAX_LINKS = 100
_MAX_NAME = 64

# Names of values in lower case; titles and descriptions in order of preference.
_TITLES = ("title", "name", "displayname", "headline")
_DESCRIPTIONS = ("description", "summary", "subtitle", "excerpt")
_TEXTS = frozenset(
    {"text", "content", "body", "plaintext", "markdown", "message", "note", "comment", "review", "caption"}
)
_TAGS = frozenset({"tags", "hashtags", "keywords", "categories", "topics", "genres"})
_LANGUAGES = frozenset({"lang", "langs", "language", "languages"})
# Nobody wrote these for readers.
_TECHNICAL = frozenset(
    {"agent", "useragent", "submissionclientagent", "key", "publickey", "patch", "diff", "signature", "token"}
)
# Values with these words in their names are pictures, whose addresses are no links by the author.
_PICTURES = frozenset(
    {"ogp", "image", "img", "avatar", "thumb", "thumbnail", "poster", "cover", "icon", "logo", "banner"}
    | {"picture", "photo", "artwork", "art", "backdrop", "preview", "screenshot"}
)
_WORD_OF_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

_LINK = re.compile(r"https?://\S+", re.IGNORECASE)
# In a text, with balanced parentheses, without punctuation behind it.
_LINK_IN_TEXT = re.compile(
    r"https?://[^\s<>()\[\]\"]*(?:\([^\s<>()\[\]\"]*\)[^\s<>()\[\]\"]*)*(?<![.,;:!?'*_])", re.IGNORECASE
)
_MARKDOWN_PICTURE = re.compile(r"!\[[^\[\]]*\]\([^()\s]*\)")
_BLANK = re.compile(r"\s")
_IDENTIFIER = re.compile(r"(?:at://|did:)\S+|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+(?:#\w+)?")
# Two words, or a letter of a script that no identifier has. A very long word is a key or a hash.
_PROSE = re.compile(r"[^\W\d_]\W{0,3}\s\W{0,3}[^\W\d_]|[^\W\d_\x00-\x7f]")
_CODED = re.compile(r"[!-~]{100}")


class _Value(NamedTuple):
    """A text in a record: the name at the top of the record, its own name, and how deep it is."""

    top: str
    name: str
    depth: int
    text: str

    @property
    def is_named_text(self) -> bool:
        """Whether its name says that it is a text."""
        if self.name in _TEXTS or (self.name == "value" and self.top in _TEXTS):
            return not _IDENTIFIER.fullmatch(self.text)
        return False


class _Values:
    """The texts of a record, by what they are."""

    def __init__(self, record: Record) -> None:
        self.tags: list[str] = []
        self.mentions: list[str] = []
        self.links: list[str] = []
        self.langs: list[str] = []
        self.alts: list[str] = []
        self.at_top: dict[str, str] = {}
        self.others: list[_Value] = []
        self._left = _MAX_VALUES
        for name, item in record.items():
            if not name.startswith("$"):
                self._add(item, name.lower(), name, 1)

    def _add(self, value: Any, top: str, name: str, depth: int, *, is_facet: bool = False) -> None:
        kind = type(value)
        if kind is str:
            if self._left and value:
                self._left -= 1
                self._add_text(_Value(top, name.lower(), depth, value), name, is_facet)
        elif depth > _MAX_DEPTH:
            return
        elif kind is list:
            for item in value:
                self._add(item, top, name, depth + (type(item) is list), is_facet=is_facet)
        elif kind is dict:
            if name.lower() in _TAGS:
                self._add(value.get("name"), top, name, depth + 1)
                return
            if _is_picture(name):
                value = {"alt": value.get("alt")}
            for below, item in value.items():
                if not below.startswith("$"):
                    self._add(item, top, below, depth + 1, is_facet=is_facet or below == "facets")

    def _add_text(self, value: _Value, name: str, is_facet: bool) -> None:
        text = text_of(value.text)
        if text is None:
            return
        if is_facet:
            found = {"tag": self.tags, "did": self.mentions, "uri": self.links}.get(value.name)
            if found is not None:
                found.append(text)
        elif value.name in _TAGS:
            self.tags.append(text)
        elif value.name in _LANGUAGES:
            # Deeper ones may be programming languages.
            if value.depth == 1:
                self.langs.append(text)
        elif value.name == "alt":
            self.alts.append(text)
        elif "://" in text and _LINK.fullmatch(text):
            if not (_is_picture(name) or is_gif(text)):
                self.links.append(text)
        elif value.depth == 1 and (value.name in _TITLES or value.name in _DESCRIPTIONS):
            self.at_top.setdefault(value.name, text)
        elif value.name not in _TECHNICAL:
            self.others.append(value)

    @property
    def title(self) -> str | None:
        return self._first(_TITLES)

    @property
    def description(self) -> str | None:
        return self._first(_DESCRIPTIONS)

    def _first(self, names: tuple[str, ...]) -> str | None:
        return next((self.at_top[name] for name in names if name in self.at_top), None)

    @property
    def text(self) -> str | None:
        """The text that its name says is one, at the top if possible; else the description; else the longest
        other prose."""
        named = [value for value in self.others if value.is_named_text]
        if text := _longest(value for value in named if value.depth == 1) or _longest(named):
            return text
        return self.description or _longest(_groups_with_prose(self.others))


def add_by_general_rule(source: Source, record: Record) -> None:
    """Add `name`, `text`, `description`, `tags`, `links`, `langs`, `alt`, `mentions`, `labels` and `subject`.

    The name is a title at the top of the record. Texts of one name, such as the paragraphs of a document, are
    one text. No record raises an exception here.
    """
    values = _Values(record)
    add_reference(source, "subject", record.get("subject"), whole=True)
    add_labels(source, record)
    if title := visible_of(values.title):
        source["name"] = title
    text = values.text
    add_text(source, text)
    if values.description != text and (description := visible_of(values.description)):
        source["description"] = description
    # Most records have few of these, and this runs for each record of another application.
    if values.tags:
        add_tags(source, values.tags)
    if values.mentions:
        add_mentions(source, values.mentions)
    if values.langs:
        add_languages(source, values.langs)
    if values.alts:
        add_alternative_texts(source, values.alts)
    add_links(source, [*values.links, *_links_in(text or "")][:_MAX_LINKS])


def text_in(content: Any) -> str | None:
    """Return the text of an object of another application, by the general rule."""
    return _Values({"content": content}).text


def _groups_with_prose(values: list[_Value]) -> Iterator[_Value]:
    """Yield the values of which one of the same name is prose: an ingredient may be one word."""
    prose = {(value.top, value.name) for value in values if _is_prose(value.text)}
    return (value for value in values if (value.top, value.name) in prose)


def _longest(values: Iterable[_Value]) -> str | None:
    """Return the longest text, that of all values of a name together."""
    by_name: dict[tuple[str, str], list[str]] = {}
    for value in values:
        by_name.setdefault((value.top, value.name), []).append(value.text)
    return max(map("\n".join, by_name.values()), key=len, default=None)


def _is_prose(text: str) -> bool:
    if text.isascii() and not _BLANK.search(text):
        return False  # a word of a vocabulary, an identifier, a time
    if _CODED.search(text):
        return False
    return _PROSE.search(text) is not None or bool(find_emoji(text))


def _links_in(text: str) -> list[str]:
    return _LINK_IN_TEXT.findall(_MARKDOWN_PICTURE.sub("", text)) if "://" in text else []


def _is_picture(name: str) -> bool:
    return len(name) <= _MAX_NAME and _has_word_of_pictures(name)


@lru_cache(maxsize=1024)
def _has_word_of_pictures(name: str) -> bool:
    return any(word.lower() in _PICTURES for word in _WORD_OF_NAME.findall(name))
