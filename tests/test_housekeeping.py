"""Housekeeping on a slow cluster does not delay checkpoints or the shutdown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.times import day_of
from slurp.simulator.jetstream import Simulator
from tests.worker import Worker, checkpoint

DELAY = 15.0


class DelayingDeletes(ThreadingHTTPServer):
    """A proxy in front of a node that delays deletions of indices by `DELAY` seconds."""

    def __init__(self, node: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.node = node
        self.deleting = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: DelayingDeletes
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.command == "DELETE" and self.path != "/_pit":
            self.server.deleting.set()
            time.sleep(DELAY)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with requests.Session() as session:
            session.trust_env = False  # no proxy for loopback addresses
            response = session.request(
                self.command, self.server.node + self.path, data=body, headers=dict(self.headers), timeout=60
            )
        self.send_response(response.status_code)
        for name in ("Content-Type", "X-Elastic-Product"):
            if name in response.headers:
                self.send_header(name, response.headers[name])
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.content)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def slow(es_node: EmbeddedNode) -> Iterator[DelayingDeletes]:
    with DelayingDeletes(es_node.url) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_slow_deletions_delay_neither_the_checkpoint_nor_the_shutdown(
    slow: DelayingDeletes, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    def start(*options: str) -> Worker:
        return Worker(
            *("--jetstream", jetstream.url, "--es", slow.url, "--index", fresh_index_prefix, "--no-kibana"),
            *("--flush", "200ms", "--refresh", "200ms", "--since", "0", *options),
            home=tmp_path,
        )

    with start("--setup-only") as worker:
        assert worker.exit_code() == 0
    today = int(time.time()) // 86_400
    old = [f"{fresh_index_prefix}-{day_of(today - days)}" for days in range(40, 44)]
    for name in old:
        es.indices.create(index=name)
    jetstream.run_at(200)
    with start() as worker:
        assert slow.deleting.wait(60)
        deletion_started = time.monotonic()
        cursors: set[int] = set()
        while len(cursors) < 4:
            cursors.add((checkpoint(es, fresh_index_prefix) or {"cursor": 0})["cursor"])
            assert time.monotonic() - deletion_started < DELAY, "the checkpoint does not advance"
            time.sleep(0.2)
        jetstream.pause()
        assert worker.stop() == 0
        assert "did not stop in time" not in worker.log
    saved = checkpoint(es, fresh_index_prefix)
    assert saved is not None
    assert saved["clean"]
    assert len(es.indices.get(index=",".join(old), ignore_unavailable=True)) >= 2, (
        "the next start deletes the rest"
    )
