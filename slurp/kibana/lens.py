"""The state of Kibana's Lens editor for the description of a chart, in the format of Kibana 8.9.

Later versions migrate it at the import. A missing key causes no error at the import but when the panel is
drawn, so the keys here are those that the editor itself writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slurp.kibana.conditions import Condition
from slurp.kibana.panels import (
    Bucket,
    Cases,
    Chart,
    Cloud,
    Heatmap,
    Layer,
    Measure,
    Metric,
    OverTime,
    Series,
    Shares,
    Table,
    query_and_layers,
)

Json = dict[str, Any]

_MAIN, _TREND = "main", "trend"

# Without `assignmentMode`, or with the loop of later versions in its place, all series get the same color.
_COLORS: Json = {
    "assignmentMode": "auto",
    "assignments": [],
    "specialAssignments": [
        {
            "rule": {"type": "other"},
            "color": {"type": "categorical", "paletteId": "neutral", "colorIndex": 1},
            "touched": False,
        }
    ],
    "paletteId": "eui_amsterdam_color_blind",
    "colorMode": {"type": "categorical"},
}

# These operations yield 0 without documents; the others yield no value.
_ZERO_WHERE_NONE = ("count", "unique_count", "sum")


def attributes(chart: Chart, data_view: str, scope: Condition) -> Json:
    """Return the by-value attributes of a Lens panel on the data view of this id, restricted to `scope`."""
    query, all_layers = query_and_layers(chart, scope)
    layers = dict(zip((_MAIN, _TREND), all_layers, strict=False))
    datasource = {_MAIN: _layer(layers[_MAIN], chart.ignores_controls)}
    if _TREND in layers:
        # Column ids must be unique over all layers.
        datasource[_TREND] = {**_layer(layers[_TREND], chart.ignores_controls, "t"), "linkToLayers": [_MAIN]}
    kind, visualization = _visualization(chart)
    return {
        "title": "",
        "description": "",
        "visualizationType": kind,
        "type": "lens",
        "references": [
            {"type": "index-pattern", "id": data_view, "name": reference_name(name)} for name in layers
        ],
        "state": {
            "visualization": visualization,
            "query": _kuery(query),
            "filters": [],
            "datasourceStates": {
                "formBased": {"layers": datasource},
                "indexpattern": {"layers": {}},
                "textBased": {"layers": {}},
            },
            "internalReferences": [],
            "adHocDataViews": {},
        },
    }


def reference_name(layer: str) -> str:
    return f"indexpattern-datasource-layer-{layer}"


def _kuery(condition: Condition) -> Json:
    return {"query": condition.kql, "language": "kuery"}


# Ids of columns: b0, b1 ... are buckets, m0, m1 ... are measures.


def _layer(layer: Layer, ignores_controls: bool, suffix: str = "") -> Json:
    columns = {f"b{n}{suffix}": _bucket(bucket) for n, bucket in enumerate(layer.buckets)}
    columns |= {f"m{n}{suffix}": _measure(measure) for n, measure in enumerate(layer.measures)}
    return {
        "columns": columns,
        # Lens requires buckets before measures.
        "columnOrder": list(columns),
        "incompleteColumns": {},
        "sampling": 1,
        "ignoreGlobalFilters": ignores_controls,
    }


def _bucket(bucket: Bucket) -> Json:
    if isinstance(bucket, OverTime):
        return {
            "label": bucket.field,
            "dataType": "date",
            "operationType": "date_histogram",
            "sourceField": bucket.field,
            "isBucketed": True,
            "scale": "interval",
            "params": {"interval": "auto", "includeEmptyRows": True, "dropPartials": False},
        }
    if isinstance(bucket, Cases):
        return {
            "label": bucket.label,
            "customLabel": True,
            "dataType": "string",
            "operationType": "filters",
            "scale": "ordinal",
            "isBucketed": True,
            "params": {
                "filters": [
                    {"label": label, "input": _kuery(condition)} for label, condition in bucket.cases.items()
                ]
            },
        }
    order = {"type": "alphabetical"} if bucket.in_order else {"type": "column", "columnId": "m0"}
    return {
        "label": bucket.label,
        "customLabel": True,
        "dataType": "string",
        "operationType": "terms",
        "scale": "ordinal",
        "sourceField": bucket.field,
        "isBucketed": True,
        "params": {
            "size": bucket.size,
            "orderBy": order,
            "orderDirection": "asc" if bucket.in_order else "desc",
            "otherBucket": bucket.other,
            "missingBucket": False,
            "parentFormat": {"id": "terms"},
            "include": [],
            "exclude": [],
            "includeIsRegex": False,
            "excludeIsRegex": False,
        },
    }


def _measure(measure: Measure) -> Json:
    is_last_value = measure.operation == "last_value"
    params: Json = (
        {"sortField": "@timestamp", "showArrayValues": False}
        if is_last_value
        else {"emptyAsNull": measure.operation not in _ZERO_WHERE_NONE}
    )
    if measure.percentile:
        params["percentile"] = measure.percentile
    if measure.decimals is not None:
        params["format"] = {"id": "number", "params": {"decimals": measure.decimals}}
    column: Json = {
        "label": measure.label,
        "customLabel": True,
        "dataType": "string" if is_last_value else "number",
        "operationType": measure.operation,
        "isBucketed": False,
        "scale": "ordinal" if is_last_value else "ratio",
        "sourceField": measure.field or "___records___",
        "params": params,
    }
    if measure.where is not None:
        column["filter"] = _kuery(measure.where)
    if measure.per:
        column["timeScale"] = measure.per
    return column


# Charts


def _visualization(chart: Chart) -> tuple[str, Json]:
    if isinstance(chart, Metric):
        return "lnsMetric", _metric(chart)
    if isinstance(chart, Series):
        return "lnsXY", _series(chart)
    if isinstance(chart, Shares):
        return "lnsPie", _shares(chart)
    if isinstance(chart, Cloud):
        return "lnsTagcloud", _cloud()
    if isinstance(chart, Table):
        return "lnsDatatable", _table(chart)
    if isinstance(chart, Heatmap):
        return "lnsHeatmap", _heatmap()
    raise TypeError(f"no chart of Lens for {type(chart).__name__}")


def _data_layer(**more: Any) -> Json:
    return {"layerId": _MAIN, "layerType": "data", **more}


def _metric(chart: Metric) -> Json:
    state = _data_layer(metricAccessor="m0", showBar=False)
    if chart.subtitle:
        state["subtitle"] = chart.subtitle
    if chart.color:
        state["color"] = chart.color
    if chart.trend:
        state |= {
            "trendlineLayerId": _TREND,
            "trendlineLayerType": "metricTrendline",
            "trendlineMetricAccessor": "m0t",
            "trendlineTimeAccessor": "b0t",
        }
    return state


def _series(chart: Series) -> Json:
    is_horizontal = chart.style == "bar_horizontal"
    over_time = isinstance(chart.x, OverTime)
    legend = chart.split is not None or len(chart.measures) > 1
    layer = _data_layer(
        seriesType=chart.style,
        accessors=[f"m{n}" for n in range(len(chart.measures))],
        position="top",
        showGridlines=False,
        colorMapping=_COLORS,
        xAccessor="b1" if chart.split else "b0",
    )
    if chart.split:
        layer["splitAccessor"] = "b0"
    visible = {"x": True, "yLeft": True, "yRight": True}
    return {
        "legend": {"isVisible": legend, "position": "right"},
        "valueLabels": "hide" if over_time else "show",
        "fittingFunction": "Linear" if chart.style == "line" else "None",
        "axisTitlesVisibilitySettings": {"x": False, "yLeft": not is_horizontal, "yRight": True},
        "tickLabelsVisibilitySettings": visible,
        "labelsOrientation": {"x": 0, "yLeft": 0, "yRight": 0},
        "gridlinesVisibilitySettings": visible,
        "preferredSeriesType": chart.style,
        "layers": [layer],
    }


def _shares(chart: Shares) -> Json:
    is_donut = chart.shape == "donut"
    layer = _data_layer(
        primaryGroups=_names("b", chart.by),
        metrics=["m0"],
        numberDisplay="percent" if is_donut else "value",
        categoryDisplay="default",
        legendDisplay="default" if is_donut else "hide",
        nestedLegend=False,
        colorMapping=_COLORS,
    )
    if is_donut:
        layer |= {"emptySizeRatio": 0.54, "legendPosition": "right"}
    return {"shape": chart.shape, "layers": [layer]}


def _cloud() -> Json:
    return _data_layer(
        tagAccessor="b0",
        valueAccessor="m0",
        # With larger fonts Kibana omits tags, with a warning.
        maxFontSize=30,
        minFontSize=10,
        orientation="single",
        showLabel=False,
        palette={"name": "default", "type": "palette"},
        colorMapping=_COLORS,
    )


def _table(chart: Table) -> Json:
    columns: list[Json] = [
        {"columnId": name, "isTransposed": False, **({"hidden": True} if bucket.hidden else {})}
        for name, bucket in zip(_names("b", chart.by), chart.by, strict=True)
    ]
    columns += [
        {"columnId": name, "isTransposed": False, "alignment": "left" if _is_text(measure) else "right"}
        for name, measure in zip(_names("m", chart.measures), chart.measures, strict=True)
    ]
    return _data_layer(
        columns=columns,
        sorting={"columnId": "m0", "direction": "desc"},
        paging={"size": 10, "enabled": True},
        rowHeight="single",
        headerRowHeight="single",
    )


def _heatmap() -> Json:
    return {
        "shape": "heatmap",
        **_data_layer(xAccessor="b1", yAccessor="b0", valueAccessor="m0"),
        "legend": {"isVisible": True, "position": "right", "type": "heatmap_legend"},
        "gridConfig": {
            "type": "heatmap_grid",
            "isCellLabelVisible": False,
            "isYAxisLabelVisible": True,
            "isXAxisLabelVisible": True,
            "isYAxisTitleVisible": False,
            "isXAxisTitleVisible": False,
        },
    }


def _names(letter: str, columns: Iterable[object]) -> list[str]:
    return [f"{letter}{n}" for n, _ in enumerate(columns)]


def _is_text(measure: Measure) -> bool:
    return measure.operation == "last_value"
