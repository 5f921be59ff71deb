"""The dashboard "Apps and lexicons": collections of all apps, rejected fields, and unknown lexicons."""

from __future__ import annotations

from slurp.kibana.conditions import All, Has, Not
from slurp.kibana.dashboards.filters import COMMITS, DELETIONS, THIRD_PARTIES
from slurp.kibana.panels import (
    ACTIVITY,
    EVERYTHING,
    EXISTING,
    Dashboard,
    Documents,
    Row,
    Search,
    Series,
    Shares,
    Table,
    Top,
    View,
    count,
    latest,
    unique,
)

DRIFT = Search(
    name="drift",
    title="Unknown lexicons and fields",
    shows=ACTIVITY,
    columns={
        "kind": 110,
        "collection": 320,
        "field": 320,
        "count": 90,
        "first_seen": 190,
        "example_uri": None,
    },
    where=EVERYTHING,
    view=View.DRIFT,
    newest="last_seen",
)

APPS_AND_LEXICONS = Dashboard(
    name="apps",
    title="Apps and lexicons",
    description="Collections of all apps, records that Elasticsearch rejected, and fields in no known "
    "lexicon.",
    span="now-1h",
    rows=(
        Row(
            12,
            Series(
                title="Created, updated and deleted records per minute",
                shows=ACTIVITY,
                width=30,
                where=COMMITS,
                style="bar_stacked",
                split=Top("commit.operation", "Operation", 3),
                measures=(count("Records per minute", per="m"),),
                unit="Records per minute",
            ),
            Shares(
                title="Events of other apps by collection",
                shows=ACTIVITY,
                where=THIRD_PARTIES,
                by=(Top("commit.collection", "Collection", 8, other=True),),
                measure=count("Events"),
            ),
        ),
        Row(
            16,
            Table(
                title="Collections of Bluesky",
                shows=ACTIVITY,
                where=All(COMMITS, Not(THIRD_PARTIES)),
                by=(Top("commit.collection", "Collection", 50),),
                measures=(count("Events"), unique("did", "Accounts")),
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
        Row(
            12,
            Table(
                title="Quarantined events by error",
                shows=ACTIVITY,
                where=Has("quarantine.error"),
                by=(Top("quarantine.error", "Error", 50),),
                measures=(count("Events"), latest("commit.collection", "Last collection", width=300)),
                note="Events whose fields Elasticsearch rejected; their JSON is stored. Usually empty.",
            ),
        ),
        Row(
            14,
            Documents(
                title="Unknown lexicons and fields",
                search=DRIFT,
                note="Last seen in the time range. They are stored, but not indexed.",
            ),
        ),
    ),
)
