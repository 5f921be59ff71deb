"""The dashboard "Long-term trends", from the trends of days, which outlive the events."""

from __future__ import annotations

from slurp.kibana.colors import BLUE, GREEN, PINK, PURPLE
from slurp.kibana.dashboards import trends
from slurp.kibana.panels import Dashboard, Row

LONG_TERM_TRENDS = Dashboard(
    name="long-term",
    title="Long-term trends",
    description="Days (UTC) of a year, also those whose events are removed. Lists add up the daily lists of "
    "the 100 most frequent, so what is never among them is missing.",
    span="now-1y/d",
    rows=(
        Row(
            6,
            trends.most("Most active people in a day", "day", "active_people"),
            trends.number("Posts", "day", "posts", BLUE),
            trends.number("Likes", "day", "likes", PINK),
            trends.number("Follows", "day", "follows", PURPLE),
            trends.number("New accounts", "day", "new_accounts", GREEN),
            trends.number("Deleted accounts", "day", "deleted_accounts"),
        ),
        Row(
            12,
            trends.over_time(
                "Likes, posts, reposts, follows and blocks per day",
                "day",
                {
                    "likes": "likes",
                    "posts": "posts",
                    "reposts": "reposts",
                    "follows": "follows",
                    "blocks": "blocks",
                },
                "Records per day",
            ),
            trends.over_time(
                "New and deleted accounts per day",
                "day",
                {"new accounts": "new_accounts", "deleted accounts": "deleted_accounts"},
                "Accounts per day",
                "bar_stacked",
            ),
        ),
        Row(16, trends.posts("Most liked posts", "day", "posts_by_likes", "Likes")),
        Row(
            16,
            trends.people("New followers", "day", "people_by_followers", "Followers"),
            trends.people("Most likes received", "day", "people_by_likes", "Likes"),
        ),
        Row(
            12,
            trends.top_over_time(
                "Languages over time",
                "day",
                "languages",
                "Language",
                "Share of posts",
                "area_percentage_stacked",
                other=True,
            ),
            trends.top_over_time("Hashtags over time", "day", "tags", "Hashtag", "Posts per day"),
        ),
        Row(
            15,
            trends.values("Hashtags", "day", "tags", "Hashtag", "Posts"),
            trends.values("Linked sites", "day", "sites", "Site", "Posts"),
            trends.values("Other apps", "day", "apps", "App", "Events"),
        ),
        Row(15, trends.values("Linked pages", "day", "links", "Page", "Posts", links=True)),
        Row(
            12,
            trends.top_over_time("Emoji over time", "day", "emoji", "Emoji", "Posts per day"),
            trends.top_over_time("Media over time", "day", "media", "Medium", "Posts per day"),
            trends.top_over_time(
                "Collections over time",
                "day",
                "collections",
                "Collection",
                "Events per day",
                field="collection",
            ),
        ),
    ),
)
