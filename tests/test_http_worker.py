"""`--http` of the real program during faults: it reports them, and never disturbs indexing."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch
from prometheus_client.parser import text_string_to_metric_families

from slurp.addresses import DEFAULT
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Exit
from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.simulator.jetstream import Simulator
from slurp.web.http_server import HttpServer
from tests.fixtures_es import PASSWORD, OwnNode
from tests.proxy import Proxy
from tests.test_worker_threads import run_until_exit
from tests.tiers import slow_except
from tests.worker import Worker, assert_each_once

Start = Callable[..., Worker]


@pytest.fixture
def start(es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path) -> Start:
    def begin(*more: str, es: str = "") -> Worker:
        return Worker(
            *("--jetstream", jetstream.url, "--es", es or es_node.url, "--index", fresh_index_prefix),
            *("--since", "0", "--no-kibana", "--stats-interval", "1s", "--flush", "200ms"),
            *("--http", "127.0.0.1:0", *more),
            home=tmp_path,
        )

    return begin


class HttpClient:
    """A client for the HTTP server of a running worker."""

    def __init__(self, worker: Worker) -> None:
        found = worker.wait_for(r"page, health and metrics: http://127\.0\.0\.1:(\d+)")
        self.port = int(found[1])

    def get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def wait(self, path: str, status: int, pattern: str = "", timeout: float = 40) -> str:
        """Wait until the path returns this status and a matching text; return the text."""
        deadline = time.monotonic() + timeout
        while True:
            got, text = self.get(path)
            if got == status and re.search(pattern, text):
                return text
            assert time.monotonic() < deadline, f"{path} returns {got}: {text[:300]}"
            time.sleep(0.1)

    def metric(self, name: str, **labels: str) -> float:
        _, text = self.get("/metrics")
        (value,) = (
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"skeetslurper_{name}" and labels.items() <= sample.labels.items()
        )
        return value


def test_a_working_worker_is_ready_and_exports_its_counters(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(2000)
    with start() as worker:
        client = HttpClient(worker)
        assert client.wait("/readyz", 200) == "ready\n"
        assert client.get("/healthz") == (200, "alive\n")
        worker.wait_for(r"indexed 2,000 ")
        # There is no age before the first checkpoint.
        client.wait("/metrics", 200, r"skeetslurper_checkpoint_age_seconds \d")
        assert client.metric("events_received_total") == 2000
        assert client.metric("events_answered_total", outcome="indexed") == 2000
        assert client.metric("in_flight_events") == 0
        assert client.metric("ready") == 1
        assert client.metric("elasticsearch_up") == 1
        assert client.metric("stream_connected", reader="1", host=f"127.0.0.1:{jetstream.port}") == 1
        assert client.metric("batch_seconds_count") >= 1
        assert client.metric("bulk_request_seconds_count", result="answered") >= 1
        assert client.metric("checkpoint_age_seconds") < 10
        assert client.metric("thread_still_seconds", thread="MainThread") < 10
        assert client.get("/nothing")[0] == 404
        assert worker.stop() == 0
        assert "WARNING" not in worker.log
        with pytest.raises(OSError):
            client.get("/healthz")
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_with_http_off_nothing_listens(start: Start) -> None:
    with start("--http", "off") as worker:
        worker.wait_for("connected to")
        assert "http://127.0.0.1" not in re.sub(r"waiting for .*", "", worker.log)
        assert not [
            thread
            for thread in Path(f"/proc/{worker.process.pid}/task").iterdir()
            if (thread / "comm").read_text().startswith("http")
        ]


def test_a_configured_port_in_use_is_an_error(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with start("--http", f"127.0.0.1:{port}") as worker:
            assert worker.exit_code() == 2
            assert f"--http 127.0.0.1:{port}: address already in use; choose another port" in worker.log
            assert "Traceback" not in worker.log


@pytest.fixture
def default_port_in_use() -> Iterator[None]:
    try:
        with socket.create_server(DEFAULT[:2]):
            yield
    except OSError:
        yield  # in use by another program already


def test_the_default_port_in_use_is_a_warning(
    es_node: EmbeddedNode,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
    default_port_in_use: None,
) -> None:
    with Worker(
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix, "--embedded"),
        "--no-kibana",
        home=tmp_path,
    ) as worker:
        worker.wait_for(r"HTTP server disabled: --http 127\.0\.0\.1:8642: address already in use")
        worker.wait_for("connected to")
        assert worker.stop() == 0


# Faults


def test_while_waiting_for_elasticsearch_the_worker_is_alive_and_not_ready(start: Start) -> None:
    with start(es="http://127.0.0.1:1") as worker:
        client = HttpClient(worker)
        text = client.wait("/readyz", 503, "waiting for Elasticsearch, for .*\nElasticsearch: down for")
        assert "Connection refused" in text
        assert client.get("/healthz") == (200, "alive\n")
        assert client.metric("elasticsearch_up") == 0
        assert worker.stop() == 0


@pytest.mark.slow
def test_an_outage_of_elasticsearch_is_reported_also_on_a_quiet_stream(
    start: Start, own_node: OwnNode, jetstream: Simulator
) -> None:
    node = own_node(password=PASSWORD)
    node.start()
    jetstream.generate(100)
    with start(es=node.url) as worker:
        client = HttpClient(worker)
        client.wait("/readyz", 200)
        worker.wait_for(r"indexed 100 ")

        # No events arrive, so no bulk request detects the outage.
        node.kill()
        text = client.wait("/readyz", 503, "^Elasticsearch: down for ")
        assert "Connection refused" in text
        assert "stream" not in text
        assert client.get("/healthz")[0] == 200
        jetstream.generate(100)
        worker.wait_for("holding the events in flight")
        assert client.metric("elasticsearch_up") == 0
        assert client.metric("ready") == 0
        deadline = time.monotonic() + 10
        while not client.metric("bulk_request_seconds_count", result="failed"):
            assert time.monotonic() < deadline
            time.sleep(0.1)

        # Both outages are reported.
        jetstream.stop()
        client.wait("/readyz", 503, "(?s)^stream: down for .*\nElasticsearch: down for ")
        jetstream.start()
        client.wait("/readyz", 503, "^Elasticsearch: down for ")
        node.start()
        client.wait("/readyz", 200)
        worker.wait_until_counted(lambda now: now["indexed"] + now["duplicates"] >= 200)

        # A node that accepts connections and does not answer.
        assert node.pid is not None
        os.kill(node.pid, signal.SIGSTOP)
        try:
            client.wait("/readyz", 503, "down for .*: no response in time")
        finally:
            os.kill(node.pid, signal.SIGCONT)
        client.wait("/readyz", 200)
        assert worker.stop() == 0


@pytest.mark.slow
def test_unanswered_bulk_requests_are_reported_while_the_cluster_answers_others(
    start: Start, es_node: EmbeddedNode, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with Proxy(es_node.port) as proxy, start(es=f"http://127.0.0.1:{proxy.port}") as worker:
        client = HttpClient(worker)
        client.wait("/readyz", 200)
        proxy.hold_answers(b"/_bulk")
        jetstream.run_at(500, limit=3000)
        worker.wait_for(r"no response to \d of 3 indexers for 2\d s; a request is sent again after 90 s", 60)
        client.wait("/readyz", 503, "^Elasticsearch: no response for ")
        proxy.release_answers()
        client.wait("/readyz", 200)
        worker.wait_until_counted(lambda now: now["indexed"] + now["quarantined"] == 3000)
        assert worker.stop() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_an_outage_of_the_stream_is_reported(start: Start, jetstream: Simulator) -> None:
    with start() as worker:
        client = HttpClient(worker)
        client.wait("/readyz", 200)
        jetstream.stop()
        client.wait("/readyz", 503, r"^stream: down for .*: cannot connect: .*refused")
        assert client.metric("stream_connected") == 0
        assert client.get("/healthz")[0] == 200
        jetstream.start()
        client.wait("/readyz", 200)
        assert client.metric("stream_reconnects_total") >= 1


def test_a_stream_that_never_connected_is_reported(start: Start, jetstream: Simulator) -> None:
    jetstream.stop()
    with start() as worker:
        HttpClient(worker).wait("/readyz", 503, r"^stream: no connection yet after .*: cannot connect")


def test_rejected_documents_are_reported(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.run_at(200)
    with start() as worker:
        client = HttpClient(worker)
        worker.wait_for("indexed [1-9]")
        es.indices.put_settings(index=f"{fresh_index_prefix}-*", settings={"index.blocks.write": True})
        client.wait("/readyz", 503, "^Elasticsearch: accepts no documents for .*cluster_block_exception")
        es.indices.put_settings(index=f"{fresh_index_prefix}-*", settings={"index.blocks.write": None})
        client.wait("/readyz", 200)
        jetstream.pause()


@pytest.mark.slow
def test_the_shutdown_is_reported_until_the_queue_is_drained(
    start: Start, own_node: OwnNode, jetstream: Simulator
) -> None:
    node = own_node(password=PASSWORD)
    node.start()
    jetstream.run_at(500)
    with start("--grace", "5s", es=node.url) as worker:
        client = HttpClient(worker)
        client.wait("/readyz", 200)
        node.kill()
        worker.wait_for("holding the events in flight")
        worker.process.send_signal(signal.SIGTERM)
        assert client.wait("/readyz", 503, "^shutting down\n$", timeout=4)
        assert client.get("/healthz") == (200, "alive\n")
        assert worker.exit_code() == 0


@pytest.mark.parametrize(
    ("owner", "name"),
    slow_except([(HttpServer, "run"), (ElasticProbe, "step")], (HttpServer, "run"), unpack=True),
)
def test_a_crash_of_an_http_thread_is_logged_and_indexing_continues(
    es_node: EmbeddedNode,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    restored_signal_handlers: None,
    owner: type,
    name: str,
) -> None:
    def die(*args: object) -> None:
        raise ZeroDivisionError("the bug")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(owner, name, die)
    jetstream.generate(1500, span=0.2)
    options = ("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix)
    more = ("--since", "0", "--no-kibana", "--catch-up", "--flush", "2s", "--http", "0")
    assert run_until_exit((*options, *more), tmp_path) is Exit.DONE
    thread = "http" if owner is HttpServer else "http-probe"
    assert f"{thread} died, which is a bug; indexing continues" in caplog.text
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
