"""Example queries: bodies for `GET bluesky-events-*/_search`. A test runs each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from slurp.documents.existing import EXISTING

# Values in the documented examples; the test passes others.
POST = "at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/3l6oveex3ii2l"
PERSON = "did:plc:z72i7hdynmk6r22z27h6tvur"


class Example(NamedTuple):
    """A query with its title."""

    name: str
    title: str
    query: Mapping[str, Any]


def examples(
    *,
    tag: str = "caturday",
    lang: str = "pt",
    domain: str = "example.com",
    post: str = POST,
    person: str = PERSON,
) -> tuple[Example, ...]:
    """Return the examples. `tag` is folded (lower case), `lang` a primary subtag, `post` an `at://` URI,
    `person` a DID.
    """
    return (
        Example("tag", "Posts with a hashtag, in any spelling", _all(_POSTS, {"tags_folded": tag})),
        Example("language", "Posts in a language, regional forms included", _all(_POSTS, {"lang": lang})),
        Example("domain", "Posts that link to a domain", _all(_POSTS, {"domains": domain})),
        Example("replies", "Replies to a post", _all({"reply.parent.uri": post})),
        Example("thread", "All posts in the thread that a post started", _all({"reply.root.uri": post})),
        Example("likes", "Likes of a post", _all(_in("app.bsky.feed.like"), {"subject.uri": post})),
        Example("followers", "New followers of a person", _all(_in(_FOLLOW), {"subject.did": person})),
        Example(
            "following", "Accounts a person started to follow", _all(_in(_FOLLOW), _CREATED, {"did": person})
        ),
        Example("deletions", "Deleted posts", _events(_POSTS, {"commit.operation": "delete"})),
        Example("takedowns", "Accounts that were taken down", _events({"account.status": "takendown"})),
    )


_FOLLOW = "app.bsky.graph.follow"
_CREATED = {"commit.operation": "create"}


def _in(collection: str) -> dict[str, str]:
    return {"commit.collection": collection}


_POSTS = _in("app.bsky.feed.post")


def _all(*terms: Mapping[str, str]) -> dict[str, Any]:
    """Return a query for existing documents for which all terms match."""
    return {"query": {"bool": {**_filter(terms), **EXISTING["bool"]}}}


def _events(*terms: Mapping[str, str]) -> dict[str, Any]:
    """Return a query for events for which all terms match, also redacted and hidden ones."""
    return {"query": {"bool": _filter(terms)}}


def _filter(terms: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    # As filters, because scores are not needed.
    return {"filter": [{"term": dict(term)} for term in terms]}
