"""The data views: which indices, and how people should see their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slurp.kibana.panels import View

Json = dict[str, Any]

_PROFILE: Json = {
    "id": "url",
    "params": {
        "type": "a",
        "urlTemplate": "https://bsky.app/profile/{{value}}",
        "labelTemplate": "{{value}}",
        "openLinkInCurrentTab": False,
    },
}
_PAGE: Json = {
    "id": "url",
    "params": {
        "type": "a",
        "urlTemplate": "{{rawValue}}",
        "labelTemplate": "{{value}}",
        "openLinkInCurrentTab": False,
    },
}
_TAG: Json = {
    "id": "url",
    "params": {
        "type": "a",
        "urlTemplate": "https://bsky.app/hashtag/{{value}}",
        "labelTemplate": "{{value}}",
        "openLinkInCurrentTab": False,
    },
}


def _milliseconds(precision: int = 1) -> Json:
    return {
        "id": "duration",
        "params": {
            "inputFormat": "milliseconds",
            "outputFormat": "humanizePrecise",
            "outputPrecision": precision,
            "showSuffix": True,
            "useShortSuffix": True,
            "includeSpaceWithSuffix": True,
        },
    }


@dataclass(frozen=True)
class DataView:
    view: View
    name: str
    time_field: str
    labels: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, Json] = field(default_factory=dict)


EVENTS = DataView(
    View.EVENTS,
    "Bluesky events",
    "@timestamp",
    labels={
        "@timestamp": "Time",
        "account.active": "Account can be seen",
        "account.status": "Account status",
        "alt": "Descriptions of media",
        "commit.collection": "Collection",
        "commit.operation": "Operation",
        "commit.rkey": "Record key",
        "created_at": "Created, says the record",
        "did": "Account (DID)",
        "domains": "Linked sites",
        "emoji": "Emoji",
        "event.hour": "Hour (UTC)",
        "event.ingested": "Came here",
        "event.lag_ms": "Lag",
        "event.weekday": "Weekday (UTC)",
        "identity.handle": "Handle",
        "jetstream.host": "Jetstream server",
        "kind": "Kind",
        "labels": "Labels by the author",
        "lang": "Language",
        "length.graphemes": "Length in characters",
        "links": "Links",
        "list.uri": "List",
        "media.kinds": "Media",
        "mentions": "Mentioned (DID)",
        "name": "Name",
        "quarantine.error": "Why it was refused",
        "quote.did": "Quoted (DID)",
        "quote.url": "Quoted post",
        "reply.parent.did": "Answered (DID)",
        "reply.parent.url": "Answered post",
        "reply.root.uri": "Thread",
        "subject.collection": "What it is about: collection",
        "subject.did": "Whom it is about (DID)",
        "subject.url": "What it is about",
        "tags": "Tags",
        "tags_folded": "Tags, folded",
        "text": "Text",
        "uri": "Record (at-uri)",
        "url": "Page",
        "via.uri": "Came through",
    },
    formats={
        **dict.fromkeys(
            (
                "did",
                "mentions",
                "subject.did",
                "reply.root.did",
                "reply.parent.did",
                "quote.did",
                "via.did",
                "list.did",
            ),
            _PROFILE,
        ),
        **dict.fromkeys(("url", "subject.url", "reply.parent.url", "quote.url", "links"), _PAGE),
        "tags_folded": _TAG,
        "event.lag_ms": _milliseconds(),
    },
)

STATS = DataView(
    View.STATS,
    "Slurper statistics",
    "@timestamp",
    labels={
        "@timestamp": "Time",
        "dead_lettered": "Dead letters",
        "dropped": "Dropped by a pipeline",
        "expired": "Expired",
        "in_flight": "In flight",
        "index": "Index",
        "lag_ms": "Lag",
        "queue": "Batches in the queue",
        "rate_in": "Events a second in",
        "rate_out": "Events a second out",
        "run": "Run",
        "worker": "Worker",
    },
    formats={"lag_ms": _milliseconds(), "interval_ms": _milliseconds(0)},
)

DRIFT = DataView(
    View.DRIFT,
    "Slurper drift",
    "last_seen",
    labels={
        "collection": "Collection",
        "count": "Events",
        "example_uri": "Example",
        "field": "Field",
        "first_seen": "First seen",
        "kind": "New",
        "last_seen": "Last seen",
    },
)

DATA_VIEWS = (EVENTS, STATS, DRIFT)
