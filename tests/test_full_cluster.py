"""What is asked of a cluster that has everything, seen at the level of requests: the test node has not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.features import Features, detect
from slurp.elastic.lifecycle import THINK_AGAIN, Retention
from slurp.elastic.setup import Setup
from slurp.lexicons import committed
from slurp.logs import Secrets

Json = dict[str, Any]

FULL = {
    "ingest": {"processors": [{"type": "set"}, {"type": "script"}]},
    "modules": [{"name": "analysis-common"}, {"name": "x-pack-ilm"}],
}


class FullCluster(ThreadingHTTPServer):
    """Keeps what is PUT and gives it back; `nodes` is what the nodes say they can."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: dict[str, Json] = {}
        self.puts: list[str] = []
        self.nodes: dict[str, Json] = {"a": FULL}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FullCluster

    def do_GET(self) -> None:
        path = unquote(self.path.split("?")[0])
        if path.startswith("/_nodes"):
            self._answer(200, {"nodes": self.server.nodes})
        elif path == "/ev-*/_mapping":
            self._answer(200, {})
        elif (body := self.server.kept.get(path)) is None:
            self._answer(404, {"error": {"type": "resource_not_found_exception"}})
        elif path.startswith(("/_ilm/policy/", "/_ingest/pipeline/")):
            self._answer(200, {path.rsplit("/", 1)[1]: body})
        elif "_doc" in path:
            self._answer(200, {"_source": body, "_seq_no": 0, "_primary_term": 1})
        else:
            kind = "index_template" if "_index_template" in path else "component_template"
            self._answer(200, {f"{kind}s": [{"name": "x", kind: body}]})

    def do_PUT(self) -> None:
        path = unquote(self.path.split("?")[0])
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.server.kept[path] = body
        self.server.puts.append(path)
        self._answer(200, {"acknowledged": True, "result": "created", "_seq_no": 0, "_primary_term": 1})

    def _answer(self, status: int, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FullCluster]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with FullCluster() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def prepare(cluster: FullCluster, *options: str) -> None:
    config = parse(["--es", cluster.url, "--index", "ev", *options], {})
    with Elasticsearch(cluster.url, max_retries=0) as client:
        Setup(config, committed()).run(client)


def test_pipeline_policy_and_analysis_are_put_and_attached(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "7d")
    pipeline = cluster.kept["/_ingest/pipeline/ev"]
    assert pipeline["processors"] == [
        {"set": {"field": "event.ingested", "value": "{{{_ingest.timestamp}}}"}}
    ]
    assert [next(iter(step)) for step in pipeline["on_failure"]] == ["set"], "marks, never drops"
    policy = cluster.kept["/_ilm/policy/ev"]["policy"]
    assert policy["phases"]["delete"] == {"min_age": "193h", "actions": {"delete": {}}}
    assert "skeetslurper" in policy["_meta"]
    settings = cluster.kept["/_component_template/ev@settings"]["template"]["settings"]["index"]
    assert settings["default_pipeline"] == "ev"
    assert settings["lifecycle"] == {"name": "ev"}
    assert "cjk_bigram" in settings["analysis"]["analyzer"]["default"]["filter"]
    assert settings["auto_expand_replicas"] == "0-1"
    template = cluster.kept["/_index_template/ev"]
    assert template["composed_of"] == ["ev@settings", "ev@mappings", "ev@lexicons", "ev@custom"]
    assert template["ignore_missing_component_templates"] == ["ev@custom"]
    # What a template refers to must be there before it.
    order = [cluster.puts.index(path) for path in ("/_ilm/policy/ev", "/_component_template/ev@settings")]
    assert order == sorted(order)
    assert cluster.puts[-1] == "/_index_template/ev"


@pytest.mark.parametrize("meta", [{}, {"skeetslurper": {"version": "99.0"}}])
def test_a_pipeline_of_somebody_else_or_a_newer_version_is_left_alone(
    cluster: FullCluster, meta: Json
) -> None:
    cluster.kept["/_ingest/pipeline/ev"] = theirs = {"processors": [], "_meta": meta}
    prepare(cluster)
    assert cluster.kept["/_ingest/pipeline/ev"] is theirs


def test_forever_has_no_delete_phase(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "forever")
    assert "delete" not in cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]


def test_a_policy_of_somebody_else_is_left_alone(cluster: FullCluster) -> None:
    mine: Json = {"policy": {"phases": {}}}
    cluster.kept["/_ilm/policy/ev"] = mine
    prepare(cluster)
    assert cluster.kept["/_ilm/policy/ev"] == mine


def test_a_shorter_retention_reaches_the_policy_after_the_ten_minutes(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.kept["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    prepare(cluster, "--retention", "7d")
    phases = cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]
    assert phases["delete"]["min_age"] == "745h"
    elastic = Elastic(parse(["--es", cluster.url], {}), Secrets(()))
    now = 1_800_000_000.0
    Retention(elastic, "ev", 7, Features(lifecycle=True), lambda: now, lambda: now).step()
    now += THINK_AGAIN
    assert cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "745h"
    retention = Retention(elastic, "ev", 7, Features(lifecycle=True), lambda: now, lambda: now)
    retention.step()
    now += THINK_AGAIN
    retention.step()
    assert cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "193h"
    assert cluster.kept["/skeetslurper-state/_doc/retention:ev"]["retention_days"] == 7


def test_without_setup_the_policy_is_left_alone(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.kept["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    elastic = Elastic(parse(["--es", cluster.url], {}), Secrets(()))
    for days in (60, 7):
        Retention(elastic, "ev", days, Features(lifecycle=True), no_setup=True).step()
        assert cluster.kept["/skeetslurper-state/_doc/retention:ev"]["retention_days"] == days
    assert cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "745h"


def test_a_feature_counts_when_every_node_has_it(cluster: FullCluster) -> None:
    with Elasticsearch(cluster.url, max_retries=0) as client:
        assert detect(client) == Features(pipeline=True, lifecycle=True, folding=True)
        cluster.nodes["b"] = {"ingest": {"processors": []}, "modules": [{"name": "x-pack-ilm"}]}
        assert detect(client) == Features(lifecycle=True)
        cluster.nodes = {}
        assert detect(client) == Features()
