"""What each panel asks of Elasticsearch, asked of a real node that holds a simulated Bluesky."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.documents.document import quarantined
from slurp.elastic.templates import STATS_INDEX
from slurp.embedded.node import EmbeddedNode
from slurp.events.frames import parse
from slurp.kibana.check import index_pattern, requests
from slurp.kibana.conditions import All
from slurp.kibana.dashboards import DASHBOARDS
from slurp.kibana.objects import scope
from slurp.kibana.panels import Cases, Chart, Documents, Layer, OverTime, Search, Top, View
from slurp.pipeline.progress import OUTCOMES
from slurp.simulator.jetstream import Simulator
from tests.fixtures_es import client_for, remove
from tests.harness import InProcess, commit

Json = dict[str, Any]

pytestmark = pytest.mark.cluster_wide

CHARTS = [
    pytest.param(chart, id=f"{dashboard.name}: {chart.question}")
    for dashboard in DASHBOARDS
    for chart in dashboard.charts
]
SEARCHES = [
    pytest.param(panel.search, id=panel.search.name)
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    if isinstance(panel, Documents)
]


@pytest.fixture(scope="module")
def filled(cluster_wide_node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The `--index` of a small Bluesky: 20,000 events, one of them in quarantine, drift and statistics."""
    index = f"t-{secrets.token_hex(3)}"
    with Simulator(port=0, seed=7) as jetstream, client_for(cluster_wide_node) as es:
        jetstream.generate(20_000)
        # Another test may have left one without our mapping.
        es.options(ignore_status=404).indices.delete(index=STATS_INDEX)
        indexer = InProcess(cluster_wide_node.url, index, tmp_path_factory.mktemp("dashboards"))
        rare = commit(1, {"text": "?", "langs": ["en"], "neverHeardOf": 1})
        counted = indexer.feed([*jetstream.frames, rare])
        assert counted.indexed == 20_001
        indexer.unknown_fields.flush(es)
        now = int(time.time() * 1e6)
        bad = quarantined(parse(jetstream.frames[0]), jetstream.frames[0], "host", now, "type: reason")
        es.index(index=indexer.today, id="quarantined", document=orjson.loads(bad.body))
        es.index(index=STATS_INDEX, id=f"{index}-1", document=_statistics(index))
        es.indices.refresh(index=f"{index}-*,skeetslurper-*")
        yield index
        remove(es, index)


def _statistics(index: str) -> Json:
    """As `slurp.monitoring.stats_index` writes them."""
    names = ("received", *OUTCOMES, "reconnects", "in_flight", "queue", "lag_ms", "rate_in", "rate_out")
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"@timestamp": moment, "index": index, **dict.fromkeys(names, 3)}


@pytest.fixture
def es(es_node: EmbeddedNode) -> Iterator[Elasticsearch]:
    with client_for(es_node) as client:
        yield client


@pytest.mark.parametrize("chart", CHARTS)
def test_every_panel_has_something_to_show(es: Elasticsearch, filled: str, chart: Chart) -> None:
    bodies = requests(chart, filled)
    assert len(bodies) == len(chart.layers)
    for layer, body in zip(chart.layers, bodies, strict=True):
        answer = es.search(index=index_pattern(chart.view, filled), **body)
        assert answer["hits"]["total"]["value"] > 0
        _assert_filled(layer, answer.get("aggregations", {}))


def _assert_filled(layer: Layer, found: Json, depth: int = 0) -> None:
    if depth < len(layer.buckets):
        bucket, buckets = layer.buckets[depth], found[f"b{depth}"]["buckets"]
        if isinstance(bucket, Cases):
            assert set(buckets) == set(bucket.cases)
            full = [one for one in buckets.values() if one["doc_count"]]
            # A case that never occurs is a mistake in its condition.
            assert depth or len(full) == len(buckets), {
                name for name in buckets if not buckets[name]["doc_count"]
            }
        else:
            full = buckets
        assert full, bucket
        _assert_filled(layer, full[0], depth + 1)
        return
    for number, measure in enumerate(layer.measures):
        value: Any = found.get(f"m{number}")
        if isinstance(value, dict) and "doc_count" in value and "value" in value:
            value = value["value"]  # behind the condition of the measure
        if measure.operation == "count":
            assert value is None or "doc_count" in value
        elif measure.operation == "last_value":
            assert value["newest"]["hits"]["hits"], measure
        elif measure.operation == "percentile":
            assert next(iter(value["values"].values())) is not None, measure
        else:
            assert value["value"], measure


@pytest.mark.parametrize(
    "chart",
    [param for param in CHARTS if param.values[0].view is not View.EVENTS],  # type: ignore[union-attr]
)
def test_a_panel_counts_its_own_index_whatever_its_query(
    es: Elasticsearch, filled: str, chart: Chart
) -> None:
    """Kibana drops the query of a panel that ignores the controls."""
    other = f"{filled}x"
    es.index(index=STATS_INDEX, id=f"{other}-1", document=_statistics(other), refresh=True)

    def asked(index: str) -> list[Any]:
        bodies = [{**body, "query": {"match_all": {}}} for body in requests(chart, index)]
        answers = [es.search(index=index_pattern(chart.view, index), **body) for body in bodies]
        return [answer["aggregations"] for answer in answers]

    try:
        both = [{name: one["value"]["value"] for name, one in found.items()} for found in asked(filled)[:1]]
    except KeyError:  # behind a time axis
        (first, *_) = asked(filled)
        both = [
            {name: one["value"]["value"] for name, one in bucket.items() if name.startswith("m")}
            for bucket in first["b0"]["buckets"]
            if bucket["m0"]["doc_count"]
        ]
    assert both and all(value == 3 for found in both for value in found.values())


@pytest.mark.parametrize("search", SEARCHES)
def test_every_saved_search_finds_documents(es: Elasticsearch, filled: str, search: Search) -> None:
    where = All(scope(search.view, filled), search.where)
    answer = es.search(
        index=index_pattern(search.view, filled),
        query=where.query,
        sort={search.newest: "desc"},
        fields=[{"field": name} for name in search.columns],
        size=200,
    )
    shown = {name for hit in answer["hits"]["hits"] for name in hit["fields"]}
    assert shown == set(search.columns)


def test_kinds_of_buckets_are_all_tried() -> None:
    used = {type(bucket) for param in CHARTS for layer in _layers(param) for bucket in layer.buckets}
    assert used == {Cases, OverTime, Top}
    assert {param.values[0].view for param in CHARTS} >= {View.EVENTS, View.STATS}  # type: ignore[union-attr]


def _layers(param: Any) -> tuple[Layer, ...]:
    chart: Chart = param.values[0]
    return chart.layers
