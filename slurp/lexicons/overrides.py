"""Manual decisions about properties of public lexicons, each with its reason.

Keys are definitions: a decision applies wherever the definition is used. The build fails if one refers to a
property that no longer exists.
"""

from __future__ import annotations

from collections.abc import Mapping

from slurp.lexicons.nodes import EVERYTHING_ELSE

LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "app.bsky.feed.post#main": {
        "entities": "deprecated, replaced by facets",
    },
    "app.bsky.richtext.facet#main": {
        "index": "byte positions are of no use in a search",
    },
    "com.atproto.lexicon.schema#main": {
        EVERYTHING_ELSE: "published lexicon; the schema language has no lexicon",
    },
}

_CREATED: Mapping[str, str] = {"createdAt": "created_at"}
_LABELS: Mapping[str, str] = {"labels.values.val": "labels"}
_NAMED: Mapping[str, str] = {"displayName": "name", "description": "description"}
_LINK_CARD: Mapping[str, str] = {
    "external.uri": "links",
    "external.title": "external.title",
    "external.description": "external.description",
}
_MEDIA: Mapping[str, str] = {"alt": "alt", "images.alt": "alt", "items.alt": "alt", **_LINK_CARD}
_FACETS: Mapping[str, str] = {
    "features.did": "mentions",
    "features.tag": "tags",
    "features.uri": "links",
}


def _below(prefix: str, paths: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}.{path}": field for path, field in paths.items()}


_LISTING: Mapping[str, str] = {**_CREATED, **_LABELS, **_below("descriptionFacets", _FACETS)}
_SUBJECT: Mapping[str, str] = {**_CREATED, "subject": "subject.did"}
_REFERENCE: Mapping[str, str] = {**_CREATED, "subject.uri": "subject.uri", "via.uri": "via.uri"}

# Fields of a record whose values a common field has as well: record type → path → common field. They are not
# mapped, because a value that is indexed twice costs twice. `slurp.documents.common_fields` fills the fields.
# Two rare record types keep theirs, see EXAMPLE_USES.
COMMON_FIELDS: Mapping[str, Mapping[str, str]] = {
    "app.bsky.actor.profile": {**_CREATED, **_LABELS, **_NAMED, "website": "links"},
    "app.bsky.actor.status": {**_CREATED, **_below("embed", _LINK_CARD)},
    "app.bsky.feed.generator": {**_LISTING, **_NAMED},
    "app.bsky.feed.like": _REFERENCE,
    "app.bsky.feed.post": {
        **_CREATED,
        **_LABELS,
        "text": "text",
        "langs": "langs",
        "tags": "tags",
        "reply.root.uri": "reply.root.uri",
        "reply.parent.uri": "reply.parent.uri",
        **_below("facets", _FACETS),
        **_below("embed", _MEDIA),
        **_below("embed.media", _MEDIA),
    },
    "app.bsky.feed.postgate": {**_CREATED, "post": "subject.uri"},
    "app.bsky.feed.repost": _REFERENCE,
    "app.bsky.feed.threadgate": {**_CREATED, "post": "subject.uri"},
    "app.bsky.graph.block": _SUBJECT,
    "app.bsky.graph.follow": {**_SUBJECT, "via.uri": "via.uri"},
    "app.bsky.graph.list": {**_LISTING, "name": "name", "description": "description"},
    "app.bsky.graph.listblock": {**_CREATED, "subject": "subject.uri"},
    "app.bsky.graph.listitem": {**_SUBJECT, "list": "list.uri"},
    "app.bsky.graph.starterpack": {
        **_CREATED,
        "name": "name",
        "description": "description",
        "list": "list.uri",
    },
    "app.bsky.graph.verification": {**_SUBJECT, "displayName": "name"},
    "app.bsky.labeler.service": _CREATED,
    "site.standard.document": {
        **_LABELS,
        "publishedAt": "created_at",
        "title": "name",
        "description": "description",
        "textContent": "text",
        "tags": "tags",
    },
    "site.standard.graph.recommend": {**_CREATED, "document": "subject.uri"},
    "site.standard.graph.subscription": {**_CREATED, "publication": "subject.uri"},
    "site.standard.publication": {
        **_LABELS,
        "name": "name",
        "description": "description",
        "url": "links",
    },
}

# Strings without a declared vocabulary that are in fact words of one: keyword instead of text.
KEYWORDS: Mapping[str, frozenset[str]] = {
    "com.atproto.label.defs#labelValueDefinition": frozenset({"identifier"}),
    "com.atproto.label.defs#selfLabel": frozenset({"val"}),
    "com.germnetwork.declaration#main": frozenset({"version"}),
}

# Uses in the committed mapping from which the shape of a definition is known that third-party lexicons refer
# to but do not include: definition → record type and path of the use.
EXAMPLE_USES: Mapping[str, tuple[str, str]] = {
    "app.bsky.embed.defs#aspectRatio": ("app.bsky.feed.post", "embed.images.aspectRatio"),
    "app.bsky.richtext.facet#main": ("app.bsky.graph.starterpack", "descriptionFacets"),
    "com.atproto.label.defs#selfLabels": ("app.bsky.labeler.service", "labels"),
    "com.atproto.repo.strongRef#main": ("app.bsky.actor.profile", "pinnedPost"),
}
