"""Redacted and hidden documents on a real node: shown and counted by nothing but counts of activity.

A tombstone has the fields that docs/fields.md lists, and no others. The index of these tests has nothing but
redacted and hidden documents, and deletions and other events of hidden accounts, so whatever a search for
content finds is an error. test_dashboards_node.py tests that the same searches find ordinary documents.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from elasticsearch import Elasticsearch, helpers

from slurp.config import parse
from slurp.documents.document import quarantined
from slurp.documents.example_queries import examples
from slurp.documents.existing import EXISTING as EXISTING_QUERY
from slurp.documents.existing import QUERY_STRING
from slurp.elastic.client import Elastic
from slurp.embedded.node import EmbeddedNode
from slurp.events.frames import parse as parse_frame
from slurp.kibana.conditions import All
from slurp.kibana.objects import scope
from slurp.kibana.panel_queries import index_pattern, search_bodies
from slurp.kibana.panels import EXISTING, Chart, Search, View
from slurp.logs import Secrets
from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.simulator.jetstream import Simulator
from slurp.web.queries import Overview, PageQueries, Posts, SearchRequest
from tests.fixtures_es import client_for, remove
from tests.harness import InProcess, commit
from tests.idle_worker import IdleWorker
from tests.rendered_page import RenderedPage, fill, post
from tests.test_dashboards_node import CHARTS, SEARCHES

Json = dict[str, Any]

pytestmark = pytest.mark.cluster_wide

NOW = "2026-11-26T12:00:00.000Z"
CHARTS_OF_EVENTS: list[Chart] = [
    param.values[0]  # type: ignore[misc]
    for param in CHARTS
    if param.values[0].view is View.EVENTS  # type: ignore[union-attr]
]
OF_EXISTING = [pytest.param(one, id=one.title) for one in CHARTS_OF_EVENTS if one.shows is EXISTING]
OF_ACTIVITY = [pytest.param(one, id=one.title) for one in CHARTS_OF_EVENTS if one.shows is not EXISTING]
CONTENT_SEARCHES = [param for param in SEARCHES if param.values[0].view is View.EVENTS]  # type: ignore[union-attr]


def tombstone(source: Json, reason: str) -> Json:
    """Return what is left of a document after its redaction for this reason."""
    kept, parts = ["@timestamp", "kind", "event"], ["collection", "operation", "rev"]
    if reason != "account":
        kept += ["did", "uri"]
        parts += ["rkey"]
    return {
        **{name: source[name] for name in kept},
        "commit": {name: source["commit"][name] for name in parts},
        "redacted": {"at": NOW, "reason": reason},
    }


def has_content(source: Json) -> bool:
    """Return whether a document is a version of a record, which a deletion or an update may redact."""
    return bool(source["kind"] == "commit" and source["commit"]["operation"] != "delete")


@pytest.fixture(scope="module")
def gone(cluster_wide_node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The `--index` of 20,000 simulated events: every second record redacted, everything else hidden."""
    index = f"t-{secrets.token_hex(3)}"
    with Simulator(port=0, seed=7) as jetstream, client_for(cluster_wide_node) as es:
        jetstream.generate(20_000)
        indexer = InProcess(cluster_wide_node.url, index, tmp_path_factory.mktemp("existing"))
        assert indexer.feed(jetstream.frames).indexed == 20_000
        now = int(indexer.began * 1e6)
        bad = quarantined(parse_frame(jetstream.frames[0]), jetstream.frames[0], "host", now, "type: reason")
        es.index(index=indexer.today, id="quarantined", document=orjson.loads(bad.body))
        es.indices.refresh(index=f"{index}-*")
        helpers.bulk(es, _redacted_or_hidden(es, index), refresh=True)
        yield index
        remove(es, index)


