"""What Kibana will ask of Elasticsearch for a panel, and whether the fields can answer it.

Made from the same description as the panel, so that every panel can be tried without a Kibana.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slurp.elastic.templates import asset, day_mappings
from slurp.kibana.conditions import Begins, Between, Condition, Has, Is
from slurp.kibana.objects import scope
from slurp.kibana.panels import Bucket, Cases, Chart, Layer, Measure, OverTime, Search, Top, View, asked
from slurp.lexicons import Compiled

Json = dict[str, Any]

_NUMBERS = frozenset({"long", "integer", "short", "float", "double"})
_WORDS = frozenset({"keyword", "boolean"})

# Which types of field an operation of Lens, or a condition, can work on.
_FITTING = {
    "last_value": _WORDS | _NUMBERS | {"date"},
    "max": _NUMBERS | {"date"},
    "percentile": _NUMBERS,
    "sum": _NUMBERS,
    "unique_count": _WORDS | _NUMBERS | {"date"},
}


def requests(chart: Chart, index: str) -> list[Json]:
    """Bodies for `_search`, one for each layer of the panel."""
    where, layers = asked(chart, scope(chart.view, index))
    return [
        {"size": 0, "track_total_hits": True, "query": where.query, "aggs": _aggregations(layer)}
        for layer in layers
    ]


def index_pattern(view: View, index: str) -> str:
    return view.value.format(index=index)


def problems(chart: Chart, types: Mapping[str, str]) -> Iterator[str]:
    """Fields of the panel that are not in `types` (path to type), or not fit for what is asked of them."""
    yield from _condition_problems(chart.where, types)
    for layer in chart.layers:
        for bucket in layer.buckets:
            yield from _bucket_problems(bucket, types)
        for measure in layer.measures:
            if measure.where is not None:
                yield from _condition_problems(measure.where, types)
            if measure.field:
                yield from _unfit(measure.operation, measure.field, _FITTING[measure.operation], types)


def search_problems(search: Search, types: Mapping[str, str]) -> Iterator[str]:
    yield from _condition_problems(search.where, types)
    yield from _unfit("newest", search.newest, frozenset({"date"}), types)
    for name in search.columns:
        if name not in types:
            yield f"column {name}: no such field"


def field_types(view: View, lexicons: Compiled) -> dict[str, str]:
    """Path to type of every mapped field behind a data view."""
    mappings = day_mappings(lexicons) if view is View.EVENTS else asset(view.name.lower())["mappings"]
    return dict(_leaves(mappings, ""))


def _leaves(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, child in mapping.get("properties", {}).items():
        if "properties" in child:
            yield from _leaves(child, f"{prefix}{name}.")
            continue
        yield f"{prefix}{name}", child["type"]
        for part, inner in child.get("fields", {}).items():
            yield f"{prefix}{name}.{part}", inner["type"]


def _bucket_problems(bucket: Bucket, types: Mapping[str, str]) -> Iterator[str]:
    if isinstance(bucket, OverTime):
        yield from _unfit("date_histogram", bucket.field, frozenset({"date"}), types)
    elif isinstance(bucket, Top):
        yield from _unfit("terms", bucket.field, _WORDS, types)
    else:
        for condition in bucket.cases.values():
            yield from _condition_problems(condition, types)


def _condition_problems(condition: Condition, types: Mapping[str, str]) -> Iterator[str]:
    for leaf in condition.leaves():
        if isinstance(leaf, Is):
            fitting = frozenset({"boolean" if isinstance(leaf.value, bool) else "keyword"})
        elif isinstance(leaf, Begins):
            fitting = frozenset({"keyword"})
        elif isinstance(leaf, Between):
            fitting = _NUMBERS
        else:
            fitting = frozenset(types.values())
        yield from _unfit(type(leaf).__name__, leaf.field, fitting, types)


def _unfit(operation: str, field: str, fitting: frozenset[str], types: Mapping[str, str]) -> Iterator[str]:
    if field not in types:
        yield f"{operation} of {field}: no such field"
    elif types[field] not in fitting:
        yield f"{operation} of {field}: not for fields of type {types[field]}"


def _aggregations(layer: Layer) -> Json:
    inner = {f"m{n}": body for n, measure in enumerate(layer.measures) if (body := _measure(measure))}
    for n, bucket in reversed(list(enumerate(layer.buckets))):
        body = _bucket(bucket, layer.measures[0])
        # The order of outer buckets needs the measure as well.
        inner = {f"b{n}": {**body, "aggs": inner} if inner else body} | _of_all(inner)
    return inner


def _of_all(inner: Json) -> Json:
    return {name: body for name, body in inner.items() if name.startswith("m")}


def _bucket(bucket: Bucket, first: Measure) -> Json:
    if isinstance(bucket, OverTime):
        return {"date_histogram": {"field": bucket.field, "fixed_interval": "30s", "min_doc_count": 1}}
    if isinstance(bucket, Cases):
        return {"filters": {"filters": {label: one.query for label, one in bucket.cases.items()}}}
    order = {"_key": "asc"} if bucket.in_order else {"m0" if _measure(first) else "_count": "desc"}
    return {"terms": {"field": bucket.field, "size": bucket.size, "order": order}}


def _measure(measure: Measure) -> Json | None:
    """None for what each bucket says by itself, its number of documents."""
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
