"""Conditions and colors shared by several dashboards."""

from __future__ import annotations

from slurp.kibana.conditions import All, Begins, Condition, Either, Is, Not

LIKE = "app.bsky.feed.like"
REPOST = "app.bsky.feed.repost"
POST = "app.bsky.feed.post"
FOLLOW = "app.bsky.graph.follow"
BLOCK = "app.bsky.graph.block"
LIST = "app.bsky.graph.list"
LIST_ITEM = "app.bsky.graph.listitem"
STARTER_PACK = "app.bsky.graph.starterpack"
PROFILE = "app.bsky.actor.profile"

COMMITS = Is("kind", "commit")
DELETIONS = Is("commit.operation", "delete")
THIRD_PARTIES = All(
    COMMITS,
    Not(Either(Begins("commit.collection", "app.bsky."), Begins("commit.collection", "chat.bsky."))),
)


def records(collection: str) -> Condition:
    """Select records of a collection, created or updated.

    A panel that shows EXISTING has one version of each, because an update redacts the earlier versions.
    """
    return All(Is("commit.collection", collection), Not(DELETIONS))


def created(collection: str) -> Condition:
    """Select created records of a collection, without updates."""
    return All(Is("commit.collection", collection), Is("commit.operation", "create"))


def deleted(collection: str) -> Condition:
    """Select deletions of records of a collection."""
    return All(Is("commit.collection", collection), DELETIONS)


# For panels that show EXISTING.
POSTS, LIKES, REPOSTS = records(POST), records(LIKE), records(REPOST)
FOLLOWS, BLOCKS = records(FOLLOW), records(BLOCK)

# Colors of Kibana's palette.
GREEN, BLUE, PINK, PURPLE, GREY = "#54B399", "#6092C0", "#D36086", "#9170B8", "#98A2B3"
