"""What people write about."""

from __future__ import annotations

from slurp.kibana.conditions import All, Between, Has, Not
from slurp.kibana.dashboards.filters import BLUE, GREEN, PINK, POSTS, PURPLE
from slurp.kibana.panels import (
    Cases,
    Cloud,
    Dashboard,
    Documents,
    Metric,
    Row,
    Search,
    Series,
    Shares,
    Table,
    Top,
    count,
    percentile,
    unique,
)

_REPLY, _QUOTE, _MEDIA = Has("reply.parent.uri"), Has("quote.uri"), Has("media.kinds")
_LENGTH = "length.graphemes"

LATEST_POSTS = Search(
    name="latest-posts",
    title="Latest posts",
    columns={"did": 180, "text": 560, "lang": 80, "tags": 160, "domains": 140, "url": 120},
    where=All(POSTS, Has("text")),
)

TALK = Dashboard(
    name="talk",
    title="What people talk about",
    question="Which words, links and pictures go round, and in which languages?",
    span="now-24h",
    refresh=60,
    rows=(
        Row(
            6,
            Metric(
                question="How much is written?", where=POSTS, measure=count("Posts"), color=BLUE, trend=True
            ),
            Metric(question="By how many people?", where=POSTS, measure=unique("did", "Authors")),
            Metric(
                question="How much of it answers?",
                where=All(POSTS, _REPLY),
                measure=count("Replies"),
                color=GREEN,
                trend=True,
            ),
            Metric(
                question="How much of it quotes?",
                where=All(POSTS, _QUOTE),
                measure=count("Quotes"),
                color=PURPLE,
                trend=True,
            ),
            Metric(
                question="How much of it shows something?",
                where=All(POSTS, _MEDIA),
                measure=count("With media or cards"),
                color=PINK,
                trend=True,
            ),
            Metric(question="How many languages?", where=POSTS, measure=unique("lang", "Languages")),
        ),
        Row(
            12,
            Cloud(
                question="Which tags are used most?",
                width=16,
                where=POSTS,
                by=Top("tags_folded", "Tag", 12),
                measure=count("Posts"),
            ),
            Series(
                question="When were the top tags used?",
                where=POSTS,
                style="bar_stacked",
                split=Top("tags_folded", "Tag", 8),
                measures=(count("Posts"),),
            ),
        ),
        Row(
            13,
            Table(
                question="Which sites are linked?",
                where=POSTS,
                by=(Top("domains", "Site", 50),),
                measures=(count("Posts"), unique("did", "Authors")),
            ),
            Table(
                question="Which pages are linked?",
                where=POSTS,
                by=(Top("links", "Page", 50),),
                measures=(count("Posts"), unique("did", "Authors")),
            ),
            Table(
                question="Who is mentioned?",
                where=POSTS,
                by=(Top("mentions", "Person", 50),),
                measures=(count("Posts"), unique("did", "Authors")),
            ),
        ),
        Row(
            11,
            Cloud(
                question="Which emoji are used?",
                width=16,
                where=POSTS,
                by=Top("emoji", "Emoji", 12),
                measure=count("Posts"),
            ),
            Series(
                question="Which languages are spoken at which time?",
                where=POSTS,
                style="area_percentage_stacked",
                split=Top("lang", "Language", 8, other=True),
                measures=(count("Posts"),),
            ),
        ),
        Row(
            11,
            Shares(
                question="Which media hang on posts?",
                width=12,
                where=All(POSTS, _MEDIA),
                by=(Top("media.kinds", "Medium", 8),),
                measure=count("Posts"),
            ),
            Series(
                question="Are posts new, replies or quotes?",
                width=14,
                where=POSTS,
                style="bar_percentage_stacked",
                split=Cases(
                    {
                        "new": All(Not(_REPLY), Not(_QUOTE)),
                        "replies": All(_REPLY, Not(_QUOTE)),
                        "quotes": _QUOTE,
                    },
                    "Post",
                ),
                measures=(count("Posts"),),
            ),
            Series(
                question="How long are posts?",
                width=11,
                where=POSTS,
                style="bar",
                x=Cases(
                    {
                        "under 25": Between(_LENGTH, 0, 25),
                        "25 to 49": Between(_LENGTH, 25, 50),
                        "50 to 99": Between(_LENGTH, 50, 100),
                        "100 to 199": Between(_LENGTH, 100, 200),
                        "200 and more": Between(_LENGTH, 200),
                    },
                    "Characters",
                ),
                measures=(count("Posts"),),
            ),
            Series(
                question="Do posts grow longer by the hour?",
                width=11,
                where=POSTS,
                style="line",
                measures=(
                    percentile(50, _LENGTH, "half are shorter"),
                    percentile(90, _LENGTH, "90 of 100 are"),
                ),
            ),
        ),
        Row(20, Documents(question="What was written last?", search=LATEST_POSTS)),
    ),
)
