"""Panels and saved searches declare what they show; those with content exclude what is redacted or hidden."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from slurp.documents.existing import EXISTING as EXISTING_QUERY
from slurp.documents.existing import KQL
from slurp.kibana.conditions import All
from slurp.kibana.dashboards import DASHBOARDS
from slurp.kibana.objects import build, panels_of, scope
from slurp.kibana.panel_queries import field_types, problems, search_problems
from slurp.kibana.panels import (
    ACTIVITY,
    EXISTING,
    Measure,
    Metric,
    Search,
    Shows,
    Table,
    Top,
    View,
    count,
    latest,
    unique,
)
from slurp.lexicons import committed

FILTER = "(redacted.at : *) or (hidden : true)"


def test_a_panel_and_a_saved_search_must_declare_what_they_show() -> None:
    with pytest.raises(TypeError, match="shows"):
        Metric(title="?", measure=count("Events"))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="shows"):
        Search(name="?", title="?", columns={}, where=All())  # type: ignore[call-arg]


def test_content_is_an_error_in_a_panel_or_search_of_activity() -> None:
    types = field_types(View.EVENTS, committed())

    def table(field: str, measure: Measure, shows: Shows) -> list[str]:
        return list(
            problems(Table(title="?", shows=shows, by=(Top(field, "?"),), measures=(measure,)), types)
        )

    for field in ("did", "uri", "text", "tags", "links", "name.keyword", "lang"):
        search = Search("?", "?", columns={field: None}, shows=ACTIVITY, where=All())
        assert list(search_problems(search, types)) == [f"{field} is content: ? must show EXISTING"]
        assert not list(search_problems(replace(search, shows=EXISTING), types))
    assert table("tags", count("Posts"), ACTIVITY) == ["tags is content: ? must show EXISTING"]
    assert table("kind", latest("did", "Last"), ACTIVITY) == ["did is content: ? must show EXISTING"]
    assert table("tags", latest("did", "Last"), EXISTING) == []
    assert table("kind", unique("did", "Accounts"), ACTIVITY) == [], "a count of values shows none of them"


def test_each_saved_object_has_the_query_of_what_it_shows() -> None:
    charts = {(board.title, chart.title): chart for board in DASHBOARDS for chart in board.charts}
    checked = 0
    for one in build():
        if one["type"] == "search":
            source = orjson.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
            # Unknown fields are no events.
            assert (FILTER in source["query"]["query"]) == (not one["id"].endswith("drift"))
        if one["type"] != "dashboard":
            continue
        for panel in panels_of(one):
            chart = charts.get((one["attributes"]["title"], panel.get("title", "")))
            if chart is not None and chart.view is View.EVENTS:
                query = panel["embeddableConfig"]["attributes"]["state"]["query"]["query"]
                assert (FILTER in query) == (chart.shows is EXISTING), chart.title
                checked += 1
    assert checked == sum(chart.view is View.EVENTS for chart in charts.values()) > 25


def test_kibana_and_the_page_use_the_same_filter() -> None:
    existing, activity = (list(scope(View.EVENTS, shows, "x").leaves()) for shows in (EXISTING, ACTIVITY))
    gone = [leaf for leaf in existing if leaf not in activity]
    assert [leaf.query for leaf in gone] == EXISTING_QUERY["bool"]["must_not"]
    assert " and ".join(f"not {leaf.kql}" for leaf in gone).replace(" :", ":") == KQL
