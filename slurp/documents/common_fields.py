"""Copy the fields that mean the same in every collection from a record to the top of its document.

There is one extractor for each record type, and a general rule for those of other applications; `fields.py`
describes the fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slurp.documents.other_records import add_by_general_rule, text_in
from slurp.documents.record_parts import (
    Record,
    Source,
    add_embed,
    add_facets,
    add_labels,
    add_languages,
    add_links,
    add_name_and_description,
    add_reference,
    add_tags,
    add_tags_in_text,
    add_text,
    facets_of_entities,
)
from slurp.documents.record_values import dict_of, dicts_of, text_of, text_of_html, texts_of, visible_of
from slurp.documents.spellings import add_spellings
from slurp.documents.times import parse_created_at
from slurp.lexicons import committed

Extractor = Callable[[Source, Record], None]

# Known record types. Those without an extractor have no text that people search for.
_OWN_TYPES = frozenset(committed().record_types)


def add_common_fields(source: Source, collection: str, record: Record) -> None:
    """Add the common fields of a `record` in `collection` to `source`, which has its envelope."""
    for name in ("createdAt", "publishedAt"):
        if (claimed := record.get(name)) is not None and (
            moment := parse_created_at(claimed, source["@timestamp"])
        ):
            source["created_at"] = moment
            break
    if (extractor := _EXTRACTORS.get(collection)) is not None:
        extractor(source, record)
    elif collection in _OWN_TYPES:
        add_reference(source, "subject", record.get("subject"), whole=True)
    else:
        add_by_general_rule(source, record)
    if "text" in source:
        add_tags_in_text(source)
    add_spellings(source)


def _add_subject(source: Source, record: Record) -> None:
    """Add `subject` (a DID, an `at://` URI or a reference with uri and cid) and `via`."""
    add_reference(source, "subject", record.get("subject"), whole=True)
    if (via := record.get("via")) is not None:
        add_reference(source, "via", via)


def _add_post(source: Source, record: Record) -> None:
    text = text_of(record.get("text"))
    # A bridge from another network shortens long texts and keeps the original.
    if original := text_of(record.get("bridgyOriginalText")):
        text = max(text or "", text_of_html(original), key=len)
    add_text(source, text)
    add_languages(source, record.get("langs"))
    if reply := dict_of(record.get("reply")):
        ends: Source = {}
        for end in ("root", "parent"):
            add_reference(ends, end, reply.get(end))
        if ends:
            source["reply"] = ends
    links: list[str] = []
    facets = record.get("facets")
    if (entities := record.get("entities")) is not None:
        facets = [*dicts_of(facets), *facets_of_entities(entities)]
    add_facets(source, facets, record.get("tags"), links)
    add_embed(source, record, links)
    add_links(source, links)
    add_labels(source, record)


def _add_profile(source: Source, record: Record) -> None:
    add_name_and_description(source, record, "displayName")
    add_links(source, _link_list(record.get("website")))
    add_labels(source, record)


def _add_feed(source: Source, record: Record) -> None:
    _add_listing(source, record, "displayName")


def _add_list(source: Source, record: Record) -> None:
    _add_listing(source, record, "name")


def _add_starter_pack(source: Source, record: Record) -> None:
    _add_listing(source, record, "name")
    add_reference(source, "list", record.get("list"))


def _add_list_item(source: Source, record: Record) -> None:
    add_reference(source, "subject", record.get("subject"), whole=True)
    add_reference(source, "list", record.get("list"))


def _add_gate(source: Source, record: Record) -> None:
    add_reference(source, "subject", record.get("post"), whole=True)


def _add_verification(source: Source, record: Record) -> None:
    _add_subject(source, record)
    add_name_and_description(source, record, "displayName")


def _add_live_status(source: Source, record: Record) -> None:
    links: list[str] = []
    add_embed(source, record, links)
    add_links(source, links)


def _add_labeler(source: Source, record: Record) -> None:
    add_labels(source, record)


def _add_document(source: Source, record: Record) -> None:
    add_name_and_description(source, record, "title")
    text = visible_of(record.get("textContent"))
    add_text(source, text if text and not text.isspace() else text_in(record.get("content")))
    add_tags(source, texts_of(record.get("tags")))
    add_labels(source, record)


def _add_recommendation(source: Source, record: Record) -> None:
    add_reference(source, "subject", record.get("document"), whole=True)


def _add_subscription(source: Source, record: Record) -> None:
    add_reference(source, "subject", record.get("publication"), whole=True)


def _add_publication(source: Source, record: Record) -> None:
    add_name_and_description(source, record, "name")
    add_links(source, _link_list(record.get("url")))
    add_labels(source, record)


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


def _add_listing(source: Source, record: Record, name: str) -> None:
    """Add name, description with facets, and labels: for lists, feeds and starter packs."""
    add_name_and_description(source, record, name)
    links: list[str] = []
    add_facets(source, record.get("descriptionFacets"), None, links)
    add_links(source, links)
    add_labels(source, record)


def _link_list(value: Any) -> list[str]:
    return [link] if (link := text_of(value)) else []
