"""The dashboard "Worker status": throughput, lag, rejected events, and unknown lexicons and fields."""

from __future__ import annotations

from slurp.kibana.conditions import All, Has, Not
from slurp.kibana.dashboards.filters import BLUE, DELETIONS, GREEN, GREY, PINK, THIRD_PARTIES
from slurp.kibana.panels import (
    ACTIVITY,
    EVERYTHING,
    EXISTING,
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
    title="Unknown lexicons and fields",
    shows=ACTIVITY,
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

WORKER = Dashboard(
    name="inside",
    title="Worker status",
    description="Throughput, lag, rejected events, other apps, and unknown lexicons and fields.",
    span="now-3h",
    refresh=30,
    rows=(
        Row(
            6,
            Metric(
                title="Received events",
                shows=ACTIVITY,
                view=View.STATS,
                measure=total("received", "Received"),
                color=GREEN,
                trend=True,
            ),
            Metric(
                title="Indexed events",
                shows=ACTIVITY,
                view=View.STATS,
                measure=total("indexed", "Indexed"),
                color=BLUE,
                trend=True,
            ),
            Metric(
                title="Duplicates",
                shows=ACTIVITY,
                view=View.STATS,
                measure=total("duplicates", "Duplicates"),
                color=GREY,
                trend=True,
            ),
            Metric(
                title="Quarantined events",
                shows=ACTIVITY,
                view=View.STATS,
                measure=total("quarantined", "Quarantined"),
                color=PINK,
                trend=True,
            ),
            Metric(
                title="Dead letters",
                shows=ACTIVITY,
                view=View.STATS,
                measure=total("dead_lettered", "Dead letters"),
            ),
            Metric(
                title="Reconnects",
                shows=ACTIVITY,
                view=View.STATS,
                measure=total("reconnects", "Reconnects"),
            ),
        ),
        Row(
            11,
            Series(
                title="Received and indexed events per second",
                shows=ACTIVITY,
                view=View.STATS,
                style="line",
                # Sums over all workers; the average of a rate would be the average of the workers.
                measures=(total("received", "received", "s", 0), total("indexed", "indexed", "s", 0)),
            ),
            Series(
                title="Events in flight and queued batches",
                shows=ACTIVITY,
                view=View.STATS,
                style="line",
                measures=(highest("in_flight", "events in flight"), highest("queue", "batches in the queue")),
            ),
        ),
        Row(
            11,
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
            Series(
                title="Events not newly indexed, by outcome",
                shows=ACTIVITY,
                view=View.STATS,
                style="bar_stacked",
                measures=(
                    total("duplicates", "duplicates"),
                    total("quarantined", "quarantined"),
                    total("dead_lettered", "dead letters"),
                    total("dropped", "dropped by an ingest pipeline"),
                    total("expired", "expired"),
                ),
            ),
            Series(
                title="Events per minute by Jetstream server",
                shows=ACTIVITY,
                style="bar_stacked",
                split=Top("jetstream.host", "Server", 5),
                measures=(count("Events per minute", per="m"),),
            ),
        ),
        Row(
            13,
            Table(
                title="Quarantined events by error",
                shows=ACTIVITY,
                where=Has("quarantine.error"),
                by=(Top("quarantine.error", "Error", 50),),
                measures=(count("Events"), latest("commit.collection", "Last collection")),
            ),
            Table(
                title="Collections of other apps",
                shows=EXISTING,
                where=All(THIRD_PARTIES, Not(DELETIONS)),
                by=(Top("commit.collection", "Collection", 100),),
                measures=(
                    count("Records"),
                    unique("did", "Accounts"),
                    latest("at_uri", "Last record", where=Has("uri")),
                ),
            ),
        ),
        Row(14, Documents(title="Unknown lexicons and fields", search=DRIFT)),
    ),
)
