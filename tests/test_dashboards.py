"""The saved objects of the dashboards, checked without Kibana: layout, references, keys and fields."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.kibana import __main__ as command
from slurp.kibana import lens
from slurp.kibana.colors import FIXED_COLORS
from slurp.kibana.conditions import All, Begins, Between, Condition, Either, Has, Is, Not
from slurp.kibana.dashboards import DASHBOARDS
from slurp.kibana.data_views import DATA_VIEWS
from slurp.kibana.objects import build, panels_of
from slurp.kibana.panel_queries import field_types, problems, search_problems
from slurp.kibana.panels import (
    ACTIVITY,
    COLUMNS,
    EVERYTHING,
    Cases,
    Chart,
    Documents,
    Layer,
    OverTime,
    Row,
    Series,
    Table,
    View,
    count,
)
from slurp.lexicons import committed

Json = dict[str, Any]

OBJECTS = build()
BY_ID = {(one["type"], one["id"]): one for one in OBJECTS}
COMPILED = [one for one in OBJECTS if one["type"] == "dashboard"]
CHARTS = [
    pytest.param(chart, id=f"{dashboard.name}: {chart.title}")
    for dashboard in DASHBOARDS
    for chart in dashboard.charts
]


def test_the_committed_file_is_up_to_date() -> None:
    assert command.main(["build", "--check"]) == 0


def test_a_stale_file_is_detected(tmp_path: Path) -> None:
    stale = tmp_path / "dashboards.ndjson"
    assert command.main(["build", "--check", "--output", str(stale)]) == 1
    assert command.main(["build", "--output", str(stale)]) == 0
    assert command.main(["build", "--check", "--output", str(stale)]) == 0
    stale.write_bytes(stale.read_bytes() + b"\n")
    assert command.main(["build", "--check", "--output", str(stale)]) == 1


def test_the_file_is_reproducible(tmp_path: Path) -> None:
    files = []
    for seed in ("1", "2"):
        files.append(tmp_path / seed)
        subprocess.run(
            [sys.executable, "-m", "slurp.kibana", "build", "--output", str(files[-1])],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("dashboard", COMPILED, ids=lambda one: one["id"])
def test_panels_use_the_filters_of_the_dashboard_and_their_own_query(dashboard: Json) -> None:
    """Kibana drops the query of a panel that ignores them (seen in 8.12)."""
    for panel in panels_of(dashboard):
        if panel["type"] != "lens":
            continue
        state = panel["embeddableConfig"]["attributes"]["state"]
        layers = state["datasourceStates"]["formBased"]["layers"].values()
        assert not any(layer["ignoreGlobalFilters"] for layer in layers)
        query = state["query"]["query"]
        assert "commit.bootstrap" in query or 'index : "bluesky-events"' in query, panel["title"]


def test_panel_ids_are_unique_over_all_dashboards() -> None:
    """With equal ids Kibana would display the content of the previous dashboard."""
    ids = [panel["panelIndex"] for dashboard in COMPILED for panel in panels_of(dashboard)]
    assert len(ids) == len(set(ids))


def test_rates_are_sums_over_all_workers() -> None:
    charts = [chart for dashboard in DASHBOARDS for chart in dashboard.charts if chart.view is View.STATS]
    measures = [measure for chart in charts for layer in chart.layers for measure in layer.measures]
    assert not [measure.label for measure in measures if measure.field.startswith("rate_")]
    assert [measure.label for measure in measures if measure.per == "s"] == ["received", "indexed"]


def test_labels_name_the_counted_things() -> None:
    """Unique counts are labelled with accounts or authors, counts of documents never."""
    actors = {"people", "accounts", "authors", "who", "by"}
    for dashboard in DASHBOARDS:
        for chart in dashboard.charts:
            for measure in (measure for layer in chart.layers for measure in layer.measures):
                words = set(measure.label.lower().split())
                if measure.operation == "count":
                    assert not words & actors, f"{chart.title} {measure.label}"
                elif measure.operation == "unique_count" and measure.field == "did":
                    assert words & actors, f"{chart.title} {measure.label}"


# Titles and layout


def test_titles_are_unique_noun_phrases_and_descriptions_are_sentences() -> None:
    for dashboard in DASHBOARDS:
        titles = [panel.title for panel in dashboard.panels]
        assert len(titles) == len(set(titles))
        for title in [dashboard.title, *titles]:
            assert title[0].isupper()
            assert title[-1].isalnum() or title[-1] == ")", title
            assert len(title) <= 60, title
        assert dashboard.description.endswith(".")
    assert len({dashboard.title for dashboard in DASHBOARDS}) == len(DASHBOARDS)


@pytest.mark.parametrize("dashboard", COMPILED, ids=lambda one: one["id"])
def test_panels_fill_the_grid_without_overlap(dashboard: Json) -> None:
    occupied: Counter[tuple[int, int]] = Counter()
    for panel in panels_of(dashboard):
        grid = panel["gridData"]
        assert grid["x"] + grid["w"] <= COLUMNS
        assert grid["i"] == panel["panelIndex"]
        occupied.update(
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        )
    assert set(occupied.values()) == {1}
    height = max(y for _, y in occupied) + 1
    assert len(occupied) == COLUMNS * height, "no holes"


def test_a_row_that_does_not_fill_the_grid_is_rejected() -> None:
    chart = Series(title="?", shows=ACTIVITY, style="line", measures=(count("Events"),), unit="Events")
    with pytest.raises(ValueError, match="do not fill"):
        Row(5, chart, chart, chart, chart, chart).widths()
    wide = Series(
        title="?", shows=ACTIVITY, style="line", measures=(count("Events"),), unit="Events", width=49
    )
    with pytest.raises(ValueError, match="do not fill"):
        Row(5, wide).widths()


@pytest.mark.parametrize("dashboard", COMPILED, ids=lambda one: one["id"])
def test_each_dashboard_links_to_all(dashboard: Json) -> None:
    (panel,) = [one for one in panels_of(dashboard) if one["type"] == "links"]
    targets = {one["name"]: one["id"] for one in dashboard["references"]}
    links = panel["embeddableConfig"]["attributes"]["links"]
    found = [targets[f"{panel['panelIndex']}:{link['destinationRefName']}"] for link in links]
    assert found == [one["id"] for one in COMPILED]
    # Those with the same documents and time range.
    groups = [{"now", "talk", "apps"}, {"likes", "follows"}, {"long-term"}, {"inside"}]
    [group] = [{f"bluesky-events-{name}" for name in one} for one in groups if dashboard["id"][15:] in one]
    for option in ("useCurrentDateRange", "useCurrentFilters"):
        carried = {id for id, link in zip(found, links, strict=True) if link["options"][option]}
        assert carried == group


def test_dashboards_for_kibana_before_8_11_link_to_all_others_in_markdown() -> None:
    dashboards = [one for one in build(has_links=False) if one["type"] == "dashboard"]
    for dashboard in dashboards:
        (navigation,) = [one for one in panels_of(dashboard) if one["type"] == "visualization"]
        text = navigation["embeddableConfig"]["savedVis"]["params"]["markdown"]
        others = {one["id"] for one in dashboards} - {dashboard["id"]}
        assert {part.split(")")[0] for part in text.split("(#/view/")[1:]} == others
        assert not [one for one in panels_of(dashboard) if one["type"] == "links"]


def test_all_panels_have_the_fields_of_the_controls() -> None:
    """A panel without them is empty as soon as a value is selected."""
    for dashboard, compiled in zip(DASHBOARDS, COMPILED, strict=True):
        controls = orjson.loads(compiled["attributes"]["controlGroupInput"]["panelsJSON"])
        assert controls.keys() == {control.field for control in dashboard.controls}
        for id, control in controls.items():
            assert control["explicitInput"]["id"] == id
            assert f"controlGroup_{id}:optionsListDataView" in {one["name"] for one in compiled["references"]}
        for chart in dashboard.charts:
            for field in controls:
                assert field in _types(chart.view), f"{chart.title}: {field}"
                assert chart.where != EVERYTHING or chart.view is View.STATS, chart.title


def test_panels_over_raw_events_show_three_hours_at_most() -> None:
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            view = panel.search.view if isinstance(panel, Documents) else getattr(panel, "view", None)
            if view is View.EVENTS:
                assert (panel.span or dashboard.span) in ("now-1h", "now-3h"), panel.title
        assert dashboard.refresh == 300


def test_series_of_the_same_name_have_the_same_color_on_all_dashboards() -> None:
    """An action without a fixed color gets another one on each dashboard."""
    for dashboard in DASHBOARDS:
        for chart in dashboard.charts:
            if isinstance(chart, Series):
                labels = list(chart.split.cases) if isinstance(chart.split, Cases) else []
                labels += [one.label for one in chart.measures] if len(chart.measures) > 1 else []
                assert not set(labels) - FIXED_COLORS.keys(), chart.title
                colors = [FIXED_COLORS[label] for label in labels]
                assert len(set(colors)) == len(colors), chart.title


def test_tables_leave_room_for_their_text() -> None:
    for dashboard in DASHBOARDS:
        for chart in dashboard.charts:
            if isinstance(chart, Table) and chart.view is View.TRENDS:
                columns = lens.attributes(chart, "view", All())["state"]["visualization"]["columns"]
                shown = [one for one in columns if not one.get("hidden")]
                assert "width" not in shown[0], "the first column has the rest of the width"
                assert all("width" in one for one in shown[1:]), chart.title


# References


def test_ids_are_unique_and_begin_with_the_index() -> None:
    assert len(BY_ID) == len(OBJECTS)
    assert ("index-pattern", "bluesky-events") in BY_ID
    assert {one["id"] for one in COMPILED} == {
        f"bluesky-events-{name}"
        for name in ("now", "talk", "likes", "follows", "long-term", "inside", "apps")
    }


def test_every_reference_resolves_to_an_object_of_the_file() -> None:
    for one in OBJECTS:
        names = [reference["name"] for reference in one["references"]]
        assert len(names) == len(set(names)), one["id"]
        for reference in one["references"]:
            assert (reference["type"], reference["id"]) in BY_ID


@pytest.mark.parametrize("dashboard", COMPILED, ids=lambda one: one["id"])
def test_each_layer_has_its_reference_in_the_panel_and_on_the_dashboard(dashboard: Json) -> None:
    outer = {one["name"]: one["id"] for one in dashboard["references"]}
    for panel in panels_of(dashboard):
        id = panel["panelIndex"]
        if panel["type"] == "search":
            assert outer[f"{id}:{panel['panelRefName']}"] in {one["id"] for one in OBJECTS}
        elif panel["type"] == "lens":
            state = panel["embeddableConfig"]["attributes"]
            inner = {one["name"]: one["id"] for one in state["references"]}
            layers = state["state"]["datasourceStates"]["formBased"]["layers"]
            assert set(inner) == {f"indexpattern-datasource-layer-{name}" for name in layers}
            for name, target in inner.items():
                assert outer[f"{id}:{name}"] == target


@pytest.mark.parametrize("chart", CHARTS)
def test_accessors_refer_to_columns_and_buckets_come_first(chart: Chart) -> None:
    state = lens.attributes(chart, "view", All())["state"]
    layers = state["datasourceStates"]["formBased"]["layers"]
    columns: Counter[str] = Counter()
    for layer in layers.values():
        columns.update(list(layer["columns"]))
        assert layer["columnOrder"] == list(layer["columns"])
        bucketed = [layer["columns"][name]["isBucketed"] for name in layer["columnOrder"]]
        assert bucketed == sorted(bucketed, reverse=True), "buckets first"
        for column in layer["columns"].values():
            order = column["params"].get("orderBy", {})
            assert order.get("columnId", layer["columnOrder"][-1]) in layer["columns"]
    assert set(columns.values()) == {1}, "unique over all layers"
    named = set(_accessors(state["visualization"]))
    assert named == set(columns)


def _accessors(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _accessors(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _accessors(item, key)
    elif key.endswith(("Accessor", "ccessors", "columnId")) or key in ("primaryGroups", "metrics"):
        yield value


# Import


def test_attributes_required_by_the_import_are_set() -> None:
    for one in OBJECTS:
        assert one["typeMigrationVersion"]
        assert one["attributes"]["title"]
    for dashboard in COMPILED:
        assert dashboard["attributes"]["version"] == 1
        assert dashboard["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"]
    assert command.FILE.stat().st_size < 1_000_000, "far below Kibana's 26 MB for an import"
    assert max(len(orjson.dumps(one)) for one in OBJECTS) < 250_000


def test_objects_of_another_index_and_space_have_other_ids_and_titles() -> None:
    there = build("bsky", "team")
    assert not {one["id"] for one in there} & {one["id"] for one in OBJECTS}
    assert {"bsky.team", "bsky-now.team", "skeetslurper-stats.team"} <= {one["id"] for one in there}
    text = json.dumps(there)
    assert "bluesky-events" not in text
    assert "bsky-*" in text
    assert len({one["attributes"]["title"] for one in [*there, *OBJECTS]}) == len(there) + len(OBJECTS) - 4


# Fields


def _types(view: View) -> dict[str, str]:
    return field_types(view, committed())


@pytest.mark.parametrize("chart", CHARTS)
def test_fields_exist_and_have_a_supported_type(chart: Chart) -> None:
    assert not list(problems(chart, _types(chart.view)))


def test_fields_of_saved_searches_exist() -> None:
    found = [panel.search for one in DASHBOARDS for panel in one.panels if isinstance(panel, Documents)]
    assert len(found) == 2
    for search in found:
        assert not list(search_problems(search, _types(search.view)))


def test_fields_of_data_views_exist() -> None:
    for data_view in DATA_VIEWS:
        types = _types(data_view.view)
        assert types[data_view.time_field] == "date"
        assert not {*data_view.labels, *data_view.formats} - set(types)


def test_a_missing_field_or_wrong_type_is_detected() -> None:
    def chart(**more: Any) -> Chart:
        return Series(title="?", shows=ACTIVITY, style="line", measures=(count("Events"),), unit="?", **more)

    types = {"@timestamp": "date", "text": "text", "kind": "keyword"}
    assert not list(problems(chart(where=Is("kind", "commit")), types))
    assert list(problems(chart(where=Is("text", "hello")), types)) == [
        "Is of text: does not support fields of type text"
    ]
    assert list(problems(chart(where=Has("nowhere")), types)) == ["Has of nowhere: no such field"]
    assert list(problems(chart(x=OverTime("kind")), types))


# Conditions


@pytest.mark.parametrize(
    ("condition", "kql"),
    [
        (All(), ""),
        (Is("kind", "commit"), 'kind : "commit"'),
        (Is("kind", 'a "b"'), 'kind : "a \\"b\\""'),
        (Is("account.active", False), "account.active : false"),
        (Has("text"), "text : *"),
        (Begins("commit.collection", "app.bsky."), "commit.collection : app.bsky.*"),
        (Between("length.graphemes", 0, 25), "length.graphemes >= 0 and length.graphemes < 25"),
        (Between("length.graphemes", 200), "length.graphemes >= 200"),
        (Not(Has("text")), "not (text : *)"),
        (All(Has("a")), "a : *"),
        (All(All(), Has("a"), Has("b")), "(a : *) and (b : *)"),
        (Either(Has("a"), All(Has("b"), Not(Has("c")))), "(a : *) or ((b : *) and (not (c : *)))"),
    ],
)
def test_conditions_as_kql(condition: Condition, kql: str) -> None:
    assert condition.kql == kql


def test_an_unknown_kind_of_chart_is_rejected() -> None:
    class Unknown(Chart):
        @property
        def layers(self) -> tuple[Layer, ...]:
            return (Layer((), (count("Events"),)),)

    with pytest.raises(TypeError, match="Unknown"):
        lens.attributes(Unknown(title="?", shows=ACTIVITY), "view", All())
