"""Copy the fields that mean the same in every collection from a record to the top of its document.

There is one extractor for each record type; `fields.py` describes the fields.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from slurp.documents.embeds import EmbedSummary
from slurp.documents.graphemes import count_graphemes, find_emoji
from slurp.documents.languages import normalize_tag, primary_subtag
from slurp.documents.record_values import dict_of, dicts_of, text_of, texts_of, visible
from slurp.documents.times import parse_created_at
from slurp.documents.urls import domain_of, is_did, split_at_uri

Source = dict[str, Any]
Record = dict[str, Any]
Extractor = Callable[[Source, Record], None]

# Longest tag that is cached, in characters. Bluesky's lexicon allows 640 bytes and 64 graphemes.
_CACHED_LENGTH = 256


def add_common_fields(source: Source, collection: str, record: Record) -> None:
    """Add the common fields of a `record` in `collection` to `source`, which has its envelope."""
    claimed = record.get("createdAt")
    if claimed is None:
        claimed = record.get("publishedAt")
    if claimed is not None and (moment := parse_created_at(claimed, source["@timestamp"])):
        source["created_at"] = moment
    _EXTRACTORS.get(collection, _add_other)(source, record)


def _add_subject(source: Source, record: Record) -> None:
    """Add `subject` (a DID, an `at://` URI or a reference with uri and cid) and `via`."""
    _add_reference(source, "subject", record.get("subject"), whole=True)
    if (via := record.get("via")) is not None:
        _add_reference(source, "via", via)


def _add_post(source: Source, record: Record) -> None:
    if text := text_of(record.get("text")):
        source["text"] = visible(text)
        source["length"] = {"graphemes": count_graphemes(text)}
        if found := find_emoji(text):
            source["emoji"] = found
    _add_languages(source, record)
    if reply := dict_of(record.get("reply")):
        ends: Source = {}
        for end in ("root", "parent"):
            _add_reference(ends, end, reply.get(end))
        if ends:
            source["reply"] = ends
    links: list[str] = []
    _add_facets(source, record.get("facets"), record.get("tags"), links)
    _add_embed(source, record, links)
    _add_links(source, links)
    _add_labels(source, record)


def _add_profile(source: Source, record: Record) -> None:
    _add_name_and_description(source, record, "displayName")
    _add_links(source, _link_list(record.get("website")))
    _add_labels(source, record)


def _add_feed(source: Source, record: Record) -> None:
    _add_listing(source, record, "displayName")


def _add_list(source: Source, record: Record) -> None:
    _add_listing(source, record, "name")


def _add_starter_pack(source: Source, record: Record) -> None:
    _add_listing(source, record, "name")
    _add_reference(source, "list", record.get("list"))


def _add_list_item(source: Source, record: Record) -> None:
    _add_reference(source, "subject", record.get("subject"), whole=True)
    _add_reference(source, "list", record.get("list"))


def _add_gate(source: Source, record: Record) -> None:
    _add_reference(source, "subject", record.get("post"), whole=True)


def _add_verification(source: Source, record: Record) -> None:
    _add_subject(source, record)
    _add_name_and_description(source, record, "displayName")


def _add_live_status(source: Source, record: Record) -> None:
    links: list[str] = []
    _add_embed(source, record, links)
    _add_links(source, links)


def _add_labeler(source: Source, record: Record) -> None:
    _add_labels(source, record)


def _add_document(source: Source, record: Record) -> None:
    _add_name_and_description(source, record, "title")
    if text := text_of(record.get("textContent")):
        source["text"] = visible(text)
        source["length"] = {"graphemes": count_graphemes(text)}
        if found := find_emoji(text):
            source["emoji"] = found
    _add_tags(source, texts_of(record.get("tags")))
    _add_labels(source, record)


def _add_recommendation(source: Source, record: Record) -> None:
    _add_reference(source, "subject", record.get("document"), whole=True)


def _add_subscription(source: Source, record: Record) -> None:
    _add_reference(source, "subject", record.get("publication"), whole=True)


def _add_publication(source: Source, record: Record) -> None:
    _add_name_and_description(source, record, "name")
    _add_links(source, _link_list(record.get("url")))
    _add_labels(source, record)


def _add_other(source: Source, record: Record) -> None:
    """Add `subject`, which any lexicon may have in the same three forms. Its `via` may be anything."""
    _add_reference(source, "subject", record.get("subject"), whole=True)


_EXTRACTORS: dict[str, Extractor] = {
    "app.bsky.actor.profile": _add_profile,
    "app.bsky.actor.status": _add_live_status,
    "app.bsky.feed.generator": _add_feed,
    "app.bsky.feed.like": _add_subject,
    "app.bsky.feed.post": _add_post,
    "app.bsky.feed.postgate": _add_gate,
    "app.bsky.feed.repost": _add_subject,
    "app.bsky.feed.threadgate": _add_gate,
    "app.bsky.graph.block": _add_subject,
    "app.bsky.graph.follow": _add_subject,
    "app.bsky.graph.list": _add_list,
    "app.bsky.graph.listblock": _add_subject,
    "app.bsky.graph.listitem": _add_list_item,
    "app.bsky.graph.starterpack": _add_starter_pack,
    "app.bsky.graph.verification": _add_verification,
    "app.bsky.labeler.service": _add_labeler,
    "site.standard.document": _add_document,
    "site.standard.graph.recommend": _add_recommendation,
    "site.standard.graph.subscription": _add_subscription,
    "site.standard.publication": _add_publication,
}


def _add_reference(source: Source, field: str, target: Any, *, whole: bool = False) -> None:
    """Add the target of a reference: `uri` and `did`; with `whole` also `collection`."""
    if type(target) is dict:
        target = target.get("uri")
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


def _add_name_and_description(source: Source, record: Record, name: str) -> None:
    if text := text_of(record.get(name)):
        source["name"] = visible(text)
    if text := text_of(record.get("description")):
        source["description"] = visible(text)


def _add_listing(source: Source, record: Record, name: str) -> None:
    """Add name, description with facets, and labels: for lists, feeds and starter packs."""
    _add_name_and_description(source, record, name)
    links: list[str] = []
    _add_facets(source, record.get("descriptionFacets"), None, links)
    _add_links(source, links)
    _add_labels(source, record)


def _add_languages(source: Source, record: Record) -> None:
    langs = [tag for text in texts_of(record.get("langs")) if (tag := normalize_tag(text))]
    if langs:
        source["langs"] = langs = _unique(langs)
        source["lang"] = _unique(map(primary_subtag, langs))


def _add_facets(source: Source, facets: Any, more_tags: Any, links: list[str]) -> None:
    """Add tags and mentions to `source`, and append links to `links`."""
    tags: list[str] = []
    mentions: list[str] = []
    for facet in dicts_of(facets):
        for feature in dicts_of(facet.get("features")):
            # Recognized by their properties: some clients leave out `$type`.
            if tag := text_of(feature.get("tag")):
                tags.append(tag)
            elif (did := text_of(feature.get("did"))) and is_did(did):
                mentions.append(did)
            elif uri := text_of(feature.get("uri")):
                links.append(uri)
    if mentions:
        source["mentions"] = _unique(mentions)
    if more_tags is not None:
        tags.extend(texts_of(more_tags))
    if tags:
        _add_tags(source, tags)


def _add_tags(source: Source, tags: Iterable[str]) -> None:
    if bare := _unique(map(_bare_tag, tags)):
        source["tags"] = bare
        source["tags_folded"] = _unique(map(fold_tag, bare))


def _bare_tag(tag: str) -> str:
    """Return a tag without `#`, blanks around it, and invisible characters."""
    return visible(tag).strip().lstrip("#＃").strip()


def fold_tag(tag: str) -> str:
    """Return one spelling for `Caturday`, `caturday` and full-width letters, and for `İzmir` and `izmir`."""
    # Long tags are not cached, which bounds the cache; tags that occur twice are short.
    return _fold_cached(tag) if len(tag) <= _CACHED_LENGTH else _fold(tag)


def _fold(tag: str) -> str:
    if tag.isascii():
        return tag.lower()
    # The case folding of a dotted capital I is an i with a second dot.
    return unicodedata.normalize("NFKC", tag).casefold().replace("i\u0307", "i")


_fold_cached = lru_cache(maxsize=16_384)(_fold)


def _add_embed(source: Source, record: Record, links: list[str]) -> None:
    if not (embed := dict_of(record.get("embed"))):
        return
    seen = EmbedSummary()
    seen.add(embed)
    if seen.kinds:
        source["media"] = {"kinds": list(seen.kinds), "count": seen.count}
    if seen.alts:
        source["alt"] = seen.alts
    if seen.external:
        source["external"] = seen.external
    if seen.quote:
        source["quote"] = seen.quote
    links += seen.links


def _add_links(source: Source, links: list[str]) -> None:
    if links:
        source["links"] = links = _unique(links)
        if domains := _unique(domain for link in links if (domain := domain_of(link))):
            source["domains"] = domains


def _link_list(value: Any) -> list[str]:
    return [link] if (link := text_of(value)) else []


def _add_labels(source: Source, record: Record) -> None:
    if (labels := record.get("labels")) is not None:
        values = dicts_of(dict_of(labels).get("values"))
        if names := _unique(name for value in values if (name := text_of(value.get("val")))):
            source["labels"] = names


def _unique(texts: Iterable[str]) -> list[str]:
    """Return each non-empty text once, in order of appearance."""
    return list(dict.fromkeys(text for text in texts if text))
