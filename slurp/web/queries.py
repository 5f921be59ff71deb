"""The queries of the page: few, short and bounded. Untrusted text is passed as values only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from elasticsearch import ApiError, AuthenticationException

from slurp.actors.wanted import WantedNames
from slurp.deletions.targets import inner
from slurp.documents.display import Link, clean_label, clean_text, safe_link
from slurp.documents.existing import EXISTING
from slurp.documents.record_parts import fold_tag
from slurp.documents.record_values import visible
from slurp.documents.spellings import without_marks
from slurp.documents.urls import page_url, profile_url
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.templates import ACTORS_INDEX, TRENDS_INDEX
from slurp.events.times import parse_time
from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.web.cache import Cache
from slurp.web.display_names import COLLECTIONS, LANGUAGES
from slurp.web.totals import Totals, totals
from slurp.web.totals import search_for as totals_search
from slurp.web.trending import Trending, author_name, search_for, trending

T = TypeVar("T")

WINDOW_MINUTES = 15
_POSTS = 12
# The maximum length of each search parameter, in characters.
MAX_LENGTH = 200

_POST, _LIKE, _REPOST = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost"
# Seconds for which results are cached.
_OVERVIEW_TTL, _POSTS_TTL, _TRENDING_TTL, _TOTALS_TTL = 10.0, 5.0, 10.0, 60.0
# The time-out of the search within Elasticsearch, and that of the whole request in seconds.
_SEARCH_TIMEOUT, _REQUEST_TIMEOUT = "2s", 4.0
# Concurrent queries, and the seconds that another one waits for a free slot.
_MAX_CONCURRENT, _SLOT_TIMEOUT = 2, 2.0
_FIELDS = [
    "did",
    "uri",
    "text",
    "langs",
    "tags",
    "links",
    "media",
    "reply.parent.uri",
    "event.ingested",
]
# The operators of the search box. Without prefixes and fuzziness, which may be expensive.
_FLAGS = "AND|OR|NOT|PHRASE|PRECEDENCE|WHITESPACE"


class Unavailable(NamedTuple):
    """The reason why a query has no result."""

    reason: str


@dataclass(frozen=True)
class TermCount:
    """One of the most frequent values of a field; `url` is the search for its posts, '' for none."""

    name: str
    count: int
    note: str = ""
    url: str = ""


@dataclass(frozen=True)
class Overview:
    """Counts of the last WINDOW_MINUTES; `complete` is False when the search timed out or a shard failed."""

    events: int
    collections: Sequence[TermCount] = ()
    languages: Sequence[TermCount] = ()
    tags: Sequence[TermCount] = ()
    domains: Sequence[TermCount] = ()
    complete: bool = True


@dataclass(frozen=True)
class Post:
    """A post, sanitized for display but not escaped for HTML.

    `age` is in seconds since the worker received the post, at `ingested_at` (ISO 8601).
    """

    text: str
    author: str
    author_url: str
    bsky_link: Link | None
    age: float
    ingested_at: str
    lang: str = ""
    language: str = ""
    tags: Sequence[TermCount] = ()
    links: Sequence[Link] = ()
    media: str = ""
    parent: Link | None = None
    counts: Sequence[TermCount] = ()
    """Likes, reposts and replies that are stored, without those that are 0."""


@dataclass(frozen=True)
class Posts:
    """Search results, newest first; `total` is a lower bound when `or_more` is True."""

    total: int
    or_more: bool
    posts: Sequence[Post] = ()
    complete: bool = True


@dataclass(frozen=True)
class SearchRequest:
    """The search parameters of the page; all empty for the latest posts."""

    query: str = ""
    tag: str = ""
    lang: str = ""
    domain: str = ""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> SearchRequest:
        """Build the request from URL parameters, each shortened to MAX_LENGTH."""
        values = (parameters.get(name, "").strip()[:MAX_LENGTH] for name in ("q", "tag", "lang", "domain"))
        # Lone surrogates cannot be encoded as UTF-8.
        return cls(*(value.encode("utf-8", "replace").decode() for value in values))

    def __bool__(self) -> bool:
        return bool(self.query or self.tag or self.lang or self.domain)


@dataclass
class PageQueries:
    """The queries of the page, with a cache. Failures of Elasticsearch are returned as Unavailable."""

    elastic: Elastic
    probe: ElasticProbe
    index: str
    scrub: Callable[[str], str]
    wanted: WantedNames = field(default_factory=WantedNames)
    """Accounts of which the names are to be looked up."""
    cache: Cache = field(default_factory=Cache)

    def __post_init__(self) -> None:
        self._slots = threading.Semaphore(_MAX_CONCURRENT)

    def overview(self) -> Overview | Unavailable:
        """Return the most frequent values of the last minutes."""
        return self.cache.get("overview", _OVERVIEW_TTL, lambda: self._run(self._overview))

    def trending(self) -> Trending | Unavailable:
        """Return the lists of the latest hour."""
        return self.cache.get("trending", _TRENDING_TTL, lambda: self._run(self._trending))

    def totals(self) -> Totals | Unavailable:
        """Return the numbers of the last hours and days."""
        return self.cache.get("totals", _TOTALS_TTL, lambda: self._run(self._totals))

    def posts(self, search: SearchRequest) -> Posts | Unavailable:
        """Return the newest posts that match the search."""
        return self.cache.get(search, _POSTS_TTL, lambda: self._run(lambda: self._posts(search)))

    def _run(self, query: Callable[[], T | Unavailable]) -> T | Unavailable:
        if (down := self.probe.down) is not None:
            return Unavailable(f"Elasticsearch is down: {down[1]}")
        if not self._slots.acquire(timeout=_SLOT_TIMEOUT):
            return Unavailable("too many concurrent searches; try again later")
        try:
            return query()
        except FAILURES as error:
            if isinstance(error, AuthenticationException):
                self.elastic.credentials_rejected()
            if isinstance(error, ApiError) and error.status_code == 403:
                return self._missing_privilege()
            return Unavailable(f"search failed: {clean_label(self.scrub(describe(error)), 300)}")
        finally:
            self._slots.release()

    def _overview(self) -> Overview | Unavailable:
        response = self._search(
            size=0,
            track_total_hits=True,
            query={"range": {"event.ingested": {"gte": f"now-{WINDOW_MINUTES}m"}}},
            aggs={
                "collections": {"terms": {"field": "commit.collection", "size": 8}},
                "posts": {
                    "filter": _existing_posts(),
                    "aggs": {
                        "languages": {"terms": {"field": "lang", "size": 8}},
                        "tags": {"terms": {"field": "tags_folded", "size": 10}},
                        "domains": {"terms": {"field": "domains", "size": 10}},
                    },
                },
            },
        )
        if isinstance(response, Unavailable):
            return response
        found = response["aggregations"]
        return Overview(
            events=response["hits"]["total"]["value"],
            collections=[_collection(bucket) for bucket in found["collections"]["buckets"]],
            languages=[_language(bucket) for bucket in found["posts"]["languages"]["buckets"]],
            tags=[_term(bucket, "tag", "#") for bucket in found["posts"]["tags"]["buckets"]],
            domains=[_term(bucket, "domain") for bucket in found["posts"]["domains"]["buckets"]],
            complete=_is_complete(response),
        )

    def _posts(self, search: SearchRequest) -> Posts | Unavailable:
        response = self._search(
            size=_POSTS,
            query=_existing_posts(*search_conditions(search)),
            # By the time of arrival: authors choose the other times of a post.
            sort=[{"event.ingested": {"order": "desc", "unmapped_type": "date"}}],
            source=_FIELDS,
            track_total_hits=10_000 if search else False,
        )
        if isinstance(response, Unavailable):
            return response
        sources = [hit["_source"] for hit in response["hits"]["hits"]]
        names = self._names({str(source.get("did", "")) for source in sources})
        # The latest posts are seconds old.
        counts = self._counts([str(source.get("uri", "")) for source in sources]) if search else {}
        total = response["hits"].get("total", {"value": len(sources), "relation": "eq"})
        now = datetime.now(UTC).timestamp()
        return Posts(
            total=total["value"],
            or_more=total["relation"] != "eq",
            posts=[_post(source, names, counts, now) for source in sources],
            complete=_is_complete(response),
        )

    def _trending(self) -> Trending | Unavailable:
        response = self._search(index=TRENDS_INDEX, **search_for(self.index))
        if isinstance(response, Unavailable):
            return response
        return trending([hit["_source"] for hit in response["hits"]["hits"]])

    def _totals(self) -> Totals | Unavailable:
        response = self._search(index=TRENDS_INDEX, **totals_search(self.index))
        if isinstance(response, Unavailable):
            return response
        return totals([hit["_source"] for hit in response["hits"]["hits"]], datetime.now(UTC).timestamp())

    def _counts(self, uris: Sequence[str]) -> dict[str, list[TermCount]]:
        """Return the numbers of likes, reposts and replies of posts."""
        if not uris:
            return {}
        response = self._search(size=0, track_total_hits=False, **_counts_search(uris))
        if isinstance(response, Unavailable):
            return {}
        found: dict[str, list[TermCount]] = {}
        for name, (one, _, _) in _COUNTED.items():
            for bucket in response["aggregations"][name]["of"]["buckets"]:
                count = bucket["doc_count"]
                found.setdefault(bucket["key"], []).append(TermCount(one if count == 1 else name, count))
        return found

    def _names(self, dids: set[str]) -> dict[str, Mapping[str, Any]]:
        """Return the names of those of these accounts that are known, and ask for the others."""
        if not dids:
            return {}
        response = self._search(
            index=ACTORS_INDEX,
            size=len(dids),
            query={"terms": {"did": sorted(dids)}},
            source=["did", "handle", "display_name"],
            track_total_hits=False,
        )
        if isinstance(response, Unavailable):
            return {}
        sources = (hit["_source"] for hit in response["hits"]["hits"])
        found = {did: source for source in sources if isinstance(did := source.get("did"), str)}
        self.wanted.add(dids - found.keys())
        return found

    def _search(self, index: str | None = None, **search: Any) -> Mapping[str, Any] | Unavailable:
        """Search the daily indices, or another index if it exists."""
        client = self.elastic.client.options(request_timeout=_REQUEST_TIMEOUT)
        response = client.search(
            index=index or f"{self.index}-*", timeout=_SEARCH_TIMEOUT, ignore_unavailable=True, **search
        )
        if response["_shards"]["total"] or index is not None:
            return response.body  # type: ignore[no-any-return]
        # A search by wildcard omits indices without read privilege, and succeeds with no shards.
        if client.indices.exists(index=f"{self.index}-*", allow_no_indices=False):
            return self._missing_privilege()
        return Unavailable("no events indexed yet")

    def _missing_privilege(self) -> Unavailable:
        return Unavailable(
            f"the worker's user lacks the privilege to read {self.index}-*; give it the role "
            "skeetslurper_worker (docs/privileges.md). Indexing works without it"
        )


# What is counted of a post: the name of one, the condition, and the field with the URI of the post.
_COUNTED: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "likes": ("like", {"term": {"commit.collection": _LIKE}}, "subject.uri"),
    "reposts": ("repost", {"term": {"commit.collection": _REPOST}}, "subject.uri"),
    "replies": ("reply", {"term": {"commit.collection": _POST}}, "reply.parent.uri"),
}


def _counts_search(uris: Sequence[str]) -> dict[str, Any]:
    """Return query and aggregations for what exists of `_COUNTED` for posts."""
    fields = {field for _, _, field in _COUNTED.values()}
    about = {"bool": {"should": [{"terms": {field: list(uris)}} for field in sorted(fields)]}}
    return {
        "query": {
            "bool": {"filter": [about, EXISTING], "must_not": [{"term": {"commit.operation": "delete"}}]}
        },
        "aggs": {
            name: {
                "filter": condition,
                "aggs": {
                    "of": {
                        "terms": {
                            "field": field,
                            "size": len(uris),
                            "include": list(uris),
                            # Ordinals would be built of all posts of the day.
                            "execution_hint": "map",
                        }
                    }
                },
            }
            for name, (_, condition, field) in _COUNTED.items()
        },
    }


def _existing_posts(*conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the query for posts that exist, without old ones that a server announces (resync, bootstrap).

    Updates are included: an update redacts the earlier versions of its post.
    """
    excluded = [
        {"term": {"commit.operation": "delete"}},
        {"term": {"commit.resync": True}},
        {"term": {"commit.bootstrap": True}},
    ]
    posts = {"term": {"commit.collection": _POST}}
    return {"bool": {"filter": [posts, EXISTING, *conditions], "must_not": excluded}}


