"""The dashboard "Bluesky activity": events, accounts, languages and lag, minute by minute."""

from __future__ import annotations

from slurp.kibana.dashboards.filters import (
    BLOCK,
    BLUE,
    COMMITS,
    FOLLOW,
    FOLLOWS,
    GREEN,
    GREY,
    LIKE,
    LIKES,
    PINK,
    POST,
    POSTS,
    PURPLE,
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

BLUESKY_ACTIVITY = Dashboard(
    name="now",
    title="Bluesky activity",
    description="Events, active accounts, languages and lag, minute by minute.",
    span="now-1h",
    refresh=30,
    rows=(
        Row(
            6,
            Metric(title="Events", shows=ACTIVITY, measure=count("Events"), color=GREEN, trend=True),
            Metric(title="Active accounts", shows=ACTIVITY, measure=unique("did", "Accounts")),
            Metric(
                title="Posts",
                shows=EXISTING,
                where=POSTS,
                measure=count("Posts"),
                color=BLUE,
                trend=True,
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
                title="Lag, 95th percentile",
                shows=ACTIVITY,
                measure=percentile(95, "event.lag_ms", "Lag"),
                subtitle="95% of the events arrive sooner",
                color=GREY,
            ),
        ),
        Row(
            11,
            Series(
                title="Events per minute by kind",
                shows=ACTIVITY,
                style="bar_stacked",
                split=Top("kind", "Kind", 3),
                measures=(count("Events per minute", per="m"),),
            ),
            Series(
                title="Share of created, updated and deleted records",
                shows=ACTIVITY,
                where=COMMITS,
                style="area_percentage_stacked",
                split=Top("commit.operation", "Operation", 3),
                measures=(count("Events"),),
            ),
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
            ),
            Shares(
                title="Events by collection",
                shows=ACTIVITY,
                where=COMMITS,
                by=(Top("commit.collection", "Collection", 8, other=True),),
                measure=count("Events"),
            ),
        ),
        Row(
            11,
            Series(
                title="Posts by language",
                shows=EXISTING,
                where=POSTS,
                style="bar_horizontal",
                x=Top("lang", "Language", 10),
                measures=(count("Posts"),),
            ),
            Series(
                title="Active accounts over time",
                shows=ACTIVITY,
                style="area",
                measures=(unique("did", "Accounts"),),
            ),
            Series(
                title="Lag over time",
                shows=ACTIVITY,
                style="line",
                measures=(
                    percentile(50, "event.lag_ms", "median"),
                    percentile(95, "event.lag_ms", "95th percentile"),
                    percentile(99, "event.lag_ms", "99th percentile"),
                ),
            ),
        ),
        Row(
            12,
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
