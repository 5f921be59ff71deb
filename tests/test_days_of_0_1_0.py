"""Daily indices of version 0.1.0 beside those of this version: dashboards, saved searches, page, examples.

The same events are stored in both, so that every query must give the same.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from elasticsearch import Elasticsearch, helpers

from bench import version_0_1_0
from slurp.config import parse
from slurp.documents.document import quarantined
from slurp.documents.example_queries import Example, examples
from slurp.elastic.client import Elastic
from slurp.embedded.node import EmbeddedNode
from slurp.events.frames import parse as parse_frame
from slurp.kibana.conditions import All
from slurp.kibana.objects import scope
from slurp.kibana.panel_queries import index_pattern, search_bodies
from slurp.kibana.panels import Chart, Search, View
from slurp.logs import Secrets
from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions
from slurp.web.queries import Overview, PageQueries, Posts, SearchRequest
from tests.fixtures_es import client_for, remove
from tests.harness import InProcess
from tests.test_dashboards_node import CHARTS, SEARCHES

Json = dict[str, Any]

pytestmark = pytest.mark.cluster_wide

EVENT_CHARTS = [param for param in CHARTS if param.values[0].view is View.EVENTS]  # type: ignore[union-attr]
EVENT_SEARCHES = [param for param in SEARCHES if param.values[0].view is View.EVENTS]  # type: ignore[union-attr]
HOST = "host.example"
_TIMES_OF_ARRIVAL = ("event.ingested", "event.lag_ms")


@pytest.fixture(scope="module")
def both(
    cluster_wide_node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The `--index` of 10,000 events in a daily index of version 0.1.0, and of the same events in ours."""
    old, new = f"t-{secrets.token_hex(3)}", f"t-{secrets.token_hex(3)}"
    network = NetworkOptions(odd_revs=0.0)
    with Simulator(port=0, seed=11, network=network) as jetstream, client_for(cluster_wide_node) as es:
        jetstream.generate(10_000)
        indexer = InProcess(cluster_wide_node.url, new, tmp_path_factory.mktemp("days"))
        assert indexer.feed(jetstream.frames).indexed == 10_000
        day = f"{old}-{time.strftime('%Y.%m.%d', time.gmtime())}"
        es.indices.create(index=day, **version_0_1_0.index_body())
        now = int(time.time() * 1e6)
        documents = (version_0_1_0.document(frame, HOST, now) for frame in jetstream.frames)
        helpers.bulk(es, ({"_index": day, "_id": one.id, **orjson.loads(one.body)} for one in documents))
        bad = quarantined(parse_frame(jetstream.frames[0]), jetstream.frames[0], HOST, now, "type: reason")
        for index in (day, indexer.today):
            es.index(index=index, id="quarantined", document=orjson.loads(bad.body))
        es.indices.refresh(index=f"{old}-*,{new}-*")
        yield old, new
        for index in (old, new):
            remove(es, index)


@pytest.fixture
def es(cluster_wide_node: EmbeddedNode) -> Iterator[Elasticsearch]:
    with client_for(cluster_wide_node) as client:
        yield client


def comparable(value: Any) -> Any:
    """Return an answer without names of indices, and without pages, which Kibana computes for our index."""
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, dict):
        kept = {name: comparable(item) for name, item in value.items() if not _is_different(name)}
        return {name: item for name, item in kept.items() if item != {}}
    return value


def _is_different(name: str) -> bool:
    return name in ("_index", "url") or name.endswith(".url")


@pytest.mark.parametrize("chart", EVENT_CHARTS)
def test_every_panel_shows_the_same(es: Elasticsearch, both: tuple[str, str], chart: Chart) -> None:
    for number, layer in enumerate(chart.layers):
        answers = []
        for index in both:
            body = search_bodies(chart, index)[number]
            response = es.search(index=index_pattern(chart.view, index), **body)
            answers.append((response["hits"]["total"]["value"], comparable(response.get("aggregations"))))
        if not any(measure.field in _TIMES_OF_ARRIVAL for measure in layer.measures):
            assert answers[0] == answers[1]
        assert answers[0][0] == answers[1][0] > 0


@pytest.mark.parametrize("search", EVENT_SEARCHES)
def test_every_saved_search_finds_the_same(es: Elasticsearch, both: tuple[str, str], search: Search) -> None:
    found = []
    for index in both:
        response = es.search(
            index=index_pattern(search.view, index),
            query=All(scope(search.view, search.shows, index), search.where).query,
            sort={search.newest: "desc"},
            fields=[{"field": name} for name in search.columns],
            source=False,
            size=1000,
        )
        found.append([(hit["_id"], comparable(hit["fields"])) for hit in response["hits"]["hits"]])
    assert found[0] == found[1]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.title)
def test_every_documented_query_finds_the_same(
    es: Elasticsearch, both: tuple[str, str], example: Example
) -> None:
    body = example.query
    answers = [es.search(index=f"{index}-*", **{"size": 1000, **body}) for index in both]
    assert [answer["_shards"]["failed"] for answer in answers] == [0, 0]
    ids = [sorted(hit["_id"] for hit in answer["hits"]["hits"]) for answer in answers]
    assert ids[0] == ids[1]
    assert comparable(answers[0].get("aggregations")) == comparable(answers[1].get("aggregations"))
    # One request over both is what users send.
    together = es.search(index=",".join(f"{index}-*" for index in both), **{**body, "track_total_hits": True})
    assert together["_shards"]["failed"] == 0
    assert together["hits"]["total"]["value"] == 2 * answers[0]["hits"]["total"]["value"]


@pytest.mark.parametrize("search", [{}, {"q": "the"}, {"lang": "en"}, {"domain": "example.com"}])
def test_the_page_shows_the_same(
    cluster_wide_node: EmbeddedNode, both: tuple[str, str], search: dict[str, str]
) -> None:
    elastic = Elastic(parse(["--es", cluster_wide_node.url], {}), Secrets(()))
    pages = [
        PageQueries(elastic, cast(ElasticProbe, SimpleNamespace(down=None)), index, str) for index in both
    ]
    overviews = [page.overview() for page in pages]
    assert isinstance(overviews[0], Overview)
    assert overviews[0] == overviews[1]
    assert overviews[0].tags
    totals = {cast(Posts, page.posts(SearchRequest.from_parameters(search))).total for page in pages}
    assert len(totals) == 1
    assert totals != {0}


def test_the_page_shows_posts_of_both_versions_alike(
    cluster_wide_node: EmbeddedNode, both: tuple[str, str]
) -> None:
    elastic = Elastic(parse(["--es", cluster_wide_node.url], {}), Secrets(()))
    probe = cast(ElasticProbe, SimpleNamespace(down=None))
    old, new = (PageQueries(elastic, probe, index, str) for index in both)
    for post in cast(Posts, old.posts(SearchRequest())).posts[:10]:
        # Few enough for one page: the order of posts that arrived at the same time is open.
        search = SearchRequest(query=f'"{post.text}"')
        found = [cast(Posts, page.posts(search)).posts for page in (old, new)]
        shown = [{repr(replace(one, age=0, ingested_at="")) for one in posts} for posts in found]
        assert shown[0] == shown[1]
        assert shown[0]
