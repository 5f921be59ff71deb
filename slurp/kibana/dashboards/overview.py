"""The dashboard "Overview": events, active people, languages and delay of the last hour."""

from __future__ import annotations

from slurp.kibana.colors import BLUE, GREEN, GREY, PINK, PURPLE
from slurp.kibana.conditions import All, Has
from slurp.kibana.dashboards import trends
from slurp.kibana.dashboards.filters import (
    BLOCK,
    COMMITS,
    FOLLOW,
    FOLLOWS,
    LIKE,
    LIKES,
    POST,
    POSTS,
    REPOST,
    created,
)
from slurp.kibana.panels import (
    ACTIVITY,
    EXISTING,
    Cases,
    Dashboard,
    Heatmap,
    Metric,
    OverTime,
    Row,
    Series,
    Shares,
    Top,
    count,
    percentile,
    unique,
)

_DAY = "now-24h/h"

OVERVIEW = Dashboard(
    name="now",
    title="Overview",
    description="The last hour on Bluesky; lists of posts and people are of the last 24 hours.",
    span="now-1h",
    rows=(
        Row(
            6,
            Metric(title="Events", shows=ACTIVITY, measure=count("Events"), color=GREEN, trend=True),
            Metric(title="Active people", shows=ACTIVITY, measure=unique("did", "Accounts")),
            Metric(
                title="Posts", shows=EXISTING, where=POSTS, measure=count("Posts"), color=BLUE, trend=True
            ),
            Metric(
                title="Likes", shows=EXISTING, where=LIKES, measure=count("Likes"), color=PINK, trend=True
            ),
            Metric(
                title="Follows",
                shows=EXISTING,
                where=FOLLOWS,
                measure=count("Follows"),
                color=PURPLE,
                trend=True,
            ),
            Metric(
                title="Delay, 95th percentile",
                shows=ACTIVITY,
                measure=percentile(95, "event.lag_ms", "Delay"),
                subtitle="95% of the events arrive sooner",
                color=GREY,
            ),
        ),
        Row(
            15,
            trends.posts("Most liked posts", "hour", "posts_by_likes", "Likes", _DAY),
        ),
        Row(
            12,
            Series(
                title="Likes, posts, reposts, follows and blocks per minute",
                shows=ACTIVITY,
                width=30,
                style="line",
                split=Cases(
                    {
                        "likes": created(LIKE),
                        "posts": created(POST),
                        "reposts": created(REPOST),
                        "follows": created(FOLLOW),
                        "blocks": created(BLOCK),
                    },
                    "Activity",
                ),
                measures=(count("Events per minute", per="m"),),
                unit="Events per minute",
            ),
            trends.people("New followers", "hour", "people_by_followers", "Followers", _DAY),
        ),
        Row(
            11,
            Series(
                title="Active people over time",
                shows=ACTIVITY,
                style="area",
                measures=(unique("did", "Accounts"),),
                unit="Accounts",
            ),
            Series(
                title="Posts by language",
                shows=EXISTING,
                where=All(POSTS, Has("lang")),
                style="bar_horizontal",
                x=Top("lang", "Language", 10),
                measures=(count("Posts"),),
                unit="Posts",
                note="The language that the author's app has set, not a detected one.",
            ),
            Series(
                title="Delay: median, p95, p99",
                shows=ACTIVITY,
                style="line",
                measures=(
                    percentile(50, "event.lag_ms", "median"),
                    percentile(95, "event.lag_ms", "95th percentile"),
                    percentile(99, "event.lag_ms", "99th percentile"),
                ),
                unit="Delay",
                note="From the time of the event at the server until the worker received it.",
            ),
        ),
        Row(
            12,
            Shares(
                title="Events by collection",
                shows=ACTIVITY,
                width=18,
                where=COMMITS,
                by=(Top("commit.collection", "Collection", 8, other=True),),
                measure=count("Events"),
            ),
            Heatmap(
                title="Events by collection over time",
                shows=ACTIVITY,
                where=COMMITS,
                x=OverTime(),
                y=Top("commit.collection", "Collection", 12),
                measure=count("Events"),
            ),
        ),
    ),
)
