"""The dashboard "Engagement": posts and authors with the most attention, from the trends of hours."""

from __future__ import annotations

from slurp.kibana.colors import BLUE, GREEN, PINK
from slurp.kibana.dashboards import trends
from slurp.kibana.panels import Dashboard, Row

ENGAGEMENT = Dashboard(
    name="likes",
    title="Engagement",
    description="Posts and authors with the most likes, reposts, quotes and replies, from hourly trends.",
    span="now-24h/h",
    rows=(
        Row(
            6,
            trends.number("Likes", "hour", "likes", PINK),
            trends.number("Reposts", "hour", "reposts", GREEN),
            trends.number("Posts", "hour", "posts", BLUE),
            trends.most("Most authors in an hour", "hour", "authors"),
        ),
        Row(16, trends.posts("Most liked posts", "hour", "posts_by_likes", "Likes")),
        Row(
            12,
            trends.over_time(
                "Likes, posts and reposts per hour",
                "hour",
                {"likes": "likes", "posts": "posts", "reposts": "reposts"},
                "Records per hour",
                width=30,
            ),
            trends.people("Authors with the most likes", "hour", "people_by_likes", "Likes"),
        ),
        Row(15, trends.posts("Most reposted posts", "hour", "posts_by_reposts", "Reposts")),
        Row(15, trends.posts("Most quoted posts", "hour", "posts_by_quotes", "Quotes")),
        Row(15, trends.posts("Posts with the most replies", "hour", "posts_by_replies", "Replies")),
    ),
)
