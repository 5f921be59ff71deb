"""What is counted for each hour and day, and how: the queries and aggregations. Pure functions.

Counts of activity (events, collections) include everything that happened. All others count what exists:
records that are neither redacted nor hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from slurp.documents.existing import EXISTING

Json = dict[str, Any]

TOP = 100
# Values ordered by people: this many of the most frequent ones are compared.
_CANDIDATES = 500
_PEOPLE_PRECISION = 3000
_TOTAL_PRECISION = 40_000

_POST = "app.bsky.feed.post"
_LIKE = "app.bsky.feed.like"
_REPOST = "app.bsky.feed.repost"
_FOLLOW = "app.bsky.graph.follow"
_BLOCK = "app.bsky.graph.block"
_PROFILE = "app.bsky.actor.profile"
# Applications of Bluesky itself.
_FIRST_PARTY = "app\\.bsky\\..*|chat\\.bsky\\..*|com\\.atproto\\..*"


class Kind(Enum):
    """What the keys of a measure are."""

    POST = "post"
    """The URI of a post."""
    PERSON = "person"
    """A DID."""
    VALUE = "value"


@dataclass(frozen=True)
class Measure:
    """A list of the most frequent values of a field.

    Attributes:
        name: its name in `skeetslurper-trends`.
        conditions: the queries of the counted events.
        field: the field with the values.
        by_people: whether values are ordered by the number of accounts, and not of events.
    """

    name: str
    kind: Kind
    conditions: tuple[Mapping[str, Any], ...]
    field: str
    by_people: bool = False

    def aggregation(self, *, is_long: bool) -> Json:
        """Return the aggregation of an hour, or of a longer time (`is_long`)."""
        terms: Json = {
            "field": self.field,
            "size": _CANDIDATES if self.by_people else TOP,
            "shard_size": 2 * _CANDIDATES,
            "collect_mode": "breadth_first",
            # The values of an hour are few beside those of its day, of which ordinals would be built. But a
            # map of all values of a day needs more memory than the ordinals.
            "execution_hint": "global_ordinals" if is_long else "map",
        }
        values: Json = {"terms": terms}
        if self.by_people:
            values["aggs"] = {"people": _people(_PEOPLE_PRECISION, execution_hint="direct")}
        return {"values": values}


@dataclass(frozen=True)
class Count:
    """How often a value occurs; `people` is the number of accounts, where a measure is ordered by it."""

    key: str
    count: int
    people: int | None = None


def _term(field: str, value: Any) -> Json:
    return {"term": {field: value}}


def _in(collection: str) -> Json:
    return _term("commit.collection", collection)


def _not(*conditions: Mapping[str, Any]) -> Json:
    return {"bool": {"must_not": list(conditions)}}


def _has(field: str) -> Json:
    return {"exists": {"field": field}}


# Records that a server announced again say nothing about the time of their announcement.
_LIVE = _not(_term("commit.resync", True), _term("commit.bootstrap", True))
# An update redacts the earlier versions of its record.
_EXISTS = (EXISTING, _LIVE, _not(_term("commit.operation", "delete")))
_POSTS = (_in(_POST), *_EXISTS)
_LIKES = (_in(_LIKE), *_EXISTS)
_OF_POSTS = _term("subject.collection", _POST)

MEASURES = (
    Measure("posts_by_likes", Kind.POST, (*_LIKES, _OF_POSTS), "subject.uri"),
    Measure("posts_by_reposts", Kind.POST, (_in(_REPOST), *_EXISTS, _OF_POSTS), "subject.uri"),
    Measure("posts_by_quotes", Kind.POST, (*_POSTS, _has("quote.uri")), "quote.uri"),
    Measure("posts_by_replies", Kind.POST, (*_POSTS, _has("reply.parent.uri")), "reply.parent.uri"),
    Measure("people_by_likes", Kind.PERSON, _LIKES, "subject.did"),
    Measure("people_by_followers", Kind.PERSON, (_in(_FOLLOW), *_EXISTS), "subject.did"),
    Measure("people_by_mentions", Kind.PERSON, _POSTS, "mentions"),
    Measure("people_by_posts", Kind.PERSON, _POSTS, "did"),
    Measure("tags", Kind.VALUE, _POSTS, "tags_folded", by_people=True),
    Measure("sites", Kind.VALUE, _POSTS, "domains", by_people=True),
    Measure("links", Kind.VALUE, _POSTS, "links", by_people=True),
    Measure("languages", Kind.VALUE, _POSTS, "lang"),
    Measure("emoji", Kind.VALUE, _POSTS, "emoji"),
    Measure("media", Kind.VALUE, _POSTS, "media.kinds"),
)
TOTALS = "totals"
COLLECTIONS = "collections"
APPS = "apps"
NAMES = (*(measure.name for measure in MEASURES), TOTALS, COLLECTIONS, APPS)


def query(start: str, end: str, *conditions: Mapping[str, Any]) -> Json:
    """Return the query for the events from `start` until before `end` (ISO 8601) that meet all conditions."""
    return {"bool": {"filter": [{"range": {"@timestamp": {"gte": start, "lt": end}}}, *conditions]}}


def totals_aggregation() -> Json:
    """Return the aggregation of the numbers of what happened and of what exists."""
    return {
        "counts": {"filters": {"filters": dict(_totals())}},
        "active_people": {
            "filter": _term("kind", "commit"),
            "aggs": {"people": _people(_TOTAL_PRECISION)},
        },
        "authors": {"filter": _all(*_POSTS), "aggs": {"people": _people(_TOTAL_PRECISION)}},
    }


def totals_in(response: Mapping[str, Any]) -> list[Count]:
    """Return the totals in the response to `totals_aggregation`."""
    found = response["aggregations"]
    counts = [Count(name, bucket["doc_count"]) for name, bucket in found["counts"]["buckets"].items()]
    return counts + [Count(name, found[name]["people"]["value"]) for name in ("active_people", "authors")]


def collections_aggregation() -> Json:
    """Return the aggregation of the numbers of events by collection and operation."""
    operations = {"terms": {"field": "commit.operation", "size": 10}}
    return {
        "collections": {
            "terms": {"field": "commit.collection", "size": TOP, "execution_hint": "map"},
            "aggs": {"operations": operations},
        },
        # Of other applications, to be grouped by the owner of their names.
        "others": {
            "terms": {
                "field": "commit.collection",
                "size": 10 * TOP,
                "exclude": _FIRST_PARTY,
                "execution_hint": "map",
            }
        },
    }


def collections_in(response: Mapping[str, Any]) -> list[Count]:
    """Return the counts by collection and operation; the key has both."""
    return [
        Count(f"{bucket['key']} {operation['key']}", operation["doc_count"])
        for bucket in response["aggregations"]["collections"]["buckets"]
        for operation in bucket["operations"]["buckets"]
    ]


def apps_in(response: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the collections of other applications by the domain that owns their names."""
    apps: dict[str, list[str]] = {}
    for bucket in response["aggregations"]["others"]["buckets"]:
        if len(parts := bucket["key"].split(".")) >= 3:
            apps.setdefault(f"{parts[1]}.{parts[0]}", []).append(bucket["key"])
    return dict(list(apps.items())[:TOP])


