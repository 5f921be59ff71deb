"""A worker process from start to exit: waiting for its services, signals, exit codes, the embedded node."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.data_folder import cache_dir
from slurp.embedded.node import EmbeddedNode, free_port
from slurp.simulator.jetstream import Simulator
from tests.fixtures_es import OwnNode
from tests.tiers import slow_except
from tests.worker import StartWorker, Worker, assert_each_once


def test_catch_up_without_events_exits_with_1(start_worker: StartWorker) -> None:
    with start_worker("--catch-up", "--wait", "2s") as worker:
        assert worker.exit_code() == 1
        assert "no event received within 2 s" in worker.log


@pytest.mark.slow
def test_catch_up_waits_for_a_stalled_server(
    start_worker: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(800)
    jetstream.faults.stall(after=400, pongs=False)
    with start_worker("--since", "0", "--catch-up") as worker:
        worker.wait_for("received 400 = indexed 400")
        time.sleep(7)
        assert worker.process.poll() is None
        jetstream.faults.clear()
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_an_interrupted_catch_up_exits_with_1(start_worker: StartWorker, jetstream: Simulator) -> None:
    jetstream.run_at(100)
    with start_worker("--catch-up", "--flush", "10ms", "--since", "0") as worker:
        worker.wait_for("connected")
        assert worker.stop() == 1


def test_a_second_signal_stops_immediately(own_node: OwnNode, jetstream: Simulator, tmp_path: Path) -> None:
    node = own_node()
    node.start()
    jetstream.run_at(1000)
    options = ("--jetstream", jetstream.url, "--es", node.url, "--no-kibana", "--grace", "60s")
    with Worker(*options, home=tmp_path) as worker:
        worker.wait_for("created index")
        node.kill()
        worker.wait_for("holding the events in flight")
        worker.process.send_signal(signal.SIGINT)
        time.sleep(2)  # a signal within one second of the first counts as the same request
        assert worker.process.poll() is None, "it retries until --grace has passed"
        worker.process.send_signal(signal.SIGINT)
        assert worker.exit_code(timeout=20) == 1


@pytest.mark.slow
def test_unflushed_events_are_logged(own_node: OwnNode, jetstream: Simulator, tmp_path: Path) -> None:
    node = own_node()
    node.start()
    jetstream.run_at(1000)
    options = ("--jetstream", jetstream.url, "--es", node.url, "--no-kibana", "--grace", "5s")
    with Worker(*options, home=tmp_path) as worker:
        worker.wait_for("created index")
        node.kill()
        worker.wait_for("holding the events in flight")
        signaled = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - signaled < 12
        assert "events in flight will be read again" in worker.log


def test_two_workers_with_one_checkpoint_are_an_error(
    start_worker: StartWorker, jetstream: Simulator
) -> None:
    jetstream.run_at(500)
    with start_worker("--since", "0", "--refresh", "500ms") as first:
        first.wait_for("indexed [1-9]")
        with start_worker("--since", "0", "--refresh", "500ms") as second:
            deadline = time.monotonic() + 30
            while first.process.poll() is None and second.process.poll() is None:
                assert time.monotonic() < deadline, "neither worker has detected the other"
                time.sleep(0.1)
            ended, running = (first, second) if second.process.poll() is None else (second, first)
            assert ended.exit_code() == 1
            assert "another worker writes the checkpoint" in ended.log
            assert "--worker-name" in ended.log
            assert running.stop() == 0


# The embedded node


@pytest.mark.slow
def test_the_embedded_node_keeps_its_data_and_stops_with_the_worker(
    jetstream: Simulator, tmp_path: Path
) -> None:
    jetstream.generate(500)
    options = (
        *("--embedded", "--es", f"http://localhost:{free_port()}", "--jetstream", jetstream.url),
        *("--embedded-data", str(tmp_path / "node"), "--no-kibana", "--since", "0", "--stats-interval", "1s"),
    )
    # The packages of the node are downloaded once for all tests, not again for this test's home folder.
    env = {"XDG_CACHE_HOME": str(cache_dir().parent)}
    with Worker(*options, home=tmp_path, env=env) as worker:
        worker.wait_for(r"--max-disk: [\d.]+ [MG]B, chosen at the first start", timeout=90)
        worker.wait_for("indexed 500 .* disk .* of ", timeout=90)
        assert worker.stop() == 0
    with Worker(*options, "--max-disk", "500TB", home=tmp_path, env=env) as worker:
        worker.wait_for("resuming at cursor .* after a clean shutdown", timeout=90)
        assert re.search(r"WARNING .*--max-disk 500,000.0 GB is more than the [\d.]+ GB", worker.log)
        children = psutil.Process(worker.process.pid).children(recursive=True)
        assert any("org.elasticsearch" in " ".join(process.cmdline()) for process in children)
        worker.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "a JVM outlives the worker"


# Services that are wrong or not reachable


def test_startup_waits_for_elasticsearch_then_exits_with_1(jetstream: Simulator, tmp_path: Path) -> None:
    with Worker(
        *("--jetstream", jetstream.url, "--es", "http://127.0.0.1:1", "--no-kibana", "--wait", "3s"),
        home=tmp_path,
    ) as worker:
        assert worker.exit_code(timeout=15) == 1
        assert "waiting for Elasticsearch at http://127.0.0.1:1" in worker.log
        assert "is not ready after 3 s" in worker.log
        assert "Traceback" not in worker.log


@pytest.mark.parametrize("silent", slow_except([False, True], False))
def test_a_wrong_password_exits_with_2_and_is_not_logged(
    start_worker: StartWorker, jetstream: Simulator, silent: bool
) -> None:
    if silent:
        jetstream.faults.delay(float("inf"), times=None)
    started = time.monotonic()
    with start_worker("--es-pass", "geheim-und-falsch") as worker:
        assert worker.exit_code(timeout=20) == 2
        assert time.monotonic() - started < 15
        assert "rejects the password of user 'elastic'" in worker.log
        assert "geheim" not in worker.log


@pytest.mark.parametrize("status", [200, 403, 404])
def test_a_web_server_that_is_not_elasticsearch_is_reported(
    jetstream: Simulator, tmp_path: Path, status: int
) -> None:
    class WebPage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>It works!</h1>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), WebPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with Worker(
            *("--jetstream", jetstream.url, "--es", url, "--no-kibana", "--wait", "3s"), home=tmp_path
        ) as worker:
            assert worker.exit_code(timeout=20) == 1
            assert f"the server at {url} is not Elasticsearch" in worker.log
        server.shutdown()


def test_a_server_that_does_not_speak_http_is_reported(jetstream: Simulator, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Worker(
            "--jetstream", jetstream.url, "--es", url, "--no-kibana", "--wait", "5s", home=tmp_path
        ) as worker:
            assert worker.exit_code(timeout=20) == 1
            assert "is not Elasticsearch" in worker.log
        server.shutdown(socket.SHUT_RDWR)


def test_startup_waits_for_jetstream(
    es_node: EmbeddedNode, es: Elasticsearch, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path
) -> None:
    jetstream.generate(100)
    url = jetstream.url
    jetstream.stop()
    with Worker(
        *("--jetstream", url, "--es", es_node.url, "--index", fresh_index_prefix, "--since", "0"),
        *("--no-kibana", "--catch-up"),
        home=tmp_path,
    ) as worker:
        worker.wait_for("no server reachable")
        worker.wait_for("unreachable: Connection refused")
        worker.wait_for("cannot connect: Connection refused; reconnecting in")
        jetstream.start()
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
