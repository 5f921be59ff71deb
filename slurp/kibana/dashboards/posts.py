"""The dashboard "Posts and topics": hashtags, links, languages, media and length of posts."""

from __future__ import annotations

from slurp.kibana.colors import BLUE, GREEN, PINK, PURPLE
from slurp.kibana.conditions import All, Between, Has, Not
from slurp.kibana.dashboards.filters import POSTS
from slurp.kibana.panels import (
    EXISTING,
    Cases,
    Cloud,
    Control,
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
    shows=EXISTING,
    columns={"text": 900, "lang": 90, "tags": 200, "domains": 170, "url": 90},
    where=All(POSTS, Has("text")),
)

POSTS_AND_TOPICS = Dashboard(
    name="talk",
    title="Posts and topics",
    description="Hashtags, links, emoji, languages, media and length of posts. Topics of many days are on "
    "Long-term trends.",
    span="now-1h",
    controls=(Control("lang", "Language"),),
    rows=(
        Row(
            6,
            Metric(
                title="Posts", shows=EXISTING, where=POSTS, measure=count("Posts"), color=BLUE, trend=True
            ),
            Metric(title="Authors", shows=EXISTING, where=POSTS, measure=unique("did", "Authors")),
            Metric(
                title="Replies",
                shows=EXISTING,
                where=All(POSTS, _REPLY),
                measure=count("Replies"),
                color=GREEN,
                trend=True,
            ),
            Metric(
                title="Quotes",
                shows=EXISTING,
                where=All(POSTS, _QUOTE),
                measure=count("Quotes"),
                color=PURPLE,
                trend=True,
            ),
            Metric(
                title="Posts with media or link cards",
                shows=EXISTING,
                where=All(POSTS, _MEDIA),
                measure=count("Posts"),
                color=PINK,
                trend=True,
            ),
            Metric(title="Languages", shows=EXISTING, where=POSTS, measure=unique("lang", "Languages")),
        ),
        Row(
            12,
            Cloud(
                title="Top hashtags",
                shows=EXISTING,
                width=16,
                where=POSTS,
                by=Top("tags_folded", "Hashtag", 12),
                measure=count("Posts"),
            ),
            Series(
                title="Top hashtags over time",
                shows=EXISTING,
                where=POSTS,
                style="bar_stacked",
                split=Top("tags_folded", "Hashtag", 8),
                measures=(count("Posts"),),
                unit="Posts",
            ),
        ),
        Row(
            13,
            Table(
                title="Hashtags by authors",
                shows=EXISTING,
                width=12,
                where=POSTS,
                by=(Top("tags_folded", "Hashtag", 50),),
                measures=(unique("did", "Authors"), count("Posts")),
                note="By the number of different authors, so that one account cannot lead the list alone.",
            ),
            Table(
                title="Linked sites by authors",
                shows=EXISTING,
                width=14,
                where=POSTS,
                by=(Top("domains", "Site", 50),),
                measures=(unique("did", "Authors"), count("Posts")),
            ),
            Table(
                title="Linked pages by authors",
                shows=EXISTING,
                where=POSTS,
                by=(Top("links", "Page", 50),),
                measures=(unique("did", "Authors"), count("Posts")),
            ),
        ),
        Row(
            11,
            Cloud(
                title="Top emoji",
                shows=EXISTING,
                width=16,
                where=POSTS,
                by=Top("emoji", "Emoji", 12),
                measure=count("Posts"),
            ),
            Series(
                title="Share of languages over time",
                shows=EXISTING,
                where=POSTS,
                style="area_percentage_stacked",
                split=Top("lang", "Language", 8, other=True),
                measures=(count("Posts"),),
                unit="Share of posts",
                note="The language that the author's app has set, not a detected one.",
            ),
        ),
        Row(
            11,
            Shares(
                title="Posts by type of media",
                shows=EXISTING,
                width=12,
                where=All(POSTS, _MEDIA),
                by=(Top("media.kinds", "Medium", 8),),
                measure=count("Posts"),
            ),
            Series(
                title="Share of new posts, replies and quotes",
                shows=EXISTING,
                width=14,
                where=POSTS,
                style="bar_percentage_stacked",
                split=Cases(
                    {
                        "new posts": All(Not(_REPLY), Not(_QUOTE)),
                        "replies": All(_REPLY, Not(_QUOTE)),
                        "quotes": _QUOTE,
                    },
                    "Post",
                ),
                measures=(count("Posts"),),
                unit="Share of posts",
            ),
            Series(
                title="Posts by length",
                shows=EXISTING,
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
                unit="Posts",
            ),
            Series(
                title="Length of posts over time",
                shows=EXISTING,
                width=11,
                where=POSTS,
                style="line",
                measures=(
                    percentile(50, _LENGTH, "median"),
                    percentile(90, _LENGTH, "90th percentile"),
                ),
                unit="Characters",
            ),
        ),
        Row(20, Documents(title="Latest posts", search=LATEST_POSTS)),
    ),
)