def apps_aggregation(apps: Mapping[str, list[str]]) -> Json:
    """Return the aggregation of the numbers of events and accounts of applications."""
    filters = {app: {"terms": {"commit.collection": names}} for app, names in apps.items()}
    return {"apps": {"filters": {"filters": filters}, "aggs": {"people": _people(_PEOPLE_PRECISION)}}}


def apps_counts_in(response: Mapping[str, Any]) -> list[Count]:
    """Return the counts of applications, those with the most accounts first."""
    buckets = response["aggregations"]["apps"]["buckets"]
    counts = (Count(app, bucket["doc_count"], bucket["people"]["value"]) for app, bucket in buckets.items())
    return _ordered(counts)


def counts_in(measure: Measure, response: Mapping[str, Any]) -> list[Count]:
    """Return the counts of a measure in the response to its aggregation, the highest first."""
    buckets = response["aggregations"]["values"]["buckets"]
    if measure.kind is Kind.POST:  # lists and feeds are quoted as well
        buckets = [bucket for bucket in buckets if f"/{_POST}/" in str(bucket["key"])]
    if not measure.by_people:
        return [Count(str(bucket["key"]), bucket["doc_count"]) for bucket in buckets]
    counts = (Count(str(one["key"]), one["doc_count"], one["people"]["value"]) for one in buckets)
    return _ordered(counts)[:TOP]


def _ordered(counts: Iterator[Count]) -> list[Count]:
    return sorted(counts, key=lambda one: (-(one.people or 0), -one.count, one.key))


def _totals() -> Iterator[tuple[str, Json]]:
    yield "events", {"match_all": {}}
    yield "posts", _all(*_POSTS)
    yield "likes", _all(*_LIKES)
    yield "reposts", _all(_in(_REPOST), *_EXISTS)
    yield "follows", _all(_in(_FOLLOW), *_EXISTS)
    yield "unfollows", _all(_in(_FOLLOW), _term("commit.operation", "delete"))
    yield "blocks", _all(_in(_BLOCK), *_EXISTS)
    # The profile is the first record that the application creates.
    yield "new_accounts", _all(_in(_PROFILE), _term("commit.operation", "create"), _LIVE)
    yield "deleted_accounts", _all(_term("account.status", "deleted"), _term("account.active", False))


def _all(*conditions: Mapping[str, Any]) -> Json:
    return {"bool": {"filter": list(conditions)}}


def _people(precision: int, **options: str) -> Json:
    return {"cardinality": {"field": "did", "precision_threshold": precision, **options}}
