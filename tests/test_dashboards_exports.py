"""The saved objects of the dashboards, compared with exports of a real Kibana."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from slurp.kibana.objects import build
from tests.conftest import SHARED

Json = dict[str, Any]

OBJECTS = build()
COMPILED = [one for one in OBJECTS if one["type"] == "dashboard"]


def _paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every key, with `*` for the ids of layers and columns."""
    if isinstance(value, dict):
        for name, item in value.items():
            here = f"{path}.{'*' if path.endswith(('.layers', '.columns')) else name}"
            yield here
            yield from _paths(item, here)
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, f"{path}[]")


def _all_of(sets: list[set[str]]) -> set[str]:
    return {path for one in sets for path in one}


@pytest.fixture(scope="module")
def exported() -> list[Json]:
    path = SHARED / "kibana" / "shapes.json"
    if not path.is_file():
        pytest.skip(f"no exports of a real Kibana in {SHARED.name}/kibana beside the project")
    shapes = json.loads(path.read_text(encoding="utf-8"))
    for changed in ("accepted-fixes.ndjson", "accepted-ideas.ndjson"):
        text = (path.parent / changed).read_text(encoding="utf-8")
        shapes += [json.loads(line) for line in text.splitlines()]
    return [one for one in shapes if "type" in one]


def _lens_panels(dashboards: list[Json]) -> Iterator[Json]:
    for dashboard in dashboards:
        panels = dashboard["attributes"]["panelsJSON"]
        yield from (orjson.loads(panels) if isinstance(panels, str) else panels)


def _kind(panel: Json) -> str:
    kind = str(panel["type"])
    if kind != "lens":
        return kind
    state = panel["embeddableConfig"]["attributes"]
    shape = state["state"]["visualization"].get("shape", "")
    return f"{state['visualizationType']} {shape}".strip()


def _without_columns(panel: Json) -> Json:
    copy = orjson.loads(orjson.dumps(panel))
    if copy["type"] == "lens":
        layers = copy["embeddableConfig"]["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]
        for layer in layers.values():
            layer["columns"] = {}
    return dict(copy)


def _columns(panels: list[Json]) -> Iterator[tuple[str, Json]]:
    for panel in panels:
        if panel["type"] == "lens":
            state = panel["embeddableConfig"]["attributes"]["state"]
            for layer in state["datasourceStates"]["formBased"]["layers"].values():
                for column in layer["columns"].values():
                    yield column["operationType"], column


# Valid keys that the recorded panels do not use: `timeScale` is a count normalized to a unit of time, as in
# Kibana's own log rate chart; `params.format` occurs in its formula columns, a column filter in its
# last_value columns, `customLabel` in all but its filters column.
NOT_RECORDED = (".timeScale", ".params.format", ".filter", ".customLabel")


# Optional keys: drilldowns, subtitles, widths of columns, and summary rows.
# Without colors, Kibana chooses them.
OPTIONAL = r"\.(hidePanelTitles|subtitle|width|summaryRow|summaryLabel)$|\.dynamicActions|\.colorMapping"
# Recorded for another type of chart: an own time range.
OF_ANY_CHART = {f".embeddableConfig.timeRange{end}" for end in ("", ".from", ".to")}
# Not recorded: the description of a saved search on a dashboard (`EmbeddableInput` in Kibana's source).
OF_ANY_CHART |= {".embeddableConfig.description"}
# Not recorded: a palette with its own colors (`CustomPaletteParams` in Kibana's source).
_STOPS = ".embeddableConfig.attributes.state.visualization.palette.params"


# Not recorded: the switch "Hide column" of a table (`ColumnState` in Kibana's source).
_HIDDEN = ".embeddableConfig.attributes.state.visualization.columns[].hidden"


def test_panels_have_the_keys_of_kibanas_exports(exported: list[Json]) -> None:
    recorded = list(_lens_panels([one for one in exported if one["type"] == "dashboard"]))
    for panel in _lens_panels(COMPILED):
        alike = [set(_paths(_without_columns(one))) for one in recorded if _kind(one) == _kind(panel)]
        assert alike, f"no recorded {_kind(panel)}"
        built = set(_paths(_without_columns(panel)))
        optional = {path for path in _all_of(alike) if re.search(OPTIONAL, path)}
        extra = built - _all_of(alike) - OF_ANY_CHART - {".title", _HIDDEN}
        assert not {path for path in extra if not path.startswith(_STOPS)}, panel["title"]
        missing = set.intersection(*alike) - built - optional
        assert not missing, f"{panel.get('title')}: {missing}"


def test_columns_have_the_keys_of_kibanas_exports(exported: list[Json]) -> None:
    recorded = list(_columns(list(_lens_panels([one for one in exported if one["type"] == "dashboard"]))))
    for operation, column in _columns(list(_lens_panels(COMPILED))):
        alike = [set(_paths(one)) for kind, one in recorded if kind == operation]
        if operation == "max":  # not recorded; has the keys of an average according to Kibana's source
            alike = [set(_paths(one)) for kind, one in recorded if kind == "average"]
        assert alike, f"no recorded {operation}"
        extra = {path for path in set(_paths(column)) - _all_of(alike) if not path.startswith(NOT_RECORDED)}
        assert not extra, f"{column['label']}: {extra}"
        if column["params"].get("orderBy") == {"type": "alphabetical"}:
            alike = [one - {".params.orderBy.columnId"} for one in alike]
        assert set.intersection(*alike) <= set(_paths(column)), column["label"]


@pytest.mark.parametrize("kind", ["index-pattern", "search", "dashboard"])
def test_objects_have_the_attributes_of_kibanas_exports(exported: list[Json], kind: str) -> None:
    alike = [set(one["attributes"]) for one in exported if one["type"] == kind]
    for one in OBJECTS:
        if one["type"] == kind:
            assert set(one["attributes"]) <= set.union(*alike)
            assert set.intersection(*alike) - {"timeFrom", "timeTo"} <= set(one["attributes"])
    decoded = {"fieldAttrs", "fieldFormatMap", "panelsJSON", "optionsJSON", "runtimeFieldMap", "fields"}
    for one in OBJECTS:
        for name in decoded & set(one["attributes"]):
            assert isinstance(one["attributes"][name], str)
            orjson.loads(one["attributes"][name])
