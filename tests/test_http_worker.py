"""`--http` of the real program, through faults: what it says is true, and nothing else suffers from it."""

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
from slurp.monitoring.elastic_probe import Probe
from slurp.simulator.jetstream import Simulator
from slurp.web.http_server import Server
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


class Asked:
    """What a worker answers at its address."""

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
        """Wait until it says so."""
        deadline = time.monotonic() + timeout
        while True:
            got, text = self.get(path)
            if got == status and re.search(pattern, text):
                return text
            assert time.monotonic() < deadline, f"{path} says {got}: {text[:300]}"
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


def test_a_worker_that_works_says_so(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(2000)
    with start() as worker:
        asked = Asked(worker)
        assert asked.wait("/readyz", 200) == "ready\n"
        assert asked.get("/healthz") == (200, "alive\n")
        worker.wait_for(r"indexed 2,000 ")
        assert asked.metric("events_received_total") == 2000
        assert asked.metric("events_answered_total", outcome="indexed") == 2000
        assert asked.metric("in_flight_events") == 0
        assert asked.metric("ready") == 1
        assert asked.metric("elasticsearch_up") == 1
        assert asked.metric("stream_connected", reader="1", host=f"127.0.0.1:{jetstream.port}") == 1
        assert asked.metric("batch_seconds_count") >= 1
        assert asked.metric("bulk_request_seconds_count", result="answered") >= 1
        assert asked.metric("checkpoint_age_seconds") < 10
        assert asked.metric("thread_still_seconds", thread="MainThread") < 10
        assert asked.get("/nothing")[0] == 404
        assert worker.stop() == 0
        assert "WARNING" not in worker.log
        with pytest.raises(OSError):
            asked.get("/healthz")
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_without_the_option_nothing_listens(start: Start) -> None:
    with start("--http", "off") as worker:
        worker.wait_for("connected to")
        assert "http://127.0.0.1" not in re.sub(r"waiting for .*", "", worker.log)
        assert not [
            thread
            for thread in Path(f"/proc/{worker.process.pid}/task").iterdir()
            if (thread / "comm").read_text().startswith("http")
        ]


def test_a_taken_port_that_was_asked_for_is_an_error(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with start("--http", f"127.0.0.1:{port}") as worker:
            assert worker.exit_code() == 2
            assert f"--http 127.0.0.1:{port}: address already in use; choose another port" in worker.log
            assert "Traceback" not in worker.log


@pytest.fixture
def default_is_taken() -> Iterator[None]:
    try:
        with socket.create_server(DEFAULT[:2]):
            yield
    except OSError:
        yield  # by another program, which is as good


def test_a_taken_port_that_nobody_asked_for_is_a_warning(
    es_node: EmbeddedNode,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
    default_is_taken: None,
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


def test_while_elasticsearch_is_waited_for_it_is_alive_and_not_ready(start: Start) -> None:
    with start(es="http://127.0.0.1:1") as worker:
        asked = Asked(worker)
        text = asked.wait("/readyz", 503, "waiting for Elasticsearch, for .*\nElasticsearch: down for")
        assert "Connection refused" in text
        assert asked.get("/healthz") == (200, "alive\n")
        assert asked.metric("elasticsearch_up") == 0
        assert worker.stop() == 0


@pytest.mark.slow
def test_elasticsearch_that_is_away_is_told_also_in_a_quiet_stream(
    start: Start, own_node: OwnNode, jetstream: Simulator
) -> None:
    node = own_node(password=PASSWORD)
    node.start()
    jetstream.generate(100)
    with start(es=node.url) as worker:
        asked = Asked(worker)
        asked.wait("/readyz", 200)
        worker.wait_for(r"indexed 100 ")

        # Nothing comes, so no bulk request finds out.
        node.kill()
        text = asked.wait("/readyz", 503, "^Elasticsearch: down for ")
        assert "Connection refused" in text
        assert "stream" not in text
        assert asked.get("/healthz")[0] == 200
        jetstream.generate(100)
        worker.wait_for("holding what we have")
        assert asked.metric("elasticsearch_up") == 0
        assert asked.metric("ready") == 0
        deadline = time.monotonic() + 10
        while not asked.metric("bulk_request_seconds_count", result="failed"):
            assert time.monotonic() < deadline
            time.sleep(0.1)

        # Both: each is told.
        jetstream.stop()
        asked.wait("/readyz", 503, "(?s)^stream: down for .*\nElasticsearch: down for ")
        jetstream.start()
        asked.wait("/readyz", 503, "^Elasticsearch: down for ")
        node.start()
        asked.wait("/readyz", 200)
        worker.wait_until_counted(lambda now: now["indexed"] + now["duplicates"] >= 200)

        # One that is there and says nothing.
        assert node.pid is not None
        os.kill(node.pid, signal.SIGSTOP)
        try:
            asked.wait("/readyz", 503, "down for .*: no answer in time")
        finally:
            os.kill(node.pid, signal.SIGCONT)
        asked.wait("/readyz", 200)
        assert worker.stop() == 0


@pytest.mark.slow
def test_bulk_requests_without_an_answer_are_told_though_the_cluster_answers_otherwise(
    start: Start, es_node: EmbeddedNode, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with Proxy(es_node.port) as proxy, start(es=f"http://127.0.0.1:{proxy.port}") as worker:
        asked = Asked(worker)
        asked.wait("/readyz", 200)
        proxy.hold_answers(b"/_bulk")
        jetstream.run_at(500, limit=3000)
        worker.wait_for(r"no response to \d of 3 indexers for 2\d s; a request is sent again after 90 s", 60)
        asked.wait("/readyz", 503, "^Elasticsearch: no answer for ")
        proxy.release_answers()
        asked.wait("/readyz", 200)
        worker.wait_until_counted(lambda now: now["indexed"] + now["quarantined"] == 3000)
        assert worker.stop() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_a_stream_that_is_down_is_told(start: Start, jetstream: Simulator) -> None:
    with start() as worker:
        asked = Asked(worker)
        asked.wait("/readyz", 200)
        jetstream.stop()
        asked.wait("/readyz", 503, r"^stream: down for .*: can't connect: .*refused")
        assert asked.metric("stream_connected") == 0
        assert asked.get("/healthz")[0] == 200
        jetstream.start()
        asked.wait("/readyz", 200)
        assert asked.metric("stream_reconnects_total") >= 1


def test_a_stream_that_never_came_is_told(start: Start, jetstream: Simulator) -> None:
    jetstream.stop()
    with start() as worker:
        Asked(worker).wait("/readyz", 503, r"^stream: no connection yet after .*: can't connect")


def test_documents_that_are_not_taken_are_told(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.run_at(200)
    with start() as worker:
        asked = Asked(worker)
        worker.wait_for("indexed [1-9]")
        es.indices.put_settings(index=f"{fresh_index_prefix}-*", settings={"index.blocks.write": True})
        asked.wait("/readyz", 503, "^Elasticsearch: takes no documents for .*cluster_block_exception")
        es.indices.put_settings(index=f"{fresh_index_prefix}-*", settings={"index.blocks.write": None})
        asked.wait("/readyz", 200)
        jetstream.pause()


@pytest.mark.slow
def test_the_end_is_told_until_all_is_drained(start: Start, own_node: OwnNode, jetstream: Simulator) -> None:
    node = own_node(password=PASSWORD)
    node.start()
    jetstream.run_at(500)
    with start("--grace", "5s", es=node.url) as worker:
        asked = Asked(worker)
        asked.wait("/readyz", 200)
        node.kill()
        worker.wait_for("holding what we have")
        worker.process.send_signal(signal.SIGTERM)
        assert asked.wait("/readyz", 503, "^shutting down\n$", timeout=4)
        assert asked.get("/healthz") == (200, "alive\n")
        assert worker.exit_code() == 0


@pytest.mark.parametrize(
    ("owner", "name"), slow_except([(Server, "run"), (Probe, "step")], (Server, "run"), unpack=True)
)
def test_its_death_is_told_and_stops_nothing(
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
    thread = "http" if owner is Server else "http-probe"
    assert f"{thread} died, which is a bug; indexing continues" in caplog.text
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
