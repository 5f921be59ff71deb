"""The state of Kibana's Lens editor for the description of a chart, in the format of Kibana 8.9.

Later versions migrate it at the import. A missing key causes no error at the import but when the panel is
drawn, so the keys here are those that the editor itself writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slurp.kibana.colors import FIXED_COLORS, FIXED_VALUES, PALETTE
from slurp.kibana.conditions import All, Condition
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
    Top,
)

Json = dict[str, Any]

_MAIN, _TREND = "main", "trend"

_PALETTE = "eui_amsterdam_color_blind"
# The color of values without one of their own.
_OTHERS: Json = {
    "rule": {"type": "other"},
    "color": {"type": "categorical", "paletteId": "neutral", "colorIndex": 1},
    "touched": False,
}
# From pale, for few, to dark. A palette that is only named gets random colors (seen in 8.12).
_SEQUENCE = ("#EDF4FA", "#C3DAEE", "#8FBCE0", "#4F94CB", "#1F5F99")
# Pixels of a column of numbers.
_NUMBER_WIDTH = 110

# These operations yield 0 without documents; the others yield no value.
_ZERO_WHERE_NONE = ("count", "unique_count", "sum")


def attributes(chart: Chart, data_view: str, scope: Condition) -> Json:
    """Return the by-value attributes of a Lens panel on the data view of this id, restricted to `scope`."""
    layers = dict(zip((_MAIN, _TREND), chart.layers, strict=False))
    datasource = {_MAIN: _layer(layers[_MAIN])}
    if _TREND in layers:
        # Column ids must be unique over all layers.
        datasource[_TREND] = {**_layer(layers[_TREND], "t"), "linkToLayers": [_MAIN]}
    kind, visualization = _visualization(chart)
    return {
        "title": "",
        "description": chart.note,
        "visualizationType": kind,
        "type": "lens",
        "references": [
            {"type": "index-pattern", "id": data_view, "name": reference_name(name)} for name in layers
        ],
        "state": {
            "visualization": visualization,
            "query": _kuery(All(scope, chart.where)),
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


def _layer(layer: Layer, suffix: str = "") -> Json:
    order = f"m{layer.order}{suffix}"
    columns = {f"b{n}{suffix}": _bucket(bucket, order) for n, bucket in enumerate(layer.buckets)}
    columns |= {f"m{n}{suffix}": _measure(measure) for n, measure in enumerate(layer.measures)}
    return {
        "columns": columns,
        # Lens requires buckets before measures.
        "columnOrder": list(columns),
        "incompleteColumns": {},
        "sampling": 1,
        "ignoreGlobalFilters": False,
    }


def _bucket(bucket: Bucket, order: str) -> Json:
    if isinstance(bucket, OverTime):
        return {
            "label": bucket.field,
            "dataType": "date",
            "operationType": "date_histogram",
            "sourceField": bucket.field,
            "isBucketed": True,
            "scale": "interval",
            "params": {"interval": bucket.interval, "includeEmptyRows": True, "dropPartials": False},
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
            "orderBy": {"type": "alphabetical"} if bucket.in_order else {"type": "column", "columnId": order},
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
    params: Json = (
        {"sortField": "@timestamp", "showArrayValues": False}
        if measure.is_text
        else {"emptyAsNull": measure.has_gaps or measure.operation not in _ZERO_WHERE_NONE}
    )
    if measure.percentile:
        params["percentile"] = measure.percentile
    if measure.decimals is not None:
        params["format"] = {"id": "number", "params": {"decimals": measure.decimals}}
    column: Json = {
        "label": measure.label,
        "customLabel": True,
        "dataType": "string" if measure.is_text else "number",
        "operationType": measure.operation,
        "isBucketed": False,
        "scale": "ordinal" if measure.is_text else "ratio",
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
    has_gaps = any(measure.has_gaps for measure in chart.measures)
    layer = _data_layer(
        seriesType=chart.style,
        accessors=_names("m", chart.measures),
        position="top",
        showGridlines=False,
        xAccessor="b1" if chart.split else "b0",
        **_colors(chart.split),
    )
    if chart.split:
        layer["splitAccessor"] = "b0"
    elif legend:
        layer["yConfig"] = [
            {"forAccessor": name, "axisMode": "left", "color": PALETTE[FIXED_COLORS[measure.label]]}
            for name, measure in zip(_names("m", chart.measures), chart.measures, strict=True)
        ]
    visible = {"x": True, "yLeft": True, "yRight": True}
    return {
        "legend": {"isVisible": legend, "position": "bottom", "shouldTruncate": False},
        "valueLabels": "hide" if over_time else "show",
        # A line connects measured values; a gap is left where there is nothing to connect.
        "fittingFunction": "Linear" if chart.style == "line" and not has_gaps else "None",
        # Without a title of its own, the axis is titled after the first series.
        "yTitle": chart.unit,
        "axisTitlesVisibilitySettings": {"x": False, "yLeft": not is_horizontal, "yRight": True},
        "tickLabelsVisibilitySettings": visible,
        "labelsOrientation": {"x": 0, "yLeft": 0, "yRight": 0},
        "gridlinesVisibilitySettings": visible,
        "preferredSeriesType": chart.style,
        "layers": [layer],
    }


def _colors(split: Top | Cases | None) -> Json:
    """Return the colors of the series if each has a fixed one.

    Without, Kibana chooses them. A mapping without assignments makes all series grey, from 8.13 on also with
    the mode `auto`.
    """
    labels = split.cases if isinstance(split, Cases) else FIXED_VALUES.get(split.field, ()) if split else ()
    if not labels or not all(label in FIXED_COLORS for label in labels):
        return {}
    assignments = [
        {
            "rule": {"type": "matchExactly", "values": [label]},
            "color": {"type": "categorical", "paletteId": _PALETTE, "colorIndex": FIXED_COLORS[label]},
            "touched": True,
        }
        for label in labels
    ]
    mapping = {
        "assignmentMode": "manual",
        "assignments": assignments,
        "specialAssignments": [_OTHERS],
        "paletteId": _PALETTE,
        "colorMode": {"type": "categorical"},
    }
    return {"colorMapping": mapping}


def _shares(chart: Shares) -> Json:
    is_donut = chart.shape == "donut"
    layer = _data_layer(
        primaryGroups=_names("b", chart.by),
        metrics=["m0"],
        numberDisplay="percent" if is_donut else "value",
        categoryDisplay="hide" if is_donut else "default",
        legendDisplay="show" if is_donut else "hide",
        nestedLegend=False,
    )
    if is_donut:
        layer |= {
            "emptySizeRatio": 0.54,
            "legendPosition": "right",
            "legendSize": "large",
            "truncateLegend": False,
        }
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
    )


def _table(chart: Table) -> Json:
    columns: list[Json] = [
        {"columnId": name, "isTransposed": False, **({"hidden": True} if bucket.hidden else {})}
        for name, bucket in zip(_names("b", chart.by), chart.by, strict=True)
    ]
    columns += [
        {
            "columnId": name,
            "isTransposed": False,
            "alignment": "left" if measure.is_text else "right",
            **({"width": width} if (width := _width(measure)) else {}),
        }
        for name, measure in zip(_names("m", chart.measures), chart.measures, strict=True)
    ]
    [layer] = chart.layers
    return _data_layer(
        columns=columns,
        sorting={"columnId": f"m{layer.order}", "direction": "desc"},
        paging={"size": 10, "enabled": True},
        rowHeight="single",
        headerRowHeight="single",
    )


def _width(measure: Measure) -> int | None:
    return measure.width if measure.is_text else _NUMBER_WIDTH


def _heatmap() -> Json:
    return {
        "shape": "heatmap",
        **_data_layer(xAccessor="b1", yAccessor="b0", valueAccessor="m0", palette=_sequence()),
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


def _sequence() -> Json:
    share = 100 // len(_SEQUENCE)
    return {
        "type": "palette",
        "name": "custom",
        "accessor": "m0",
        "params": {
            "name": "custom",
            "steps": len(_SEQUENCE),
            "rangeType": "percent",
            "rangeMin": 0,
            "rangeMax": None,
            "continuity": "above",
            "progression": "fixed",
            "reverse": False,
            "stops": [{"color": color, "stop": share * n} for n, color in enumerate(_SEQUENCE, 1)],
            "colorStops": [{"color": color, "stop": share * n} for n, color in enumerate(_SEQUENCE)],
        },
    }


def _names(letter: str, columns: Iterable[object]) -> list[str]:
    return [f"{letter}{n}" for n, _ in enumerate(columns)]
