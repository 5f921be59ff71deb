"""Answers that are not Elasticsearch's, or not of its shape: held and sent again, whatever their status."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from elastic_transport import TransportError
from elasticsearch import ApiError, Elasticsearch

from slurp.elastic.response_checks import CheckedElasticsearch, UnexpectedAnswer
from slurp.embedded.node import EmbeddedNode
from slurp.simulator.jetstream import Simulator
from tests.gateway import Answer, Gateway
from tests.harness import InProcess
from tests.tiers import slow_except
from tests.worker import Worker, assert_each_once, count, documents

JSON = "application/json"
SPRING = orjson.dumps({"timestamp": 1, "status": 404, "error": "Not Found", "path": "/"})
PAGES = {
    **{f"{status} html": Answer(status) for status in (200, 400, 401, 403, 404, 409, 413, 500)},
    "200 text": Answer(200, b"OK", "text/plain"),
    "200 xml": Answer(200, b"<ok/>", "application/xml"),
    "200 json": Answer(200, b"{}", JSON),
    "404 json": Answer(404, SPRING, JSON),
    "400 json": Answer(400, b'{"message": "bad"}', JSON),
    "401 empty": Answer(401, b"", JSON),
    "200 {}": Answer(200, b"{}", JSON, product=True),
    "200 []": Answer(200, b"[]", JSON, product=True),
    "200 null": Answer(200, b"null", JSON, product=True),
    "200 cut": Answer(200, b'{"items": [{"create": {"sta', JSON, product=True),
    "200 deep": Answer(200, b"[" * 100_000, JSON, product=True),
    "200 no items": Answer(200, b'{"items": []}', JSON, product=True),
    "200 fewer": Answer(200, b'{"items": [{"create": {"status": 201}}]}', JSON, product=True),
    "200 no status": Answer(200, orjson.dumps({"items": [{"create": {}}] * 20}), JSON, product=True),
    "200 odd items": Answer(200, orjson.dumps({"items": [7] * 20}), JSON, product=True),
    "200 odd status": Answer(
        200, orjson.dumps({"items": [{"create": {"status": "201"}}] * 20}), JSON, product=True
    ),
}


@pytest.mark.parametrize("page", slow_except(PAGES, "404 html", "401 empty", "200 cut", "200 fewer"))
def test_a_bulk_request_is_held_and_sent_again(
    gateway: Gateway,
    behind: InProcess,
    es: Elasticsearch,
    fresh_index_prefix: str,
    page: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames = behind.posts(20)
    behind.days.ensure(behind.day)
    gateway.fail(PAGES[page], "/_bulk")
    counted = behind.feed_through_outage(frames, gateway.pass_on)
    assert gateway.answered
    assert (counted.indexed, counted.quarantined, counted.dead_lettered, counted.duplicates) == (20, 0, 0, 0)
    assert count(es, fresh_index_prefix) == 20
    assert "503" not in caplog.text, "nobody said so"


@pytest.mark.parametrize("status", slow_except([400, 401, 403, 404], 404))
def test_a_day_is_neither_missing_nor_deleted_because_a_gateway_says_so(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, status: int, fresh_index_prefix: str
) -> None:
    behind.feed(behind.posts(20))
    before = es.indices.get(index=behind.today)[behind.today]["settings"]["index"]["uuid"]
    behind.days._seen.clear()  # its minute is over
    gateway.fail(Answer(status))
    frames = behind.posts(20, first=20)
    counted = behind.feed_through_outage(frames, gateway.pass_on)
    assert counted.indexed == 40
    assert es.indices.get(index=behind.today)[behind.today]["settings"]["index"]["uuid"] == before


def test_a_document_that_a_gateway_finds_too_large_is_quarantined_alone(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """The canary passes, so it is the document; without one it would hold the stream for good."""
    large = orjson.loads(behind.posts(1, first=99)[0])
    large["commit"]["record"]["text"] = "x" * 300_000
    frames = [*behind.posts(9), orjson.dumps(large)]
    gateway.limit = 100_000
    counted = behind.feed(frames)
    assert (counted.indexed, counted.quarantined + counted.dead_lettered) == (9, 1)


# The whole worker

Start = Callable[..., Worker]


@pytest.fixture
def start(gateway: Gateway, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path) -> Start:
    def begin(*options: str) -> Worker:
        return Worker(
            *("--es", gateway.url, "--index", fresh_index_prefix, "--jetstream", jetstream.url),
            *("--no-kibana", "--flush", "200ms", "--stats-interval", "1s", *options),
            home=tmp_path,
        )

    return begin


@pytest.mark.parametrize(
    "page",
    slow_except(["404 html", "401 html", "403 html", "400 html", "200 html", "200 {}"], "404 html"),
)
def test_the_start_waits_behind_a_gateway_and_the_run_holds(
    start: Start,
    gateway: Gateway,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    page: str,
) -> None:
    gateway.fail(PAGES[page])
    with start("--since", "0") as worker:
        worker.wait_for("waiting for Elasticsearch at")
        gateway.pass_on()
        jetstream.generate(500)
        worker.wait_for("received ")
        worker.wait_until_counted(lambda counted: counted["indexed"] == 500)
        # Every request of every thread, for some seconds.
        gateway.fail(PAGES[page])
        jetstream.generate(500)
        worker.wait_for("holding what we have")
        time.sleep(3)
        gateway.pass_on()
        worker.wait_until_counted(lambda counted: counted["indexed"] == 1000)
        assert worker.stop() == 0
    assert "a bug" not in worker.log
    assert "Traceback" not in worker.log
    assert not any("quarantine" in source for source in documents(es, fresh_index_prefix).values())
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_a_foreign_server_ends_the_start_after_the_wait(start: Start, gateway: Gateway) -> None:
    gateway.fail(PAGES["404 html"])
    began = time.monotonic()
    with start("--wait", "4s") as worker:
        assert worker.exit_code() == 1
    assert time.monotonic() - began >= 4
    assert f"what answers at {gateway.url} is not Elasticsearch: free the port or set --es" in worker.log
    assert "HTTP 404 from something that is not Elasticsearch (text/html): Oops" in worker.log


# Shapes


@pytest.fixture
def client(gateway: Gateway) -> Elasticsearch:
    return CheckedElasticsearch(gateway.url, basic_auth=("elastic", "changeme"), max_retries=0)


CALLS: dict[str, Callable[[Elasticsearch], Any]] = {
    "checkpoint search": lambda es: es.search(index="x", query={"match_all": {}}),
    "page": lambda es: es.search(index="x", size=0, aggs={"a": {"terms": {"field": "b"}}}),
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
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("body", [b"{}", b"[]", b"7", b'"x"', b'{"error":null}'])
def test_an_answer_of_another_shape_is_no_answer(
    gateway: Gateway, client: Elasticsearch, call: str, body: bytes
) -> None:
    gateway.fail(Answer(200, body, JSON, product=True))
    with pytest.raises(TransportError):
        CALLS[call](client)


# What they find, by name: an empty object where there is nothing.
FINDING: dict[str, Callable[[Elasticsearch], Any]] = {
    "mapping": lambda es: es.indices.get_mapping(index="x"),
    "settings": lambda es: es.indices.get_settings(index="x"),
    "sizes": lambda es: es.indices.stats(index="x"),
    "pipeline": lambda es: es.ingest.get_pipeline(id="x"),
    "policy": lambda es: es.ilm.get_lifecycle(name="x"),
}


@pytest.mark.parametrize("call", FINDING)
@pytest.mark.parametrize("body", [b"[]", b"[{}]", b"7", b'{"x":7}'])
def test_an_object_by_name_is_no_list(
    gateway: Gateway, client: Elasticsearch, call: str, body: bytes
) -> None:
    gateway.fail(Answer(200, body, JSON, product=True))
    with pytest.raises(TransportError):
        FINDING[call](client)
    gateway.fail(Answer(200, b"{}", JSON, product=True))
    assert FINDING[call](client).body == {}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
@pytest.mark.parametrize(
    "call", [lambda es: es.indices.get(index="x"), lambda es: es.indices.exists(index="x")]
)
def test_an_error_without_a_sign_of_elasticsearch_is_no_answer(
    gateway: Gateway, client: Elasticsearch, status: int, call: Callable[[Elasticsearch], Any]
) -> None:
    gateway.fail(Answer(status, SPRING, JSON))
    with pytest.raises(UnexpectedAnswer) as said:
        call(client)
    assert said.value.foreign_status == status


def test_an_error_of_the_security_layer_counts_without_the_header(
    gateway: Gateway, client: Elasticsearch
) -> None:
    error = {"type": "security_exception", "reason": "unable to authenticate"}
    gateway.fail(Answer(401, orjson.dumps({"error": error, "status": 401}), JSON))
    with pytest.raises(ApiError):
        client.indices.get(index="x")


def test_a_real_node_passes(es_node: EmbeddedNode, client: Elasticsearch) -> None:
    wrong = CheckedElasticsearch(es_node.url, basic_auth=("elastic", "wrong"), max_retries=0)
    with pytest.raises(ApiError) as denied:
        wrong.cluster.health()
    assert denied.value.status_code == 401
    with pytest.raises(ApiError) as missing:
        client.indices.get(index="there-is-none")
    assert missing.value.status_code == 404
    assert not client.indices.exists(index="there-is-none")
