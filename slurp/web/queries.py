"""What the page asks Elasticsearch: few, short, bounded questions, with strangers' words as values only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from elasticsearch import ApiError, AuthenticationException

from slurp.documents.common_fields import folded
from slurp.documents.display import Link, label, link, prose
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.events.times import parse_time
from slurp.monitoring.elastic_probe import Probe
from slurp.web.cache import Cache
from slurp.web.names import COLLECTIONS, LANGUAGES

T = TypeVar("T")

WINDOW_MINUTES = 15
POSTS = 12
# Characters of each wish.
WISH = 200

_POST = "app.bsky.feed.post"
_OVERVIEW_FOR, _POSTS_FOR = 10.0, 5.0
# Of the search within Elasticsearch, and of the whole request, in seconds.
_SEARCH_WITHIN, _WITHIN = "2s", 4.0
# Requests at once, and how long to wait for a turn.
_AT_ONCE, _TURN = 2, 2.0
_FIELDS = [
    "did",
    "url",
    "text",
    "langs",
    "tags",
    "links",
    "media",
    "reply.parent.url",
    "event.ingested",
]
# What people may write in the search box; no prefixes or fuzziness, which may cost much.
_FLAGS = "AND|OR|NOT|PHRASE|PRECEDENCE|WHITESPACE"


class Trouble(NamedTuple):
    """Why there is no answer, in words."""

    reason: str


@dataclass(frozen=True)
class Bar:
    """One of the most frequent. `note` says more, `address` leads to its posts."""

    name: str
    count: int
    note: str = ""
    address: str = ""


@dataclass(frozen=True)
class Overview:
    """Of the last WINDOW_MINUTES."""

    events: int
    collections: Sequence[Bar] = ()
    languages: Sequence[Bar] = ()
    tags: Sequence[Bar] = ()
    domains: Sequence[Bar] = ()
    whole: bool = True


@dataclass(frozen=True)
class Post:
    """Ready to be shown, but for the escaping. `age` is in seconds."""

    text: str
    author: str
    author_address: str
    page: Link | None
    age: float
    at: str
    lang: str = ""
    language: str = ""
    tags: Sequence[Bar] = ()
    links: Sequence[Link] = ()
    media: str = ""
    answers: Link | None = None


@dataclass(frozen=True)
class Posts:
    found: int
    or_more: bool
    posts: Sequence[Post] = ()
    whole: bool = True


@dataclass(frozen=True)
class SearchRequest:
    """What somebody looks for; empty for the newest of all."""

    words: str = ""
    tag: str = ""
    lang: str = ""
    domain: str = ""

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> SearchRequest:
        wishes = (parameters.get(name, "").strip()[:WISH] for name in ("q", "tag", "lang", "domain"))
        # Halves of pairs can't be sent.
        return cls(*(wish.encode("utf-8", "replace").decode() for wish in wishes))

    def __bool__(self) -> bool:
        return bool(self.words or self.tag or self.lang or self.domain)


@dataclass
class PageQueries:
    """Each answer is kept for some seconds. None of the cluster's failures is raised."""

    elastic: Elastic
    probe: Probe
    index: str
    scrub: Callable[[str], str]
    cache: Cache = field(default_factory=Cache)

    def __post_init__(self) -> None:
        self._turns = threading.Semaphore(_AT_ONCE)

    def overview(self) -> Overview | Trouble:
        return self.cache.get("overview", _OVERVIEW_FOR, lambda: self._ask(self._overview))

    def posts(self, wish: SearchRequest) -> Posts | Trouble:
        return self.cache.get(wish, _POSTS_FOR, lambda: self._ask(lambda: self._posts(wish)))

    def _ask(self, question: Callable[[], T | Trouble]) -> T | Trouble:
        if (down := self.probe.down) is not None:
            return Trouble(f"Elasticsearch is down: {down[1]}")
        if not self._turns.acquire(timeout=_TURN):
            return Trouble("too many questions at once; try again in a moment")
        try:
            return question()
        except FAILURES as error:
            if isinstance(error, AuthenticationException):
                self.elastic.credentials_rejected()
            if isinstance(error, ApiError) and error.status_code == 403:
                return self._no_right()
            return Trouble(f"Elasticsearch can't answer: {label(self.scrub(describe(error)), 300)}")
        finally:
            self._turns.release()

    def _overview(self) -> Overview | Trouble:
        answer = self._search(
            size=0,
            track_total_hits=True,
            query={"range": {"event.ingested": {"gte": f"now-{WINDOW_MINUTES}m"}}},
            aggs={
                "collections": {"terms": {"field": "commit.collection", "size": 8}},
                "posts": {
                    "filter": _written(),
                    "aggs": {
                        "languages": {"terms": {"field": "lang", "size": 8}},
                        "tags": {"terms": {"field": "tags_folded", "size": 10}},
                        "domains": {"terms": {"field": "domains", "size": 10}},
                    },
                },
            },
        )
        if isinstance(answer, Trouble):
            return answer
        found = answer["aggregations"]
        return Overview(
            events=answer["hits"]["total"]["value"],
            collections=[_collection(bucket) for bucket in found["collections"]["buckets"]],
            languages=[_language(bucket) for bucket in found["posts"]["languages"]["buckets"]],
            tags=[_bar(bucket, "tag", "#") for bucket in found["posts"]["tags"]["buckets"]],
            domains=[_bar(bucket, "domain") for bucket in found["posts"]["domains"]["buckets"]],
            whole=_is_whole(answer),
        )

    def _posts(self, wish: SearchRequest) -> Posts | Trouble:
        answer = self._search(
            size=POSTS,
            query=_written(*_conditions(wish)),
            # By our clock: authors choose their own times.
            sort=[{"event.ingested": {"order": "desc", "unmapped_type": "date"}}],
            source=_FIELDS,
            track_total_hits=10_000 if wish else False,
        )
        if isinstance(answer, Trouble):
            return answer
        sources = [hit["_source"] for hit in answer["hits"]["hits"]]
        handles = self._handles({str(source.get("did", "")) for source in sources})
        total = answer["hits"].get("total", {"value": len(sources), "relation": "eq"})
        now = datetime.now(UTC).timestamp()
        return Posts(
            found=total["value"],
            or_more=total["relation"] != "eq",
            posts=[_post(source, handles, now) for source in sources],
            whole=_is_whole(answer),
        )

    def _handles(self, dids: set[str]) -> dict[str, str]:
        """The newest handles, of those whose account told one while we were there."""
        if not dids:
            return {}
        answer = self._search(
            size=len(dids),
            query={"bool": {"filter": [{"term": {"kind": "identity"}}, {"terms": {"did": sorted(dids)}}]}},
            collapse={"field": "did"},
            sort=[{"event.ingested": {"order": "desc", "unmapped_type": "date"}}],
            source=["did", "identity.handle"],
            track_total_hits=False,
        )
        if isinstance(answer, Trouble):
            return {}
        sources = (hit["_source"] for hit in answer["hits"]["hits"])
        return {
            source["did"]: handle
            for source in sources
            if isinstance(handle := source.get("identity", {}).get("handle"), str)
        }

    def _search(self, **search: Any) -> Mapping[str, Any] | Trouble:
        client = self.elastic.client.options(request_timeout=_WITHIN)
        answer = client.search(index=f"{self.index}-*", timeout=_SEARCH_WITHIN, **search)
        if answer["_shards"]["total"]:
            return answer.body  # type: ignore[no-any-return]
        # Behind a wildcard what we may not read is as if it were not there.
        if client.indices.exists(index=f"{self.index}-*", allow_no_indices=False):
            return self._no_right()
        return Trouble("nothing is indexed yet")

    def _no_right(self) -> Trouble:
        return Trouble(
            f"the worker's user has no right to read {self.index}-*: it needs the role skeetslurper_page of "
            "docs/privileges.md as well. Indexing does not need it"
        )


