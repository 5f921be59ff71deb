"""Responses that do not come from Elasticsearch, or have an unexpected shape: requests are retried."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from elastic_transport import TransportError
from elasticsearch import ApiError, Elasticsearch

from slurp.elastic.response_checks import _SHAPES, CheckedElasticsearch, UnexpectedResponse
from slurp.embedded.node import EmbeddedNode
from slurp.simulator.jetstream import Simulator
from tests.gateway import Gateway
from tests.harness import InProcess
from tests.stub_server import ELASTICSEARCH, JSON, Response
from tests.tiers import slow_except
from tests.worker import Worker, assert_each_once, count, documents

HTML = {"Content-Type": "text/html"}
HTML_PAGE = b"<h1>Oops</h1>"
# An error of the framework Spring, which many gateways are built with.
SPRING_ERROR = {"timestamp": 1, "status": 404, "error": "Not Found", "path": "/"}
RESPONSES = {
    **{
        f"{status} html": Response(status, HTML_PAGE, HTML)
        for status in (200, 400, 401, 403, 404, 409, 413, 500)
    },
    "200 text": Response(200, b"OK", {"Content-Type": "text/plain"}),
    "200 xml": Response(200, b"<ok/>", {"Content-Type": "application/xml"}),
    "200 json": Response(200, {}, JSON),
    "404 json": Response(404, SPRING_ERROR, JSON),
    "400 json": Response(400, {"message": "bad"}, JSON),
    "401 empty": Response(401, b"", JSON),
    "200 {}": Response(200, {}, ELASTICSEARCH),
    "200 []": Response(200, [], ELASTICSEARCH),
    "200 null": Response(200, b"null", ELASTICSEARCH),
    "200 truncated": Response(200, b'{"items": [{"create": {"sta', ELASTICSEARCH),
    "200 deep": Response(200, b"[" * 100_000, ELASTICSEARCH),
    "200 no items": Response(200, {"items": []}, ELASTICSEARCH),
    "200 fewer items": Response(200, {"items": [{"create": {"status": 201}}]}, ELASTICSEARCH),
    "200 no status": Response(200, {"items": [{"create": {}}] * 20}, ELASTICSEARCH),
    "200 wrong items": Response(200, {"items": [7] * 20}, ELASTICSEARCH),
    "200 wrong status": Response(200, {"items": [{"create": {"status": "201"}}] * 20}, ELASTICSEARCH),
}


@pytest.mark.parametrize(
    "name", slow_except(RESPONSES, "404 html", "401 empty", "200 truncated", "200 fewer items")
)
def test_a_bulk_request_is_retried_after_an_unexpected_response(
    gateway: Gateway,
    behind: InProcess,
    es: Elasticsearch,
    fresh_index_prefix: str,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames = behind.posts(20)
    behind.days.ensure(behind.day)
    gateway.send_always(RESPONSES[name], "/_bulk")
    counted = behind.feed_through_outage(frames, gateway.forward_all)
    assert gateway.overridden
    assert (counted.indexed, counted.quarantined, counted.dead_lettered, counted.duplicates) == (20, 0, 0, 0)
    assert count(es, fresh_index_prefix) == 20
    assert "503" not in caplog.text, "no server sent this status"


@pytest.mark.parametrize("status", slow_except([400, 401, 403, 404], 404))
def test_a_response_of_a_gateway_neither_creates_nor_deletes_a_day_index(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, status: int, fresh_index_prefix: str
) -> None:
    behind.feed(behind.posts(20))
    before = es.indices.get(index=behind.today)[behind.today]["settings"]["index"]["uuid"]
    behind.days._checked_at.clear()  # the check interval is over
    gateway.send_always(Response(status, HTML_PAGE, HTML))
    frames = behind.posts(20, first=20)
    counted = behind.feed_through_outage(frames, gateway.forward_all)
    assert counted.indexed == 40
    assert es.indices.get(index=behind.today)[behind.today]["settings"]["index"]["uuid"] == before


def test_only_the_document_that_a_gateway_rejects_as_too_large_is_quarantined(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """The canary document is accepted. Without this check, the document would be retried forever."""
    large = orjson.loads(behind.posts(1, first=99)[0])
    large["commit"]["record"]["text"] = "x" * 300_000
    frames = [*behind.posts(9), orjson.dumps(large)]
    gateway.max_body_bytes = 100_000
    counted = behind.feed(frames)
    assert (counted.indexed, counted.quarantined + counted.dead_lettered) == (9, 1)


# The whole worker

Start = Callable[..., Worker]


@pytest.fixture
def start(gateway: Gateway, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path) -> Start:
    def start_worker(*options: str) -> Worker:
        return Worker(
            *("--es", gateway.url, "--index", fresh_index_prefix, "--jetstream", jetstream.url),
            *("--no-kibana", "--flush", "200ms", "--stats-interval", "1s", *options),
            home=tmp_path,
        )

    return start_worker


@pytest.mark.parametrize(
    "name",
    slow_except(["404 html", "401 html", "403 html", "400 html", "200 html", "200 {}"], "404 html"),
)
def test_unexpected_responses_delay_the_start_and_the_indexing_without_loss(
    start: Start,
    gateway: Gateway,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    name: str,
) -> None:
    gateway.send_always(RESPONSES[name])
    with start("--since", "0") as worker:
        worker.wait_for("waiting for Elasticsearch at")
        gateway.forward_all()
        jetstream.generate(500)
        worker.wait_for("received ")
        worker.wait_until_counted(lambda counted: counted["indexed"] == 500)
        # To every request of every thread, for some seconds.
        gateway.send_always(RESPONSES[name])
        jetstream.generate(500)
        worker.wait_for("holding the events in flight")
        time.sleep(3)
        gateway.forward_all()
        worker.wait_until_counted(lambda counted: counted["indexed"] == 1000)
        assert worker.stop() == 0
    assert "a bug" not in worker.log
    assert "Traceback" not in worker.log
    assert not any("quarantine" in source for source in documents(es, fresh_index_prefix).values())
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_the_start_fails_after_the_wait_if_the_server_is_not_elasticsearch(
    start: Start, gateway: Gateway
) -> None:
    gateway.send_always(RESPONSES["404 html"])
    started = time.monotonic()
    with start("--wait", "4s") as worker:
        assert worker.exit_code() == 1
    assert time.monotonic() - started >= 4
    assert f"the server at {gateway.url} is not Elasticsearch: free the port or set --es" in worker.log
    assert "HTTP 404 from a server that is not Elasticsearch (text/html): Oops" in worker.log


# Shapes of responses


@pytest.fixture
def client(gateway: Gateway) -> Elasticsearch:
    return CheckedElasticsearch(gateway.url, basic_auth=("elastic", "changeme"), max_retries=0)


REQUESTS: dict[str, Callable[[Elasticsearch], Any]] = {
    "checkpoint search": lambda es: es.search(index="x", query={"match_all": {}}),
    "page": lambda es: es.search(index="x", size=0, aggs={"a": {"terms": {"field": "b"}}}),
    "point in time": lambda es: es.open_point_in_time(index="x", keep_alive="1m"),
    "search at a point in time": lambda es: es.search(pit={"id": "x"}, query={"match_all": {}}),
    "checkpoint write": lambda es: es.index(index="x", id="1", document={}),
    "checkpoint conflict": lambda es: es.get(index="x", id="1"),
    "drift": lambda es: es.mget(index="x", ids=["1"]),
    "health": lambda es: es.cluster.health(),
    "versions": lambda es: es.nodes.info(filter_path="nodes.*.version"),
    "day": lambda es: es.indices.get(index="x"),
    "new day": lambda es: es.indices.create(index="x"),
    "retention": lambda es: es.indices.delete(index="x"),
    "template": lambda es: es.indices.get_index_template(name="x"),
    "put template": lambda es: es.indices.put_index_template(name="x", index_patterns=["y"]),
    "component": lambda es: es.cluster.get_component_template(name="x"),
    "put component": lambda es: es.cluster.put_component_template(name="x", template={}),
    "put mapping": lambda es: es.indices.put_mapping(index="x", properties={}),
    "put pipeline": lambda es: es.ingest.put_pipeline(id="x", processors=[]),
    "put settings": lambda es: es.indices.put_settings(index="x", settings={}),
    "privileges": lambda es: es.security.has_privileges(cluster=["monitor"]),
    "put policy": lambda es: es.ilm.put_lifecycle(name="x", policy={}),
    "refresh": lambda es: es.indices.refresh(index="x"),
    "postponed deletion": lambda es: es.update(index="x", id="1", doc={}),
    "applied deletion": lambda es: es.delete(index="x", id="1"),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("body", [b"{}", b"[]", b"7", b'"x"', b'{"error":null}'])
def test_a_response_of_another_shape_counts_as_no_response(
    gateway: Gateway, client: Elasticsearch, request_name: str, body: bytes
) -> None:
    gateway.send_always(Response(200, body, ELASTICSEARCH))
    with pytest.raises(TransportError):
        REQUESTS[request_name](client)


# Requests whose response is an object with the results by name, which is empty if there are none.
LOOKUPS: dict[str, Callable[[Elasticsearch], Any]] = {
    "mapping": lambda es: es.indices.get_mapping(index="x"),
    "settings": lambda es: es.indices.get_settings(index="x"),
    "sizes": lambda es: es.indices.stats(index="x"),
    "pipeline": lambda es: es.ingest.get_pipeline(id="x"),
    "policy": lambda es: es.ilm.get_lifecycle(name="x"),
}


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("body", [b"[]", b"[{}]", b"7", b'{"x":7}'])
def test_a_response_with_results_by_name_must_be_an_object(
    gateway: Gateway, client: Elasticsearch, lookup: str, body: bytes
) -> None:
    gateway.send_always(Response(200, body, ELASTICSEARCH))
    with pytest.raises(TransportError):
        LOOKUPS[lookup](client)
    gateway.send_always(Response(200, {}, ELASTICSEARCH))
    assert LOOKUPS[lookup](client).body == {}


def test_the_shape_of_every_response_is_checked() -> None:
    some = Elasticsearch("http://127.0.0.1:1")
    namespaces = ("cluster", "indices", "ingest", "ilm", "nodes", "security", "tasks")
    called = set()
    for path in Path("slurp").rglob("*.py"):
        for owner, method in re.findall(r"(\w+)\.(\w+)\(", path.read_text(encoding="utf-8")):
            if owner in namespaces and hasattr(getattr(some, owner), method):
                called.add(f"{owner}.{method}")
            elif owner in ("client", "_client", "es") and hasattr(some, method):
                called.add(method)
    assert {"open_point_in_time", "search", "indices.stats"} <= called
    # HEAD requests, and calls that send no request or read nothing of the response.
    unchecked = {"indices.exists", "options", "close", "perform_request"}
    assert called - unchecked - _SHAPES.keys() == set()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
@pytest.mark.parametrize(
    "call", [lambda es: es.indices.get(index="x"), lambda es: es.indices.exists(index="x")]
)
def test_an_error_that_does_not_come_from_elasticsearch_counts_as_no_response(
    gateway: Gateway, client: Elasticsearch, status: int, call: Callable[[Elasticsearch], Any]
) -> None:
    gateway.send_always(Response(status, SPRING_ERROR, JSON))
    with pytest.raises(UnexpectedResponse) as raised:
        call(client)
    assert raised.value.foreign_status == status


def test_an_error_of_the_security_layer_is_accepted_without_the_product_header(
    gateway: Gateway, client: Elasticsearch
) -> None:
    error = {"type": "security_exception", "reason": "unable to authenticate"}
    gateway.send_always(Response(401, {"error": error, "status": 401}, JSON))
    with pytest.raises(ApiError):
        client.indices.get(index="x")


def test_the_responses_of_a_real_node_are_accepted(es_node: EmbeddedNode, client: Elasticsearch) -> None:
    with_wrong_password = CheckedElasticsearch(es_node.url, basic_auth=("elastic", "wrong"), max_retries=0)
    with pytest.raises(ApiError) as denied:
        with_wrong_password.cluster.health()
    assert denied.value.status_code == 401
    with pytest.raises(ApiError) as missing:
        client.indices.get(index="there-is-none")
    assert missing.value.status_code == 404
    assert not client.indices.exists(index="there-is-none")
