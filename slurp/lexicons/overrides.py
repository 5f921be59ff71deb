"""What we decided by hand about properties of public lexicons, each with its reason.

Keys are definitions, so a decision holds wherever the definition is used. The build
fails when one of them names nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping

from slurp.lexicons.nodes import EVERYTHING_ELSE

LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "app.bsky.feed.post#main": {
        "entities": "deprecated, replaced by facets",
    },
    "app.bsky.richtext.facet#main": {
        "index": "byte positions inside the text answer no search",
    },
    "com.atproto.lexicon.schema#main": {
        EVERYTHING_ELSE: "a published lexicon, whose language has no lexicon of its own",
    },
}

# Strings that the lexicon leaves free and that are words of a vocabulary: keyword, not text.
KEYWORDS: Mapping[str, frozenset[str]] = {
    "com.atproto.label.defs#labelValueDefinition": frozenset({"identifier"}),
    "com.atproto.label.defs#selfLabel": frozenset({"val"}),
    "com.germnetwork.declaration#main": frozenset({"version"}),
}

# Where the committed mapping shows the shape of a definition that third-party lexicons
# refer to without carrying it along: definition → record type and path of a use.
SEEN_AT: Mapping[str, tuple[str, str]] = {
    "app.bsky.embed.defs#aspectRatio": ("app.bsky.feed.post", "embed.images.aspectRatio"),
    "app.bsky.richtext.facet#main": ("app.bsky.feed.post", "facets"),
    "com.atproto.label.defs#selfLabels": ("app.bsky.feed.post", "labels"),
    "com.atproto.repo.strongRef#main": ("app.bsky.feed.like", "subject"),
}