def _written(*more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the query for new posts: not for what a server announces that existed before."""
    new = [{"term": {"commit.collection": _POST}}, {"term": {"commit.operation": "create"}}]
    old = [{"term": {"commit.resync": True}}, {"term": {"commit.bootstrap": True}}]
    return {"bool": {"filter": [*new, *more], "must_not": old}}


def _conditions(wish: SearchRequest) -> list[dict[str, Any]]:
    conditions: list[dict[str, Any]] = []
    if wish.words:
        query = {"query": wish.words, "fields": ["text", "alt"], "default_operator": "and", "flags": _FLAGS}
        conditions.append({"simple_query_string": {**query, "lenient": True}})
    terms = {"tags_folded": wish.tag, "lang": wish.lang, "domains": wish.domain}
    return conditions + [{"term": {name: {"value": value}}} for name, value in terms.items() if value]


def _is_whole(answer: Mapping[str, Any]) -> bool:
    return not answer["timed_out"] and not answer["_shards"]["failed"]


def _bar(bucket: Mapping[str, Any], wish: str, before: str = "") -> Bar:
    return Bar(label(f"{before}{bucket['key']}", 60), bucket["doc_count"], "", _address(wish, bucket["key"]))


def _collection(bucket: Mapping[str, Any]) -> Bar:
    nsid = label(bucket["key"])
    return Bar(COLLECTIONS.get(nsid, nsid), bucket["doc_count"], nsid if nsid in COLLECTIONS else "")


def _language(bucket: Mapping[str, Any]) -> Bar:
    code = label(bucket["key"], 20)
    name = LANGUAGES.get(code)
    return Bar(name or code, bucket["doc_count"], code if name else "", _address("lang", bucket["key"]))


def _address(wish: str, value: object) -> str:
    return f"/?{urlencode({wish: str(value)[:WISH]}, errors='replace')}#posts"


def _post(source: Mapping[str, Any], handles: Mapping[str, str], now: float) -> Post:
    did = str(source.get("did", ""))
    arrived_us = parse_time(source.get("event", {}).get("ingested")) or 0
    langs, tags, links = (_list(source.get(name)) for name in ("langs", "tags", "links"))
    lang = label(langs[0], 20) if langs else ""
    handle = handles.get(did)
    return Post(
        text=prose(source.get("text", "")),
        author=label(f"@{handle}" if handle else did, 60),
        author_address=f"https://bsky.app/profile/{quote(did, safe=':')}",
        page=link(source.get("url")),
        age=max(0.0, now - arrived_us / 1e6),
        at=datetime.fromtimestamp(arrived_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        lang=lang,
        language=LANGUAGES.get(lang.split("-")[0], lang),
        tags=[Bar(label(f"#{tag}", 40), 0, "", _address("tag", folded(str(tag)))) for tag in tags[:6]],
        links=list(dict.fromkeys(found for one in links[:6] if (found := link(one)) is not None))[:3],
        media=_media(source.get("media", {})),
        answers=link(source.get("reply", {}).get("parent", {}).get("url")),
    )


def _media(media: Mapping[str, Any]) -> str:
    kinds = [str(kind) for kind in _list(media.get("kinds"))]
    count = media.get("count")
    words = []
    for kind in kinds:
        if kind == "image" and isinstance(count, int) and count > 1 and len(kinds) == 1:
            words.append(f"{count} images")
        elif kind in ("image", "video", "gif", "quote"):
            words.append("GIF" if kind == "gif" else kind)
    return ", ".join(words)


def _list(value: Any) -> list[Any]:
    """A field of a document has one value or several."""
    return [] if value is None else value if isinstance(value, list) else [value]
