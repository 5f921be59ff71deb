"""The queries of all panels on a real node with simulated events and their trends."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.actors.appview import AppView
from slurp.actors.names import Actors
from slurp.deletions.versions import RatePause, Versions
from slurp.documents.document import quarantined
from slurp.elastic.templates import STATS_INDEX, TRENDS_INDEX
from slurp.embedded.node import EmbeddedNode
from slurp.events.frames import parse
from slurp.kibana.conditions import All
from slurp.kibana.dashboards import DASHBOARDS
from slurp.kibana.data_views import DATA_VIEWS
from slurp.kibana.objects import scope
from slurp.kibana.panel_queries import index_pattern, search_bodies
from slurp.kibana.panels import Cases, Chart, Documents, Layer, OverTime, Search, Top, View
from slurp.pipeline.progress import OUTCOMES
from slurp.simulator.jetstream import Simulator
from slurp.trends.computing import Trends
from slurp.trends.intervals import Interval
from tests.fixtures_es import client_for, remove
from tests.harness import InProcess, commit

Json = dict[str, Any]

pytestmark = pytest.mark.cluster_wide

CHARTS = [
    pytest.param(chart, id=f"{dashboard.name}: {chart.title}")
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
    """The `--index` of 20,000 simulated events, a quarantined one, unknown fields, statistics and trends."""
    index = f"t-{secrets.token_hex(3)}"
    with Simulator(port=0, seed=7) as jetstream, client_for(cluster_wide_node) as es:
        jetstream.generate(20_000)
        # Another test may have left an index without the mapping.
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
        _compute_trends(indexer, jetstream)
        es.indices.refresh(index=TRENDS_INDEX)
        yield index
        remove(es, index)


def _compute_trends(indexer: InProcess, jetstream: Simulator) -> None:
    """Compute the hours and days of the simulated events, with texts and names of the simulated AppView."""
    appview = AppView(jetstream.url.replace("ws://", "http://"))
    versions = Versions(indexer.elastic, indexer.index, RatePause(10_000, threading.Event()))
    actors = Actors(indexer.elastic, indexer.index, appview)
    trends = Trends(indexer.elastic, indexer.index, versions, actors)
    hours = {Interval.hour_of(orjson.loads(frame)["time_us"]) for frame in jetstream.frames}
    for interval in hours | {hour.its_day for hour in hours}:
        trends.compute(interval, generation=1)
    appview.close()


def _statistics(index: str) -> Json:
    """Return a document as `slurp.monitoring.stats_index` writes it."""
    fields = ("received", *OUTCOMES, "reconnects", "in_flight", "queue", "lag_ms", "rate_in", "rate_out")
    numbers = dict.fromkeys((*fields, "redacted", "deletions_oldest_ms"), 3)
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"@timestamp": moment, "index": index, "worker": "w", "host": "host", **numbers}


@pytest.fixture
def es(es_node: EmbeddedNode) -> Iterator[Elasticsearch]:
    with client_for(es_node) as client:
        yield client


@pytest.mark.parametrize("chart", CHARTS)
def test_every_panel_finds_documents(es: Elasticsearch, filled: str, chart: Chart) -> None:
    bodies = search_bodies(chart, filled)
    assert len(bodies) == len(chart.layers)
    for layer, body in zip(chart.layers, bodies, strict=True):
        response = es.search(index=index_pattern(chart.view, filled), **body)
        assert response["hits"]["total"]["value"] > 0
        _assert_filled(layer, response.get("aggregations", {}))


def _assert_filled(layer: Layer, found: Json, depth: int = 0) -> None:
    if depth < len(layer.buckets):
        bucket, buckets = layer.buckets[depth], found[f"b{depth}"]["buckets"]
        if isinstance(bucket, Cases):
            assert set(buckets) == set(bucket.cases)
            full = [one for one in buckets.values() if one["doc_count"]]
            # A case without documents is an error in its condition.
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
            value = value["value"]  # within the filter of the measure
        if measure.operation == "count":
            assert value is None or "doc_count" in value
        elif measure.operation == "last_value":
            assert value["newest"]["hits"]["hits"], measure
        elif measure.operation == "percentile":
            assert next(iter(value["values"].values())) is not None, measure
        else:
            assert value["value"], measure


def test_a_panel_shows_its_own_index_only(es: Elasticsearch, filled: str) -> None:
    other = f"{filled}x"
    es.index(index=STATS_INDEX, id=f"{other}-1", document=_statistics(other), refresh=True)
    row = {
        "@timestamp": datetime.now(UTC),
        "interval": "hour",
        "measure": "totals",
        "key": "likes",
        "count": 1,
    }
    es.index(index=TRENDS_INDEX, id=f"{other}-1", document={**row, "index": other}, refresh=True)
    hidden = {**row, "index": filled, "hidden": True}
    es.index(index=TRENDS_INDEX, id=f"{filled}-hidden", document=hidden, refresh=True)
    found = [param.values[0] for param in CHARTS]
    charts = [chart for chart in found if isinstance(chart, Chart) and chart.view is not View.EVENTS]
    assert {chart.view for chart in charts} == {View.STATS, View.TRENDS}
    for chart in charts:
        for body in search_bodies(chart, filled):
            body |= {"size": 10_000, "source": ["index", "hidden"]}
            hits = es.search(index=index_pattern(chart.view, filled), **body)["hits"]["hits"]
            assert hits and all(hit["_source"] == {"index": filled} for hit in hits), chart.title


@pytest.mark.parametrize("search", SEARCHES)
def test_every_saved_search_finds_documents(es: Elasticsearch, filled: str, search: Search) -> None:
    where = All(scope(search.view, search.shows, filled), search.where)
    response = es.search(
        index=index_pattern(search.view, filled),
        query=where.query,
        sort={search.newest: "desc"},
        fields=[{"field": name} for name in search.columns],
        size=200,
    )
    found = {name for hit in response["hits"]["hits"] for name in hit["fields"]}
    # Kibana computes the runtime fields with scripts, which the node of the tests does not run.
    computed = next(data_view.scripts for data_view in DATA_VIEWS if data_view.view is search.view)
    assert found == search.columns.keys() - computed.keys()


def test_all_kinds_of_buckets_and_views_are_tested() -> None:
    used = {type(bucket) for param in CHARTS for layer in _layers(param) for bucket in layer.buckets}
    assert used == {Cases, OverTime, Top}
    views = {param.values[0].view for param in CHARTS}  # type: ignore[union-attr]
    assert views == {View.EVENTS, View.STATS, View.TRENDS}


def _layers(param: Any) -> tuple[Layer, ...]:
    chart: Chart = param.values[0]
    return chart.layers
