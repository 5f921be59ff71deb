"""How the slurper itself is doing, and what is new to it."""

from __future__ import annotations

from slurp.kibana.conditions import Has
from slurp.kibana.dashboards.filters import BLUE, GREEN, GREY, PINK, THIRD_PARTIES
from slurp.kibana.panels import (
    EVERYTHING,
    Dashboard,
    Documents,
    Metric,
    Row,
    Search,
    Series,
    Table,
    Top,
    View,
    count,
    highest,
    latest,
    percentile,
    total,
    unique,
)

DRIFT = Search(
    name="drift",
    title="New lexicons and fields",
    columns={
        "kind": 110,
        "collection": 260,
        "field": 260,
        "count": 90,
        "first_seen": 190,
        "example_uri": None,
    },
    where=EVERYTHING,
    view=View.DRIFT,
    newest="last_seen",
)

INSIDE = Dashboard(
    name="inside",
    title="Inside the slurper",
    question="Is everything taken, in time, and what has Bluesky begun to send?",
    span="now-3h",
    refresh=30,
    rows=(
        Row(
            6,
            Metric(
                question="How much was received?",
                view=View.STATS,
                measure=total("received", "Received"),
                color=GREEN,
                trend=True,
            ),
            Metric(
                question="How much is new here?",
                view=View.STATS,
                measure=total("indexed", "Indexed"),
                color=BLUE,
                trend=True,
            ),
            Metric(
                question="How much was there already?",
                view=View.STATS,
                measure=total("duplicates", "Duplicates"),
                color=GREY,
                trend=True,
            ),
            Metric(
                question="How much was refused?",
                view=View.STATS,
                measure=total("quarantined", "Quarantined"),
                color=PINK,
                trend=True,
            ),
            Metric(
                question="How much was no event?",
                view=View.STATS,
                measure=total("dead_lettered", "Dead letters"),
            ),
            Metric(
                question="How often did the line break?",
                view=View.STATS,
                measure=total("reconnects", "Reconnects"),
            ),
        ),
        Row(
            11,
            Series(
                question="How many events a second are received, and how many of them are new?",
                view=View.STATS,
                style="line",
                # Sums, for an average would be that of the workers.
                measures=(total("received", "received", "s", 0), total("indexed", "indexed", "s", 0)),
            ),
            Series(
                question="How much waits for an answer?",
                view=View.STATS,
                style="line",
                measures=(highest("in_flight", "events in flight"), highest("queue", "batches in the queue")),
            ),
        ),
        Row(
            11,
            Series(
                question="How late do events arrive?",
                style="line",
                measures=(
                    percentile(50, "event.lag_ms", "half"),
                    percentile(95, "event.lag_ms", "95 of 100"),
                    percentile(99, "event.lag_ms", "99 of 100"),
                ),
            ),
            Series(
                question="What became of what was not indexed?",
                view=View.STATS,
                style="bar_stacked",
                measures=(
                    total("duplicates", "duplicates"),
                    total("quarantined", "quarantined"),
                    total("dead_lettered", "dead letters"),
                    total("dropped", "dropped by a pipeline"),
                    total("expired", "expired"),
                ),
            ),
            Series(
                question="Which server sends?",
                style="bar_stacked",
                split=Top("jetstream.host", "Server", 5),
                measures=(count("Events a minute", per="m"),),
            ),
        ),
        Row(
            13,
            Table(
                question="What did Elasticsearch refuse, and why?",
                where=Has("quarantine.error"),
                by=(Top("quarantine.error", "Error", 50),),
                measures=(count("Events"), latest("commit.collection", "Last collection")),
            ),
            Table(
                question="Which other apps are in the stream?",
                where=THIRD_PARTIES,
                by=(Top("commit.collection", "Collection", 100),),
                measures=(count("Events"), unique("did", "People"), latest("uri", "Last record")),
            ),
        ),
        Row(14, Documents(question="Which lexicons and fields are new to us?", search=DRIFT)),
    ),
)
