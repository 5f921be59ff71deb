"""The dashboard "People": followers, mentions, and new and deleted accounts, from the trends of hours."""

from __future__ import annotations

from slurp.kibana.colors import BLUE, GREEN, GREY, PINK
from slurp.kibana.dashboards import trends
from slurp.kibana.panels import Dashboard, Row

PEOPLE = Dashboard(
    name="follows",
    title="People",
    description="New followers, mentions, active authors, new and deleted accounts, from hourly trends.",
    span="now-24h/h",
    rows=(
        Row(
            6,
            trends.most("Most active people in an hour", "hour", "active_people", BLUE),
            trends.number("Follows", "hour", "follows", GREEN),
            trends.number("Unfollows", "hour", "unfollows"),
            trends.number("Blocks", "hour", "blocks", PINK),
            trends.number("New accounts", "hour", "new_accounts"),
            trends.number("Deleted accounts", "hour", "deleted_accounts", GREY),
        ),
        Row(
            16,
            trends.people("New followers", "hour", "people_by_followers", "Followers"),
            trends.people("Most mentioned", "hour", "people_by_mentions", "Mentions"),
        ),
        Row(
            16,
            trends.people("Most likes received", "hour", "people_by_likes", "Likes"),
            trends.people("Most posts written", "hour", "people_by_posts", "Posts"),
        ),
        Row(
            12,
            trends.over_time(
                "Follows, unfollows and blocks per hour",
                "hour",
                {"follows": "follows", "unfollows": "unfollows", "blocks": "blocks"},
                "Records per hour",
            ),
            trends.over_time(
                "New and deleted accounts per hour",
                "hour",
                {"new accounts": "new_accounts", "deleted accounts": "deleted_accounts"},
                "Accounts per hour",
                "bar_stacked",
            ),
        ),
    ),
)
