"""The fields that mean the same in every collection, lifted from a record to the top of its document.

One extractor for each record type; whoever looks for a field finds its description in `fields.py`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from slurp.documents.embeds import Embed
from slurp.documents.graphemes import emoji, graphemes
from slurp.documents.languages import normalised, primary
from slurp.documents.record_values import dict_of, dicts_of, text_of, texts_of
from slurp.documents.times import created_at
from slurp.documents.urls import PLACES, at_uri, domain_of, is_did, page_in, page_of

Source = dict[str, Any]
Record = dict[str, Any]
Extractor = Callable[[Source, Record], None]

# In characters. Bluesky's lexicon allows 640 bytes a tag and 64 graphemes.
_REMEMBERED_LENGTH = 256


def lift(source: Source, collection: str, record: Record) -> None:
    """Add to `source`, which has its envelope, the common fields of a `record` in `collection`."""
    claimed = record.get("createdAt")
    if claimed is None:
        claimed = record.get("publishedAt")
    if claimed is not None and (moment := created_at(claimed, source["@timestamp"])):
        source["created_at"] = moment
    if collection in PLACES and (url := page_of(source["uri"])):
        source["url"] = url
    _EXTRACTORS.get(collection, _other)(source, record)


def _subject(source: Source, record: Record) -> None:
    """`subject`, be it a DID, an `at://` URI or a reference with uri and cid; and `via`."""
    _point(source, "subject", record.get("subject"), whole=True)
    if (via := record.get("via")) is not None:
        _point(source, "via", via)


def _post(source: Source, record: Record) -> None:
    if text := text_of(record.get("text")):
        source["text"] = text
        source["length"] = {"graphemes": graphemes(text)}
        if found := emoji(text):
            source["emoji"] = found
    _languages(source, record)
    if reply := dict_of(record.get("reply")):
        ends: Source = {}
        for end in ("root", "parent"):
            _point(ends, end, reply.get(end))
        if url := page_of(ends.get("parent", {}).get("uri", "")):
            ends["parent"]["url"] = url
        if ends:
            source["reply"] = ends
    links: list[str] = []
    _facets(source, record.get("facets"), record.get("tags"), links)
    _embed(source, record, links)
    _links(source, links)
    _labels(source, record)


def _profile(source: Source, record: Record) -> None:
    _named(source, record, "displayName")
    _links(source, _web(record.get("website")))
    _labels(source, record)


def _feed(source: Source, record: Record) -> None:
    _described(source, record, "displayName")


def _list(source: Source, record: Record) -> None:
    _described(source, record, "name")


def _starter_pack(source: Source, record: Record) -> None:
    _described(source, record, "name")
    _point(source, "list", record.get("list"))


def _list_item(source: Source, record: Record) -> None:
    _point(source, "subject", record.get("subject"), whole=True)
    _point(source, "list", record.get("list"))


def _gate(source: Source, record: Record) -> None:
    _point(source, "subject", record.get("post"), whole=True)


def _verification(source: Source, record: Record) -> None:
    _subject(source, record)
    _named(source, record, "displayName")


def _live_status(source: Source, record: Record) -> None:
    links: list[str] = []
    _embed(source, record, links)
    _links(source, links)


def _labeler(source: Source, record: Record) -> None:
    _labels(source, record)


def _document(source: Source, record: Record) -> None:
    _named(source, record, "title")
    if text := text_of(record.get("textContent")):
        source["text"] = text
        source["length"] = {"graphemes": graphemes(text)}
        if found := emoji(text):
            source["emoji"] = found
    _tags(source, texts_of(record.get("tags")))
    _labels(source, record)


def _recommend(source: Source, record: Record) -> None:
    _point(source, "subject", record.get("document"), whole=True)


def _subscription(source: Source, record: Record) -> None:
    _point(source, "subject", record.get("publication"), whole=True)


def _publication(source: Source, record: Record) -> None:
    _named(source, record, "name")
    _links(source, _web(record.get("url")))
    _labels(source, record)


def _other(source: Source, record: Record) -> None:
    """Any lexicon may have a subject, in the same three forms; `via` may be anything."""
    _point(source, "subject", record.get("subject"), whole=True)


_EXTRACTORS: dict[str, Extractor] = {
    "app.bsky.actor.profile": _profile,
    "app.bsky.actor.status": _live_status,
    "app.bsky.feed.generator": _feed,
    "app.bsky.feed.like": _subject,
    "app.bsky.feed.post": _post,
    "app.bsky.feed.postgate": _gate,
    "app.bsky.feed.repost": _subject,
    "app.bsky.feed.threadgate": _gate,
    "app.bsky.graph.block": _subject,
    "app.bsky.graph.follow": _subject,
    "app.bsky.graph.list": _list,
    "app.bsky.graph.listblock": _subject,
    "app.bsky.graph.listitem": _list_item,
    "app.bsky.graph.starterpack": _starter_pack,
    "app.bsky.graph.verification": _verification,
    "app.bsky.labeler.service": _labeler,
    "site.standard.document": _document,
    "site.standard.graph.recommend": _recommend,
    "site.standard.graph.subscription": _subscription,
    "site.standard.publication": _publication,
}


def _point(source: Source, field: str, target: Any, *, whole: bool = False) -> None:
    """What a record points at: `field` gets uri and did; the `whole` of it, url, collection and cid too."""
    cid = None
    if type(target) is dict:
        cid = target.get("cid")
        target = target.get("uri")
    if type(target) is not str:
        return
    if is_did(target):
        source[field] = {"did": target}
    elif (parts := at_uri(target)) is not None:
        source[field] = pointed = {"uri": target}
        if is_did(parts[2]):
            pointed["did"] = parts[2]
        if whole:
            if url := page_in(parts):
                pointed["url"] = url
            if len(parts) > 3 and parts[3]:
                pointed["collection"] = parts[3]
            if type(cid) is str:
                pointed["cid"] = cid


def _named(source: Source, record: Record, name: str) -> None:
    if text := text_of(record.get(name)):
        source["name"] = text
    if text := text_of(record.get("description")):
        source["description"] = text


def _described(source: Source, record: Record, name: str) -> None:
    """Lists, feeds and starter packs: a name, and a description with facets."""
    _named(source, record, name)
    links: list[str] = []
    _facets(source, record.get("descriptionFacets"), None, links)
    _links(source, links)
    _labels(source, record)


def _languages(source: Source, record: Record) -> None:
    langs = [tag for text in texts_of(record.get("langs")) if (tag := normalised(text))]
    if langs:
        source["langs"] = langs = _once(langs)
        source["lang"] = _once(map(primary, langs))


def _facets(source: Source, facets: Any, more_tags: Any, links: list[str]) -> None:
    """Tags and mentions go to `source`, links to `links`."""
    tags: list[str] = []
    mentions: list[str] = []
    for facet in dicts_of(facets):
        for feature in dicts_of(facet.get("features")):
            # By what they have and not by `$type`, which some clients leave out.
            if tag := text_of(feature.get("tag")):
                tags.append(tag)
            elif did := text_of(feature.get("did")):
                mentions.append(did)
            elif uri := text_of(feature.get("uri")):
                links.append(uri)
    if mentions:
        source["mentions"] = _once(mentions)
    if more_tags is not None:
        tags.extend(texts_of(more_tags))
    if tags:
        _tags(source, tags)


def _tags(source: Source, tags: Iterable[str]) -> None:
    if bare := _once(tag.lstrip("#＃") for tag in tags):
        source["tags"] = bare
        source["tags_folded"] = _once(map(folded, bare))


def folded(tag: str) -> str:
    """One spelling of `Caturday`, `caturday` and full-width letters."""
    # The cache keeps what it is given; a tag that comes twice is short.
    return _remembered(tag) if len(tag) <= _REMEMBERED_LENGTH else _fold(tag)


def _fold(tag: str) -> str:
    return tag.lower() if tag.isascii() else unicodedata.normalize("NFKC", tag).casefold()


_remembered = lru_cache(maxsize=16_384)(_fold)


def _embed(source: Source, record: Record, links: list[str]) -> None:
    if not (embed := dict_of(record.get("embed"))):
        return
    seen = Embed()
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


def _links(source: Source, links: list[str]) -> None:
    if links:
        source["links"] = links = _once(links)
        if domains := _once(domain for link in links if (domain := domain_of(link))):
            source["domains"] = domains


def _web(value: Any) -> list[str]:
    return [link] if (link := text_of(value)) else []


def _labels(source: Source, record: Record) -> None:
    if (labels := record.get("labels")) is not None:
        values = dicts_of(dict_of(labels).get("values"))
        if names := _once(name for value in values if (name := text_of(value.get("val")))):
            source["labels"] = names


def _once(texts: Iterable[str]) -> list[str]:
    """Each non-empty text once, in order of appearance."""
    return list(dict.fromkeys(text for text in texts if text))
