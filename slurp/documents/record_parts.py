"""Add single common fields to a document: from references, texts, facets, embeds, languages and labels.

A value of the wrong type is treated as absent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import regex

from slurp.documents.embeds import EmbedSummary
from slurp.documents.graphemes import count_graphemes, find_emoji
from slurp.documents.languages import normalize_tags
from slurp.documents.record_values import (
    SOMETIMES_VISIBLE,
    dict_of,
    dicts_of,
    normalize,
    text_of,
    texts_of,
    type_of,
    visible,
    visible_of,
)
from slurp.documents.urls import domain_of, is_did, split_at_uri

Source = dict[str, Any]
Record = dict[str, Any]

_FACET = "app.bsky.richtext.facet"
_SELF_LABELS = "com.atproto.label.defs#selfLabels"

# Characters of a tag that is cached, and of one that is folded, which can make it eighteen times as long.
# Bluesky's lexicon allows 640 bytes and 64 graphemes.
_CACHED_LENGTH = 64
_MAX_TAG = 640
# Hashtags of a text.
_MAX_TAGS_IN_TEXT = 100

# Not inside of an address (`/page#part`) or an HTML entity (`&#39;`). Bluesky's lexicon allows 64 graphemes.
_HASHTAG = re.compile(r"(?<![\w/&=?.#＃-])[#＃](?![\ufe0f\u20e3])([^\s#＃]{1,64})(?![^\s#＃])")
_SECOND_DOT = regex.compile(r"i(?P<marks>[^\p{ccc=0}\u0307]{0,30})\u0307")
_IGNORED_IN_TAGS = re.compile(f"[{SOMETIMES_VISIBLE}]")
# A keycap (#️⃣) is a tag, not a number sign before one.
_TAG_BEGIN = re.compile(r"\A(?:\s|[#＃﹟](?![\ufe0f\u20e3]))+")
# The `type` of an entity, and the property that a facet has in its place.
_ENTITIES = {"hashtag": "tag", "link": "uri", "mention": "did"}


def add_text(source: Source, value: Any) -> None:
    """Add `text`, its length and its emoji."""
    if text := visible_of(value):
        source["text"] = text
        source["length"] = {"graphemes": count_graphemes(text)}
        if found := find_emoji(text):
            source["emoji"] = found


def add_reference(source: Source, field: str, target: Any, *, whole: bool = False) -> None:
    """Add the target of a reference: `uri` and `did`; with `whole` also `collection`."""
    if type(target) is dict:
        # In 2022 a follow had a DID there.
        target = target.get("uri", target.get("did"))
    if type(target) is not str:
        return
    if is_did(target):
        source[field] = {"did": target}
    elif (parts := split_at_uri(target)) is not None:
        source[field] = pointed = {"uri": target}
        if is_did(parts[2]):
            pointed["did"] = parts[2]
        if whole and len(parts) > 3 and parts[3]:
            pointed["collection"] = parts[3]


def add_name_and_description(source: Source, record: Record, name: str) -> None:
    if text := visible_of(record.get(name)):
        source["name"] = text
    if text := visible_of(record.get("description")):
        source["description"] = text


def add_languages(source: Source, tags: Any) -> None:
    """Add `langs` and `lang` from a list of language tags, or a single one."""
    if tags is None:
        return
    found = normalize_tags(tuple(texts_of(tags)))
    if found.langs:
        source["langs"], source["lang"] = found


def add_facets(source: Source, facets: Any, more_tags: Any, links: list[str]) -> None:
    """Add tags and mentions to `source`, and append links to `links`."""
    tags: list[str] = []
    mentions: list[str] = []
    for facet in dicts_of(facets):
        for feature in dicts_of(facet.get("features")):
            # Some clients leave out `$type`; other applications have types with the same properties.
            if "$type" in feature and not type_of(feature).startswith(_FACET):
                continue
            if tag := text_of(feature.get("tag")):
                tags.append(tag)
            elif (did := text_of(feature.get("did"))) and is_did(did):
                mentions.append(did)
            elif uri := text_of(feature.get("uri")):
                links.append(uri)
    add_mentions(source, mentions)
    if more_tags is not None:
        tags.extend(texts_of(more_tags))
    if tags:
        add_tags(source, tags)


def add_mentions(source: Source, targets: Iterable[str]) -> None:
    """Add `mentions`: those targets that are DIDs."""
    if mentions := _unique(filter(is_did, targets)):
        source["mentions"] = mentions


def add_tags(source: Source, tags: Iterable[str]) -> None:
    if bare := _unique(map(_bare_tag, tags)):
        source["tags"] = bare
        folded = (fold_tag(tag) for tag in bare if len(tag) <= _MAX_TAG)
        if short := _unique(tag for tag in folded if len(tag) <= _MAX_TAG):
            source["tags_folded"] = short


def add_tags_in_text(source: Source) -> None:
    """Add hashtags in `text` that are not in `tags`, folded: clients that write no facets, and bridges."""
    text = source["text"]
    if "#" not in text and "＃" not in text:
        return
    marked = frozenset(source.get("tags_folded", ()))
    found = (fold_tag(_without_final_punctuation(tag)) for tag in _HASHTAG.findall(text))
    if more := _unique(tag for tag in found if tag not in marked and not _is_number(tag)):
        source["tags_text"] = more[:_MAX_TAGS_IN_TEXT]


def _without_final_punctuation(tag: str) -> str:
    while tag and unicodedata.category(tag[-1])[0] == "P":
        tag = tag[:-1]
    return tag


def _is_number(tag: str) -> bool:
    return all(unicodedata.category(character)[0] in "PN" for character in tag)


def facets_of_entities(entities: Any) -> list[Record]:
    """Return the `entities` of a post as facets, which replaced them in 2023."""
    names = ((entity, _ENTITIES.get(text_of(entity.get("type")) or "")) for entity in dicts_of(entities))
    return [{"features": [{name: entity.get("value")}]} for entity, name in names if name]


def _bare_tag(tag: str) -> str:
    """Return a tag without number signs before it, blanks around it, and invisible characters."""
    return _TAG_BEGIN.sub("", visible(tag)).strip()


def fold_tag(tag: str) -> str:
    """Return one spelling for `Caturday`, `caturday` and full-width letters, and for `İzmir` and `izmir`."""
    # Long tags are not cached, which bounds the cache; tags that occur twice are short.
    return _fold_cached(tag) if len(tag) <= _CACHED_LENGTH else _fold(tag)


def _fold(tag: str) -> str:
    if tag.isascii():
        return tag.lower()
    # Turkish has a second i, and the case folding of the capital one is an i with a second dot.
    decomposed = normalize("NFKD", normalize("NFKC", tag).casefold())
    folded = _SECOND_DOT.sub(r"i\g<marks>", decomposed.replace("\u0131", "i"))
    return normalize("NFKC", _IGNORED_IN_TAGS.sub("", folded))


_fold_cached = lru_cache(maxsize=4096)(_fold)


def add_alternative_texts(source: Source, texts: Iterable[str]) -> None:
    """Add `alt`."""
    if alternatives := [text for text in map(visible, texts) if text]:
        source["alt"] = alternatives


def add_embed(source: Source, record: Record, links: list[str]) -> None:
    if not (embed := dict_of(record.get("embed"))):
        return
    seen = EmbedSummary()
    seen.add(embed)
    if seen.kinds:
        source["media"] = {"kinds": list(seen.kinds), "count": seen.count}
    add_alternative_texts(source, seen.alts)
    if seen.external:
        source["external"] = seen.external
    if seen.quote:
        source["quote"] = seen.quote
    links += seen.links


def add_links(source: Source, links: list[str]) -> None:
    if links:
        source["links"] = links = _unique(links)
        if domains := _unique(domain for link in links if (domain := domain_of(link))):
            source["domains"] = domains


def add_labels(source: Source, record: Record) -> None:
    if (labels := record.get("labels")) is not None:
        found = dict_of(labels)
        if "$type" in found and type_of(found) != _SELF_LABELS:
            return
        # Once a list.
        values = dicts_of(found.get("values") if found else labels)
        if names := _unique(name for value in values if (name := text_of(value.get("val")))):
            source["labels"] = names


def _unique(texts: Iterable[str]) -> list[str]:
    """Return each non-empty text once, in order of appearance."""
    return list(dict.fromkeys(text for text in texts if text))
