"""Trends on the page: the most liked posts and the people with most new followers of the latest hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slurp.actors.names import Name
from slurp.documents.display import Link, clean_label, clean_text, safe_link
from slurp.documents.urls import profile_url

Json = dict[str, Any]

_POSTS, _PEOPLE = "posts_by_likes", "people_by_followers"
_SHOWN = 8
# Labels by which authors, or moderators, mark content for adults.
_ADULT = frozenset(("porn", "sexual", "nudity", "graphic-media"))


@dataclass(frozen=True)
class TopPost:
    """A post with the number of its likes; `text` is '' if it is not known."""

    text: str
    author: str
    author_url: str
    link: Link | None
    count: int
    is_adult: bool


@dataclass(frozen=True)
class TopPerson:
    """An account with the number of its new followers."""

    name: str
    url: str
    count: int


@dataclass(frozen=True)
class Trending:
    """The lists of one hour, which begins at `start` (`14:00`, UTC); all empty before the first one."""

    start: str = ""
    posts: Sequence[TopPost] = ()
    people: Sequence[TopPerson] = ()


def search_for(index: str) -> Json:
    """Return the parameters of the search for the latest rows of the trends of an `--index`."""
    return {
        "query": {
            "bool": {
                "filter": [
                    {"term": {"index": index}},
                    {"term": {"interval": "hour"}},
                    {"terms": {"measure": [_POSTS, _PEOPLE]}},
                    {"range": {"rank": {"lte": _SHOWN}}},
                ],
                "must_not": [{"term": {"hidden": True}}],
            }
        },
        "sort": [{"@timestamp": "desc"}, {"rank": "asc"}],
        "size": 4 * _SHOWN,
        "track_total_hits": False,
    }


def trending(rows: Sequence[Mapping[str, Any]]) -> Trending:
    """Return the lists of the latest hour in the rows that the search has found."""
    if not rows:
        return Trending()
    start = str(rows[0].get("@timestamp", ""))
    latest = [row for row in rows if row.get("@timestamp") == start]
    return Trending(
        start=clean_label(start[11:16]),
        posts=[_post(row) for row in latest if row.get("measure") == _POSTS],
        people=[_person(row) for row in latest if row.get("measure") == _PEOPLE],
    )


def author_name(did: str, names: Mapping[str, Any]) -> str:
    """Return how an account is named: `Alice @alice.example`, or its DID."""
    handle, display_name = (names.get(name) for name in ("handle", "display_name"))
    name = Name(
        clean_label(handle, 59) if isinstance(handle, str) else None,
        clean_label(display_name, 40) if isinstance(display_name, str) else None,
    )
    return name.text or clean_label(did, 60)


def _post(row: Mapping[str, Any]) -> TopPost:
    did = str(row.get("did", ""))
    return TopPost(
        text=clean_text(row.get("text", ""), 300),
        author=author_name(did, row),
        author_url=profile_url(did),
        link=safe_link(row.get("url")),
        count=_count(row),
        is_adult=not _ADULT.isdisjoint(_texts(row.get("labels"))),
    )


def _person(row: Mapping[str, Any]) -> TopPerson:
    did = str(row.get("did", ""))
    return TopPerson(author_name(did, row), profile_url(did), _count(row))


def _count(row: Mapping[str, Any]) -> int:
    count = row.get("count")
    return count if isinstance(count, int) else 0


def _texts(value: Any) -> Iterable[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
