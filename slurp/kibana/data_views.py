"""The data views: index patterns, labels and formats of fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slurp.documents.urls import PAGE_PATHS
from slurp.kibana.panels import View

Json = dict[str, Any]

_PROFILE: Json = {
    "id": "url",
    "params": {
        "type": "a",
        "urlTemplate": "https://bsky.app/profile/{{rawValue}}",
        "labelTemplate": "{{value}}",
        "openLinkInCurrentTab": False,
    },
}
# Where the address is the text: a page that a post links to.
_LINK: Json = {
    "id": "url",
    "params": {
        "type": "a",
        "urlTemplate": "{{rawValue}}",
        "labelTemplate": "{{value}}",
        "openLinkInCurrentTab": False,
    },
}
# Where another column says what the page is.
_PAGE: Json = {"id": "url", "params": {**_LINK["params"], "labelTemplate": "Open"}}
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


# Painless. The path segments of bsky.app are those of `slurp.documents.urls.PAGE_PATHS`.
_PAGE_SCRIPT = """\
{uri}
if (uri != null) {{
  String[] parts = uri.splitOnToken('/');
  if (parts.length == 5) {{
    Map places = [{places}];
    String place = places.get(parts[3]);
    if (place != null) {{
      emit('https://bsky.app/profile/' + parts[2] + '/' + place + '/' + parts[4]);
    }}
  }}
}}
"""


def _page_of(uri: str) -> str:
    """Return a script that emits the page on bsky.app of the record in the field `uri`."""
    places = ", ".join(f"'{collection}': '{place}'" for collection, place in PAGE_PATHS.items())
    return _PAGE_SCRIPT.format(uri=uri, places=places)


def _doc_value(field: str) -> str:
    return (
        f"String uri = doc.containsKey('{field}') && doc['{field}'].size() > 0 ? doc['{field}'].value : null;"
    )


@dataclass(frozen=True)
class DataView:
    """A data view; `labels`, `formats` and the scripts of runtime fields are by field."""

    view: View
    name: str
    time_field: str
    labels: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, Json] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)


EVENTS = DataView(
    View.EVENTS,
    "Bluesky events",
    "@timestamp",
    labels={
        "@timestamp": "Time",
        "account.active": "Account active",
        "account.status": "Account status",
        "alt": "Alt text",
        "at_uri": "Record (at-uri), for tables",
        "commit.collection": "Collection",
        "commit.operation": "Operation",
        "created_at": "Created at (by the client)",
        "did": "Account (DID)",
        "domains": "Linked domains",
        "emoji": "Emoji",
        "event.hour": "Hour (UTC)",
        "event.ingested": "Received at",
        "event.lag_ms": "Lag",
        "event.weekday": "Weekday (UTC)",
        "identity.handle": "Handle",
        "jetstream.host": "Jetstream server",
        "kind": "Kind",
        "labels": "Self-labels",
        "lang": "Language",
        "length.graphemes": "Length (graphemes)",
        "links": "Links",
        "list.uri": "List",
        "media.kinds": "Media",
        "mentions": "Mentioned (DID)",
        "name": "Name",
        "quarantine.error": "Quarantine reason",
        "quote.did": "Quoted (DID)",
        "quote.url": "Quoted post",
        "reply.parent.did": "Parent author (DID)",
        "reply.parent.url": "Parent post",
        "reply.root.uri": "Thread root",
        "subject.collection": "Subject collection",
        "subject.did": "Subject account (DID)",
        "subject.url": "Subject page",
        "tags": "Hashtags",
        "tags_folded": "Hashtags (case-folded)",
        "text": "Text",
        "uri": "Record (at-uri)",
        "url": "Page on bsky.app",
        "via.uri": "Via (at-uri)",
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
        **dict.fromkeys(("url", "subject.url", "reply.parent.url", "quote.url"), _PAGE),
        "links": _LINK,
        "tags_folded": _TAG,
        "event.lag_ms": _milliseconds(),
    },
    scripts={
        # `uri` has no doc values: it is different in each document.
        "url": _page_of("String uri = params._source.uri;"),
        "at_uri": "if (params._source.uri != null) { emit(params._source.uri); }",
        **{f"{of}.url": _page_of(_doc_value(f"{of}.uri")) for of in ("subject", "reply.parent", "quote")},
    },
)

STATS = DataView(
    View.STATS,
    "Skeetslurper statistics",
    "@timestamp",
    labels={
        "@timestamp": "Time",
        "dead_lettered": "Dead letters",
        "deletions_oldest_ms": "Longest wait of a deletion",
        "dropped": "Dropped by an ingest pipeline",
        "expired": "Expired",
        "in_flight": "In flight",
        "index": "Index",
        "lag_ms": "Lag",
        "queue": "Batches in the queue",
        "rate_in": "Received events per second",
        "rate_out": "Acknowledged events per second",
        "run": "Run",
        "worker": "Worker",
    },
    formats={
        "lag_ms": _milliseconds(),
        "deletions_oldest_ms": _milliseconds(),
        "interval_ms": _milliseconds(0),
    },
)

DRIFT = DataView(
    View.DRIFT,
    "Skeetslurper unknown fields",
    "last_seen",
    labels={
        "collection": "Collection",
        "count": "Events",
        "example_uri": "Example",
        "field": "Field",
        "first_seen": "First seen",
        "kind": "Kind",
        "last_seen": "Last seen",
    },
)

TRENDS = DataView(
    View.TRENDS,
    "Skeetslurper trends",
    "@timestamp",
    labels={
        "@timestamp": "Start of the hour or day",
        "author": "Account",
        "count": "Count",
        "did": "Account (DID)",
        "display_name": "Name",
        "handle": "Handle",
        "interval": "Interval",
        "key": "Key",
        "measure": "Measure",
        "middle": "Middle of the hour or day",
        "people": "Accounts",
        "rank": "Rank",
        "text": "Text",
        "url": "Page",
    },
    formats={"did": _PROFILE, "handle": _PROFILE, "url": _PAGE},
)

ACTORS = DataView(
    View.ACTORS,
    "Skeetslurper accounts",
    "resolved_at",
    labels={
        "created_at": "Created at",
        "description": "Description",
        "did": "Account (DID)",
        "display_name": "Name",
        "followers": "Followers",
        "handle": "Handle",
        "resolved_at": "Looked up at",
    },
    formats={"did": _PROFILE, "handle": _PROFILE},
)

DATA_VIEWS = (EVENTS, STATS, DRIFT, TRENDS, ACTORS)
