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
    "app.bsky.richtext.facet#main": ("app.bsky.feed.post", "facets"),
    "com.atproto.label.defs#selfLabels": ("app.bsky.feed.post", "labels"),
    "com.atproto.repo.strongRef#main": ("app.bsky.feed.like", "subject"),
}
