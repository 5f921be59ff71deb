"""The queries that Kibana sends for a panel, and a check of the fields they use.

Both are built from the description of the panel, so that panels can be tested without Kibana.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from slurp.elastic.templates import asset, day_mappings
from slurp.kibana.conditions import All, Begins, Between, Condition, Has, Is
from slurp.kibana.data_views import DATA_VIEWS
from slurp.kibana.objects import scope
from slurp.kibana.panels import (
    Bucket,
    Cases,
    Chart,
    Layer,
    Measure,
    OverTime,
    Search,
    Shows,
    Top,
    View,
)
from slurp.lexicons import Compiled

Json = dict[str, Any]

_NUMBERS = frozenset({"long", "integer", "short", "float", "double"})
_KEYWORDS = frozenset({"keyword", "boolean"})

# The types of fields that an operation of Lens supports.
_SUPPORTED = {
    "last_value": _KEYWORDS | _NUMBERS | {"date"},
    "max": _NUMBERS | {"date"},
    "percentile": _NUMBERS,
    "sum": _NUMBERS,
    "unique_count": _KEYWORDS | _NUMBERS | {"date"},
}


# The fields of events whose values may be shown of redacted and hidden documents: of no user's content.
_ACTIVITY_FIELDS = frozenset(
    {
        "@timestamp",
        "account.active",
        "account.status",
        "commit.collection",
        "commit.operation",
        "event.hour",
        "event.ingested",
        "event.lag_ms",
        "event.weekday",
        "jetstream.host",
        "kind",
        "quarantine.error",
    }
)


def search_bodies(chart: Chart, index: str) -> list[Json]:
    """Return the bodies of the `_search` requests, one for each layer of the panel."""
    where = All(scope(chart.view, chart.shows, index), chart.where)
    return [
        {"size": 0, "track_total_hits": True, "query": where.query, "aggs": _aggregations(layer)}
        for layer in chart.layers
    ]


def index_pattern(view: View, index: str) -> str:
    return view.value.format(index=index)


def problems(chart: Chart, types: Mapping[str, str]) -> Iterator[str]:
    """Yield an error for each field of the panel that is not in `types` (by path) or has a wrong type.

    In a panel of activity, a field with content is an error as well.
    """
    yield from _condition_problems(chart.where, types)
    yield from _content_problems(chart, _shown_fields(chart))
    for layer in chart.layers:
        for bucket in layer.buckets:
            yield from _bucket_problems(bucket, types)
        for measure in layer.measures:
            if measure.where is not None:
                yield from _condition_problems(measure.where, types)
            if measure.field:
                yield from _type_problem(
                    measure.operation, measure.field, _SUPPORTED[measure.operation], types
                )


def search_problems(search: Search, types: Mapping[str, str]) -> Iterator[str]:
    """Yield an error for each field of the saved search that is missing or has a wrong type.

    In a search of activity, a column with content is an error as well.
    """
    yield from _condition_problems(search.where, types)
    yield from _content_problems(search, search.columns)
    yield from _type_problem("newest", search.newest, frozenset({"date"}), types)
    for name in search.columns:
        if name not in types:
            yield f"column {name}: no such field"


def field_types(view: View, lexicons: Compiled) -> dict[str, str]:
    """Return path and type of every field of a data view: mapped fields and runtime fields."""
    mappings = day_mappings(lexicons) if view is View.EVENTS else asset(view.name.lower())["mappings"]
    scripts = next(data_view.scripts for data_view in DATA_VIEWS if data_view.view is view)
    return {**dict(_leaves(mappings, "")), **dict.fromkeys(scripts, "keyword")}


def _leaves(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, child in mapping.get("properties", {}).items():
        if "properties" in child:
            yield from _leaves(child, f"{prefix}{name}.")
            continue
        yield f"{prefix}{name}", child["type"]
        for part, inner in child.get("fields", {}).items():
            yield f"{prefix}{name}.{part}", inner["type"]


def _shown_fields(chart: Chart) -> Iterator[str]:
    """Yield the fields whose values the panel shows, in contrast to counts of values."""
    for layer in chart.layers:
        for bucket in layer.buckets:
            if isinstance(bucket, Top | OverTime):
                yield bucket.field
        for measure in layer.measures:
            if measure.field and measure.operation != "unique_count":
                yield measure.field


def _content_problems(shown: Chart | Search, fields: Iterable[str]) -> Iterator[str]:
    if shown.view is View.EVENTS and shown.shows is Shows.ACTIVITY:
        for field in sorted(set(fields) - _ACTIVITY_FIELDS):
            yield f"{field} is content: {shown.title} must show EXISTING"


def _bucket_problems(bucket: Bucket, types: Mapping[str, str]) -> Iterator[str]:
    if isinstance(bucket, OverTime):
        yield from _type_problem("date_histogram", bucket.field, frozenset({"date"}), types)
    elif isinstance(bucket, Top):
        yield from _type_problem("terms", bucket.field, _KEYWORDS, types)
    else:
        for condition in bucket.cases.values():
            yield from _condition_problems(condition, types)


def _condition_problems(condition: Condition, types: Mapping[str, str]) -> Iterator[str]:
    for leaf in condition.leaves():
        if isinstance(leaf, Is):
            supported = frozenset({"boolean" if isinstance(leaf.value, bool) else "keyword"})
        elif isinstance(leaf, Begins):
            supported = frozenset({"keyword"})
        elif isinstance(leaf, Between):
            supported = _NUMBERS
        else:
            supported = frozenset(types.values())
        yield from _type_problem(type(leaf).__name__, leaf.field, supported, types)


def _type_problem(
    operation: str, field: str, supported: frozenset[str], types: Mapping[str, str]
) -> Iterator[str]:
    if field not in types:
        yield f"{operation} of {field}: no such field"
    elif types[field] not in supported:
        yield f"{operation} of {field}: does not support fields of type {types[field]}"


def _aggregations(layer: Layer) -> Json:
    inner = {f"m{n}": body for n, measure in enumerate(layer.measures) if (body := _measure(measure))}
    for n, bucket in reversed(list(enumerate(layer.buckets))):
        body = _bucket(bucket, layer)
        # Outer buckets need the measures as well, for their order.
        inner = {f"b{n}": {**body, "aggs": inner} if inner else body} | _measures_of(inner)
    return inner


def _measures_of(inner: Json) -> Json:
    return {name: body for name, body in inner.items() if name.startswith("m")}


def _bucket(bucket: Bucket, layer: Layer) -> Json:
    if isinstance(bucket, OverTime):
        interval = "30s" if bucket.interval == "auto" else bucket.interval
        return {"date_histogram": {"field": bucket.field, "fixed_interval": interval, "min_doc_count": 1}}
    if isinstance(bucket, Cases):
        return {"filters": {"filters": {label: one.query for label, one in bucket.cases.items()}}}
    by = f"m{layer.order}" if _measure(layer.measures[layer.order]) else "_count"
    order = {"_key": "asc"} if bucket.in_order else {by: "desc"}
    return {"terms": {"field": bucket.field, "size": bucket.size, "order": order}}


def _measure(measure: Measure) -> Json | None:
    """Return the aggregation; None for a plain count, which every bucket contains as doc_count."""
    body: Json
    if measure.operation == "count":
        return None if measure.where is None else {"filter": measure.where.query}
    if measure.operation == "last_value":
        has = measure.where or Has(measure.field)
        newest = {"sort": [{"@timestamp": "desc"}], "size": 1, "_source": False, "fields": [measure.field]}
        return {"filter": has.query, "aggs": {"newest": {"top_hits": newest}}}
    if measure.operation == "percentile":
        body = {"percentiles": {"field": measure.field, "percents": [measure.percentile]}}
    else:
        names = {"unique_count": "cardinality", "sum": "sum", "max": "max"}
        body = {names[measure.operation]: {"field": measure.field}}
    return body if measure.where is None else {"filter": measure.where.query, "aggs": {"value": body}}