def search_conditions(search: SearchRequest) -> list[dict[str, Any]]:
    conditions: list[dict[str, Any]] = []
    if search.query:
        fields = ["text", "alt", "spellings"]
        options = {"fields": fields, "default_operator": "and", "flags": _FLAGS, "lenient": True}
        # The analyzer of the small distribution does not find `cafe` for `café`.
        query = visible(search.query)
        spellings = {query: None, without_marks(query): None}
        queries: list[dict[str, Any]] = [
            {"simple_query_string": {"query": query, **options}} for query in spellings
        ]
        conditions.append(queries[0] if len(queries) == 1 else {"bool": {"should": queries}})
    terms = {"tags_folded": search.tag, "lang": search.lang, "domains": search.domain}
    return conditions + [{"term": {name: {"value": value}}} for name, value in terms.items() if value]


def _is_complete(response: Mapping[str, Any]) -> bool:
    return not response["timed_out"] and not response["_shards"]["failed"]


def _term(bucket: Mapping[str, Any], parameter: str, prefix: str = "") -> TermCount:
    name = clean_label(f"{prefix}{bucket['key']}", 60)
    return TermCount(name, bucket["doc_count"], url=_search_url(parameter, bucket["key"]))


def _collection(bucket: Mapping[str, Any]) -> TermCount:
    nsid = clean_label(bucket["key"])
    return TermCount(COLLECTIONS.get(nsid, nsid), bucket["doc_count"], nsid if nsid in COLLECTIONS else "")


