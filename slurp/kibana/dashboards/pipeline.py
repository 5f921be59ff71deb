"""The dashboard "Pipeline health": throughput, delay and outcomes, from the statistics of the workers."""

from __future__ import annotations

from slurp.kibana.colors import BLUE, GREEN, GREY, PINK
from slurp.kibana.panels import (
    ACTIVITY,
    Control,
    Dashboard,
    Measure,
    Metric,
    Row,
    Series,
    Top,
    View,
    highest,
    total,
)


def _number(title: str, field: str, color: str = "", note: str = "", *, trend: bool = False) -> Metric:
    return Metric(
        title=title,
        shows=ACTIVITY,
        view=View.STATS,
        measure=total(field, title),
        color=color,
        note=note,
        trend=trend,
    )


def _chart(
    title: str,
    style: str,
    *,
    measures: tuple[Measure, ...],
    unit: str,
    split: Top | None = None,
    note: str = "",
) -> Series:
    return Series(
        title=title,
        shows=ACTIVITY,
        view=View.STATS,
        style=style,
        split=split,
        measures=measures,
        unit=unit,
        note=note,
    )


PIPELINE_HEALTH = Dashboard(
    name="inside",
    title="Pipeline health",
    description="Throughput, delay and outcomes, from the statistics that each worker writes.",
    span="now-3h",
    controls=(
        Control("worker", "Worker", View.STATS),
        Control("host", "Jetstream server", View.STATS),
    ),
    rows=(
        Row(
            6,
            _number("Received events", "received", GREEN, trend=True),
            _number("Indexed events", "indexed", BLUE, trend=True),
            _number("Duplicates", "duplicates", GREY, "Events that were stored before, as after a restart."),
            _number(
                "Quarantined events",
                "quarantined",
                PINK,
                "Their errors are on Apps and lexicons.",
            ),
            _number("Dead letters", "dead_lettered", "", "Messages that are no events, kept in a file."),
            _number("Reconnects", "reconnects"),
        ),
        Row(
            11,
            _chart(
                "Received and indexed events per second",
                "line",
                # Sums over all workers; the average of a rate would be the average of the workers.
                measures=(
                    total("received", "received", per="s", decimals=0),
                    total("indexed", "indexed", per="s", decimals=0),
                ),
                unit="Events per second",
            ),
            _chart(
                "Highest delay by worker",
                "line",
                split=Top("worker", "Worker", 5),
                measures=(highest("lag_ms", "Delay"),),
                unit="Delay",
                note="The highest delay behind the server. It is high while a worker catches up.",
            ),
        ),
        Row(
            11,
            _chart(
                "Events in flight and queued batches",
                "line",
                measures=(highest("in_flight", "events in flight"), highest("queue", "batches in the queue")),
                unit="Events or batches",
            ),
            _chart(
                "Events not newly indexed, by outcome",
                "bar_stacked",
                measures=(
                    total("duplicates", "duplicates"),
                    total("quarantined", "quarantined"),
                    total("dead_lettered", "dead letters"),
                    total("dropped", "dropped by an ingest pipeline"),
                    total("expired", "expired"),
                ),
                unit="Events",
                note="Empty while all events are new.",
            ),
        ),
        Row(
            11,
            _chart(
                "Received events by Jetstream server",
                "bar_stacked",
                split=Top("host", "Server", 5),
                measures=(total("received", "Events"),),
                unit="Events",
            ),
            _chart(
                "Documents redacted",
                "bar_stacked",
                measures=(total("redacted", "Documents"),),
                unit="Documents",
                note="Content that was removed because it was deleted or replaced on Bluesky. Empty with "
                "--deletions keep.",
            ),
            _chart(
                "Longest wait of a deletion",
                "line",
                measures=(highest("deletions_oldest_ms", "Wait"),),
                unit="Wait",
                note="How long the oldest deletion has waited to be applied.",
            ),
        ),
    ),
)
