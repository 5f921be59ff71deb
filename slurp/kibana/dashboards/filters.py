"""Conditions on events that several dashboards use."""

from __future__ import annotations

from slurp.kibana.conditions import All, Begins, Condition, Either, Is, Not

LIKE = "app.bsky.feed.like"
REPOST = "app.bsky.feed.repost"
POST = "app.bsky.feed.post"
FOLLOW = "app.bsky.graph.follow"
BLOCK = "app.bsky.graph.block"

COMMITS = Is("kind", "commit")
DELETIONS = Is("commit.operation", "delete")
THIRD_PARTIES = All(
    COMMITS,
    Not(
        Either(
            Begins("commit.collection", "app.bsky."),
            Begins("commit.collection", "chat.bsky."),
            Begins("commit.collection", "com.atproto."),
        )
    ),
)


def records(collection: str) -> Condition:
    """Select records of a collection, created or updated.

    A panel that shows EXISTING has one version of each, because an update redacts the earlier versions.
    """
    return All(Is("commit.collection", collection), Not(DELETIONS))


def created(collection: str) -> Condition:
    """Select created records of a collection, without updates."""
    return All(Is("commit.collection", collection), Is("commit.operation", "create"))


# For panels that show EXISTING.
POSTS, LIKES, FOLLOWS = records(POST), records(LIKE), records(FOLLOW)