def _language(bucket: Mapping[str, Any]) -> TermCount:
    code = clean_label(bucket["key"], 20)
    name = LANGUAGES.get(code)
    return TermCount(
        name or code, bucket["doc_count"], code if name else "", _search_url("lang", bucket["key"])
    )


def _search_url(parameter: str, value: object) -> str:
    # Relative, as are all links of the page: it may be below a path of a reverse proxy.
    return f"?{urlencode({parameter: str(value)[:MAX_LENGTH]}, errors='replace')}#posts"


def _post(
    source: Mapping[str, Any],
    names: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, Sequence[TermCount]],
    now: float,
) -> Post:
    did = str(source.get("did", ""))
    ingested_us = parse_time(str(inner(source, "event").get("ingested"))) or 0
    langs, tags, links = (_list(source.get(name)) for name in ("langs", "tags", "links"))
    lang = clean_label(langs[0], 20) if langs else ""
    return Post(
        text=clean_text(source.get("text", "")),
        counts=counts.get(str(source.get("uri", "")), ()),
        author=author_name(did, names.get(did, {})),
        author_url=profile_url(did),
        bsky_link=_page(source),
        age=max(0.0, now - ingested_us / 1e6),
        ingested_at=datetime.fromtimestamp(ingested_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        lang=lang,
        language=LANGUAGES.get(lang.split("-")[0], lang),
        tags=[
            TermCount(clean_label(f"#{tag}", 40), 0, url=_search_url("tag", fold_tag(str(tag))))
            for tag in tags[:6]
        ],
        links=list(dict.fromkeys(safe for one in links[:6] if (safe := safe_link(one)) is not None))[:3],
        media=_media(inner(source, "media")),
        parent=_page(inner(inner(source, "reply"), "parent")),
    )


def _page(reference: Mapping[str, Any]) -> Link | None:
    """Return the link to the page on bsky.app of the record in `uri`."""
    return safe_link(page_url(str(reference.get("uri", ""))))


def _media(media: Mapping[str, Any]) -> str:
    """Return the media of a post as text: `3 images`, `video, quote`."""
    kinds = [str(kind) for kind in _list(media.get("kinds"))]
    count = media.get("count")
    names = []
    for kind in kinds:
        if kind == "image" and isinstance(count, int) and count > 1 and len(kinds) == 1:
            names.append(f"{count} images")
        elif kind in ("image", "video", "gif", "quote"):
            names.append("GIF" if kind == "gif" else kind)
    return ", ".join(names)


def _list(value: Any) -> list[Any]:
    """Return the values of a field, which a document holds as a single value or a list."""
    return [] if value is None else value if isinstance(value, list) else [value]