def _redacted_or_hidden(es: Elasticsearch, index: str) -> Iterator[Json]:
    reasons = ("deleted", "updated", "account", "request")
    for number, hit in enumerate(helpers.scan(es, index=f"{index}-*")):
        action: Json = {"_op_type": "index", "_index": hit["_index"], "_id": hit["_id"]}
        if has_content(hit["_source"]) and number % 2:
            yield {**action, "_source": tombstone(hit["_source"], reasons[number // 2 % 4])}
        else:
            yield {**action, "_source": {**hit["_source"], "hidden": True}}


def pages(node: EmbeddedNode, index: str) -> PageQueries:
    elastic = Elastic(parse(["--es", node.url], {}), Secrets(()))
    return PageQueries(elastic, cast(ElasticProbe, SimpleNamespace(down=None)), index, str)


def count_all(es: Elasticsearch, index: str, *conditions: Json) -> int:
    count: int = es.count(index=f"{index}-*", query={"bool": {"filter": list(conditions)}})["count"]
    return count


def without_scope(chart: Chart, index: str) -> list[Json]:
    """Return the bodies of a panel's searches over all documents for which its own condition holds."""
    return [{**body, "query": chart.where.query} for body in search_bodies(chart, index)]


@pytest.mark.parametrize("chart", OF_EXISTING)
def test_a_panel_of_what_exists_counts_nothing(es: Elasticsearch, gone: str, chart: Chart) -> None:
    for body in search_bodies(chart, gone):
        assert es.search(index=index_pattern(chart.view, gone), **body)["hits"]["total"]["value"] == 0
    for body in without_scope(chart, gone):
        # Else the panel would find nothing without the filter either.
        assert es.search(index=index_pattern(chart.view, gone), **body)["hits"]["total"]["value"] > 0


@pytest.mark.parametrize("chart", OF_ACTIVITY)
def test_a_panel_of_activity_counts_everything(es: Elasticsearch, gone: str, chart: Chart) -> None:
    announced = [{"term": {"commit.resync": True}}, {"term": {"commit.bootstrap": True}}]
    own = {"bool": {"filter": [chart.where.query], "must_not": announced}}
    for body in search_bodies(chart, gone):
        found = es.search(index=index_pattern(chart.view, gone), **body)["hits"]["total"]["value"]
        assert found == count_all(es, gone, own) > 0
    if chart.title in ("Events", "Events by collection", "Events by collection over time"):
        assert count_all(es, gone, own, {"exists": {"field": "redacted.at"}}) > 5000


def test_a_panel_of_activity_contains_no_content(es: Elasticsearch, gone: str) -> None:
    sources = [hit["_source"] for hit in helpers.scan(es, index=f"{gone}-*")]
    names = ("did", "uri", "text", "name")
    content = {source[name] for source in sources for name in names if name in source}
    assert len(content) > 5000

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, item in value.items():
                yield name
                yield from strings(item)
        elif isinstance(value, list):
            for item in value:
                yield from strings(item)
        elif isinstance(value, str):
            yield value

    for param in OF_ACTIVITY:
        chart = cast(Chart, param.values[0])
        for body in search_bodies(chart, gone):
            found = es.search(index=index_pattern(chart.view, gone), **body).get("aggregations", {})
            assert not content & set(strings(found)), chart.title


@pytest.mark.parametrize("search", CONTENT_SEARCHES)
def test_a_saved_search_finds_nothing(es: Elasticsearch, gone: str, search: Search) -> None:
    where = All(scope(search.view, search.shows, gone), search.where)
    assert count_all(es, gone, where.query) == 0
    assert count_all(es, gone, search.where.query) > 0


def test_the_page_counts_events_and_shows_nothing(
    es: Elasticsearch, cluster_wide_node: EmbeddedNode, gone: str
) -> None:
    page = pages(cluster_wide_node, gone)
    overview = page.overview()
    assert isinstance(overview, Overview)
    assert overview.events == count_all(es, gone) > 20_000
    commits = count_all(es, gone, {"term": {"kind": "commit"}})
    assert 0.9 * commits < sum(bar.count for bar in overview.collections) <= commits
    assert not [*overview.languages, *overview.tags, *overview.domains]
    for search in ({}, {"q": "the"}, {"lang": "en"}, {"domain": "example.com"}, {"tag": "cats"}):
        assert page.posts(SearchRequest.from_parameters(search)) == Posts(0, or_more=False, posts=[])


def test_the_documented_queries_and_filters_find_nothing_but_events(es: Elasticsearch, gone: str) -> None:
    for example in examples():
        found = es.search(index=f"{gone}-*", **example.query)["hits"]["total"]["value"]
        assert (found > 0) == (example.name in ("deletions", "takedowns")), example.name
    assert count_all(es, gone, cast(Json, EXISTING_QUERY)) == 0
    assert es.count(index=f"{gone}-*", q=QUERY_STRING)["count"] == 0


def test_a_document_is_shown_again_after_its_account_is_active(
    es: Elasticsearch, es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str
) -> None:
    worker = IdleWorker(es_node.url, "ws://jetstream.example")
    worker.finish_startup()
    worker.probe.step()
    fill(indexer, es, *(post(number, f"word{number}", tags=[f"tag{number}"]) for number in range(4)))
    ids = {hit["_source"]["text"]: hit["_id"] for hit in helpers.scan(es, index=indexer.today)}

    words = [f"{word}{number}" for word in ("word", "tag") for number in range(4)]

    def shown() -> set[str]:
        html = RenderedPage(worker, fresh_index_prefix).html()
        return {word for word in words if word in html}

    assert len(shown()) == 8
    for text in ("word0", "word1"):
        es.update(index=indexer.today, id=ids[text], doc={"hidden": True})
    redacted = es.get(index=indexer.today, id=ids["word2"])["_source"]
    es.index(index=indexer.today, id=ids["word2"], document=tombstone(redacted, "deleted"), refresh=True)
    assert shown() == {"word3", "tag3"}
    es.update(index=indexer.today, id=ids["word0"], doc={"hidden": None}, refresh=True)
    assert shown() == {"word0", "tag0", "word3", "tag3"}


def test_an_updated_post_is_counted_once(
    es: Elasticsearch, es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str
) -> None:
    first = commit(1, {"$type": "app.bsky.feed.post", "text": "before"})
    second = orjson.loads(commit(2, {"$type": "app.bsky.feed.post", "text": "after"}))
    second["did"], second["commit"]["operation"] = orjson.loads(first)["did"], "update"
    fill(indexer, es, first, orjson.dumps(second))
    (old,) = es.search(index=indexer.today, query={"match": {"text": "before"}})["hits"]["hits"]
    es.index(index=indexer.today, id=old["_id"], document=tombstone(old["_source"], "updated"), refresh=True)
    posts = cast(Posts, pages(es_node, fresh_index_prefix).posts(SearchRequest(query="before | after")))
    assert (posts.total, [one.text for one in posts.posts]) == (1, ["after"])
    (chart,) = {one.title: one for one in CHARTS_OF_EVENTS if one.title == "Posts"}.values()
    (body, *_) = search_bodies(chart, fresh_index_prefix)
    assert es.search(index=indexer.today, **body)["hits"]["total"]["value"] == 1
