"""What gets hearts, reposts, quotes and answers."""

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

_QUOTES, _REPLIES = All(POSTS, Has("quote.uri")), All(POSTS, Has("reply.parent.uri"))

LIKED = Dashboard(
    name="likes",
    title="What people like",
    question="Which posts and people get attention, and when?",
    span="now-24h",
    refresh=60,
    rows=(
        Row(
            6,
            Metric(
                question="How much is liked?", where=LIKES, measure=count("Likes"), color=PINK, trend=True
            ),
            Metric(question="By how many people?", where=LIKES, measure=unique("did", "Who liked")),
            Metric(
                question="How much is reposted?",
                where=REPOSTS,
                measure=count("Reposts"),
                color=GREEN,
                trend=True,
            ),
            Metric(
                question="How much is quoted?",
                where=_QUOTES,
                measure=count("Quotes"),
                color=PURPLE,
                trend=True,
            ),
            Metric(
                question="How much is answered?",
                where=_REPLIES,
                measure=count("Replies"),
                color=BLUE,
                trend=True,
            ),
            Metric(
                question="How many likes are taken back?",
                where=deleted(LIKE),
                measure=count("Likes undone"),
            ),
        ),
        Row(
            14,
            Table(
                question="Which posts are liked most?",
                where=LIKES,
                by=(Top("subject.url", "Post", 50),),
                measures=(count("Likes"), latest("subject.did", "Author")),
            ),
            Table(
                question="Which posts are reposted most?",
                where=REPOSTS,
                by=(Top("subject.url", "Post", 50),),
                measures=(count("Reposts"), latest("subject.did", "Author")),
            ),
        ),
        Row(
            14,
            Table(
                question="Which posts are quoted most?",
                where=_QUOTES,
                by=(Top("quote.url", "Post", 50),),
                measures=(count("Quotes"), latest("quote.did", "Author")),
            ),
            Table(
                question="Which posts are answered most?",
                where=_REPLIES,
                by=(Top("reply.parent.url", "Post", 50),),
                measures=(count("Replies"), unique("did", "People"), latest("reply.parent.did", "Author")),
            ),
        ),
        Row(
            13,
            Heatmap(
                question="At which hour (UTC) of which weekday do people like?",
                where=LIKES,
                x=Top("event.hour", "Hour (UTC)", 24, in_order=True),
                y=Top("event.weekday", "Weekday", 7, in_order=True),
                measure=count("Likes"),
            ),
            Table(
                question="Whose posts are liked most?",
                where=LIKES,
                by=(Top("subject.did", "Author", 50),),
                measures=(count("Likes"), unique("did", "By people"), unique("subject.uri", "Posts")),
            ),
        ),
        Row(
            11,
            Series(
                question="How do likes and reposts go over the day?",
                width=32,
                style="line",
                split=Cases(
                    {"likes": LIKES, "reposts": REPOSTS, "quotes": _QUOTES, "replies": _REPLIES}, "Attention"
                ),
                measures=(count("Events a minute", per="m"),),
            ),
            Shares(
                question="What is it that is liked?",
                where=LIKES,
                by=(Top("subject.collection", "Collection", 5, other=True),),
                measure=count("Likes"),
            ),
        ),
    ),
)
