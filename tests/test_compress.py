"""`--es-compress`: which requests are compressed, and what a real node receives."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from elastic_transport import Urllib3HttpNode
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.embedded.node import EmbeddedNode
from slurp.logs import Secrets
from tests.harness import InProcess
from tests.worker import assert_each_once


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str], bytes]]:
    """Path, headers and body of each request that is sent to a node."""
    requests: list[tuple[str, dict[str, str], bytes]] = []
    perform = Urllib3HttpNode.perform_request

    def record(self: Any, method: str, target: str, **options: Any) -> Any:
        requests.append((target, dict(options.get("headers") or {}), options.get("body") or b""))
        return perform(self, method, target, **options)

    monkeypatch.setattr(Urllib3HttpNode, "perform_request", record)
    return requests


@pytest.mark.parametrize(("option", "is_compressed"), [("on", True), ("off", False), ("auto", False)])
def test_bulk_requests_are_compressed_by_the_option(
    sent: list[tuple[str, dict[str, str], bytes]],
    es_node: EmbeddedNode,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    option: str,
    is_compressed: bool,
) -> None:
    indexer = InProcess(es_node.url, fresh_index_prefix, tmp_path, "--es-compress", option)
    frames = indexer.posts(200)
    assert indexer.feed(frames).in_flight == 0
    assert_each_once(es, fresh_index_prefix, frames)
    bulks = [(headers, body) for path, headers, body in sent if "_bulk" in path]
    assert bulks
    for headers, body in bulks:
        assert (headers.get("content-encoding") == "gzip") is is_compressed
        text = gzip.decompress(body) if is_compressed else body
        assert text.startswith(b'{"create"')
        assert len(body) < len(text) / 3 or not is_compressed
    indexer.elastic.close()


@pytest.mark.parametrize(
    ("url", "option", "is_compressed"),
    [
        ("http://localhost:9200", "auto", False),
        ("http://127.3.2.1:9200", "auto", False),
        ("http://[::1]:9200", "auto", False),
        ("http://es.example:9200", "auto", True),
        ("https://10.0.0.7", "auto", True),
        ("https://10.0.0.7", "off", False),
        ("http://localhost:9200", "on", True),
    ],
)
def test_auto_compresses_only_for_remote_nodes(url: str, option: str, is_compressed: bool) -> None:
    # For each node separately: requests to a local node stay uncompressed also beside a remote one.
    config = parse(["--es", url, "--es", "http://localhost:9201", "--es-compress", option], {"HOME": "/"})
    elastic = Elastic(config, Secrets(()))
    try:
        found = {
            node.config.port: node.config.http_compress for node in elastic.client.transport.node_pool.all()
        }
        assert found.pop(9201) is (option == "on")
        assert [*found.values()] == [is_compressed]
    finally:
        elastic.close()
