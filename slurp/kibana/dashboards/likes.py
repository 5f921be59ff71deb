"""The dashboard "Likes, reposts and replies": posts and authors with the most attention."""

from __future__ import annotations

from slurp.kibana.conditions import All, Has
from slurp.kibana.dashboards.filters import (
    BLUE,
    GREEN,
    LIKE,
    LIKES,
    PINK,
    POSTS,
    PURPLE,
    REPOSTS,
    deleted,
)
from slurp.kibana.panels import (
    ACTIVITY,
    EXISTING,
    Cases,
    Dashboard,
    Heatmap,
    Metric,
    Row,
    Series,
    Shares,
    Table,
    Top,
    count,
    latest,
    unique,
)

# Counted by `subject.uri`, which is indexed, and shown as a link, which a script computes for each row.
_POST = Top("subject.uri", "Post", 50, hidden=True)
_PAGE = latest("subject.url", "Post", where=Has("subject.uri"))

_QUOTES, _REPLIES = All(POSTS, Has("quote.uri")), All(POSTS, Has("reply.parent.uri"))

LIKES_AND_REPOSTS = Dashboard(
    name="likes",
    title="Likes, reposts and replies",
    description="Posts and authors with the most likes, reposts, quotes and replies.",
    span="now-24h",
    refresh=60,
    rows=(
        Row(
            6,
            Metric(
                title="Likes", shows=EXISTING, where=LIKES, measure=count("Likes"), color=PINK, trend=True
            ),
            Metric(
                title="Accounts that like", shows=EXISTING, where=LIKES, measure=unique("did", "Accounts")
            ),
            Metric(
                title="Reposts",
                shows=EXISTING,
                where=REPOSTS,
                measure=count("Reposts"),
                color=GREEN,
                trend=True,
            ),
            Metric(
                title="Quotes",
                shows=EXISTING,
                where=_QUOTES,
                measure=count("Quotes"),
                color=PURPLE,
                trend=True,
            ),
            Metric(
                title="Replies",
                shows=EXISTING,
                where=_REPLIES,
                measure=count("Replies"),
                color=BLUE,
                trend=True,
            ),
            Metric(
                title="Deleted likes",
                shows=ACTIVITY,
                where=deleted(LIKE),
                measure=count("Deleted likes"),
            ),
        ),
        Row(
            14,
            Table(
                title="Posts with the most likes",
                shows=EXISTING,
                where=LIKES,
                by=(_POST,),
                measures=(count("Likes"), _PAGE, latest("subject.did", "Author")),
            ),
            Table(
                title="Posts with the most reposts",
                shows=EXISTING,
                where=REPOSTS,
                by=(_POST,),
                measures=(count("Reposts"), _PAGE, latest("subject.did", "Author")),
            ),
        ),
        Row(
            14,
            Table(
                title="Posts with the most quotes",
                shows=EXISTING,
                where=_QUOTES,
                by=(Top("quote.uri", "Post", 50, hidden=True),),
                measures=(
                    count("Quotes"),
                    latest("quote.url", "Post", where=Has("quote.uri")),
                    latest("quote.did", "Author"),
                ),
            ),
            Table(
                title="Posts with the most replies",
                shows=EXISTING,
                where=_REPLIES,
                by=(Top("reply.parent.uri", "Post", 50, hidden=True),),
                measures=(
                    count("Replies"),
                    unique("did", "Accounts"),
                    latest("reply.parent.url", "Post", where=Has("reply.parent.uri")),
                    latest("reply.parent.did", "Author"),
                ),
            ),
        ),
        Row(
            13,
            Heatmap(
                title="Likes by weekday and hour (UTC)",
                shows=EXISTING,
                where=LIKES,
                x=Top("event.hour", "Hour (UTC)", 24, in_order=True),
                y=Top("event.weekday", "Weekday", 7, in_order=True),
                measure=count("Likes"),
            ),
            Table(
                title="Authors with the most likes",
                shows=EXISTING,
                where=LIKES,
                by=(Top("subject.did", "Author", 50),),
                measures=(count("Likes"), unique("did", "Accounts"), unique("subject.uri", "Posts")),
            ),
        ),
        Row(
            11,
            Series(
                title="Likes, reposts, quotes and replies per minute",
                shows=EXISTING,
                width=32,
                style="line",
                split=Cases(
                    {"likes": LIKES, "reposts": REPOSTS, "quotes": _QUOTES, "replies": _REPLIES}, "Activity"
                ),
                measures=(count("Records per minute", per="m"),),
            ),
            Shares(
                title="Likes by collection of the liked record",
                shows=EXISTING,
                where=LIKES,
                by=(Top("subject.collection", "Collection", 5, other=True),),
                measure=count("Likes"),
            ),
        ),
    ),
)
