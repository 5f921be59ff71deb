"""What is happening, minute by minute."""

from __future__ import annotations

from slurp.kibana.dashboards.filters import (
    BLOCKS,
    BLUE,
    COMMITS,
    FOLLOWS,
    GREEN,
    GREY,
    LIKES,
    PINK,
    POSTS,
    PURPLE,
    REPOSTS,
)
from slurp.kibana.panels import (
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

NOW = Dashboard(
    name="now",
    title="Bluesky now",
    question="What is happening on Bluesky, minute by minute?",
    span="now-1h",
    refresh=30,
    rows=(
        Row(
            6,
            Metric(question="How much happens?", measure=count("Events"), color=GREEN, trend=True),
            Metric(question="How many people are active?", measure=unique("did", "People")),
            Metric(
                question="How much is written?",
                where=POSTS,
                measure=count("Posts"),
                color=BLUE,
                trend=True,
            ),
            Metric(
                question="How much is liked?", where=LIKES, measure=count("Likes"), color=PINK, trend=True
            ),
            Metric(
                question="How many follow?",
                where=FOLLOWS,
                measure=count("Follows"),
                color=PURPLE,
                trend=True,
            ),
            Metric(
                question="How late are events?",
                measure=percentile(95, "event.lag_ms", "Lag"),
                subtitle="95 of 100 come sooner",
                color=GREY,
            ),
        ),
        Row(
            11,
            Series(
                question="How many events a minute, of which kind?",
                style="bar_stacked",
                split=Top("kind", "Kind", 3),
                measures=(count("Events a minute", per="m"),),
            ),
            Series(
                question="Are records created, changed or deleted?",
                where=COMMITS,
                style="area_percentage_stacked",
                split=Top("commit.operation", "Operation", 3),
                measures=(count("Events"),),
            ),
        ),
        Row(
            12,
            Series(
                question="What do people do, how often a minute?",
                width=30,
                style="line",
                split=Cases(
                    {
                        "likes": LIKES,
                        "posts": POSTS,
                        "reposts": REPOSTS,
                        "follows": FOLLOWS,
                        "blocks": BLOCKS,
                    },
                    "Activity",
                ),
                measures=(count("Events a minute", per="m"),),
            ),
            Shares(
                question="Which collections make up the stream?",
                where=COMMITS,
                by=(Top("commit.collection", "Collection", 8, other=True),),
                measure=count("Events"),
            ),
        ),
        Row(
            11,
            Series(
                question="Which languages are spoken?",
                where=POSTS,
                style="bar_horizontal",
                x=Top("lang", "Language", 10),
                measures=(count("Posts"),),
            ),
            Series(
                question="When are how many people active?",
                style="area",
                measures=(unique("did", "People"),),
            ),
            Series(
                question="How late do events arrive?",
                style="line",
                measures=(
                    percentile(50, "event.lag_ms", "half"),
                    percentile(95, "event.lag_ms", "95 of 100"),
                    percentile(99, "event.lag_ms", "99 of 100"),
                ),
            ),
        ),
        Row(
            12,
            Heatmap(
                question="Which collections are busy when?",
                where=COMMITS,
                x=OverTime(),
                y=Top("commit.collection", "Collection", 12),
                measure=count("Events"),
            ),
        ),
    ),
)
