"""A node with a tiny write queue and request limit: rejections, bisected requests, and a kill under load."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurp.embedded.node import EmbeddedNode, NodeOptions
from tests.fixtures_es import PASSWORD, client_for
from tests.harness import InProcess, commit
from tests.test_elasticsearch_faults import assert_all_indexed
from tests.worker import count

# One node for all of them.
pytestmark = [pytest.mark.xdist_group("starved"), pytest.mark.slow]

SETTINGS = {
    # One write in progress and one queued; further ones are rejected.
    "thread_pool.write.size": "1",
    "thread_pool.write.queue_size": "1",
    "http.max_content_length": "1mb",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, es_version: str) -> Iterator[EmbeddedNode]:
    data = tmp_path_factory.mktemp("starved") / "node"
    options = NodeOptions(settings=SETTINGS)
    with EmbeddedNode(data, port=0, version=es_version, password=PASSWORD, options=options) as node:
        yield node


@pytest.fixture
def indexer(node: EmbeddedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """An indexer with a new index prefix for each test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return InProcess(node.url, f"starved-{secrets.token_hex(3)}", tmp_path)


def test_many_rejections_lose_no_events_and_create_no_duplicates(
    node: EmbeddedNode, indexer: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    frames = indexer.posts(3000)
    for first in range(0, len(frames), 200):
        indexer.put(frames[first : first + 200])
    with client_for(node) as es:
        with indexer.running(6):
            pass
        pools = es.nodes.stats(metric="thread_pool", filter_path="nodes.*.thread_pool.write")["nodes"]
        (pool,) = (one["thread_pool"]["write"] for one in pools.values())
        assert pool["rejected"] > 0
        counted = indexer.counters.snapshot()
        assert_all_indexed(es, indexer.index, counted, frames)
    assert counted.duplicates == 0, "only rejected documents are sent again"
    warnings = [message for message in caplog.messages if "holding the events in flight" in message]
    assert "429 es_rejected_execution_exception" in warnings[0]


def test_a_bulk_request_that_is_too_large_is_split(
    node: EmbeddedNode, indexer: InProcess, tmp_path: Path
) -> None:
    def post(number: int, length: int) -> bytes:
        return commit(number, {"text": "x" * length}, at=indexer.began)

    frames = [post(number, 10_000) for number in range(300)]
    oversized = post(300, 1_100_000)
    counted = indexer.feed([*frames[:200], oversized, *frames[200:]])
    assert counted.adds_up
    assert (counted.indexed, counted.duplicates) == (300, 0)
    # Too large for the quarantine as well.
    assert (counted.quarantined, counted.dead_lettered) == (0, 1)
    assert (tmp_path / "letters.jsonl").stat().st_size > 1_100_000
    with client_for(node) as es:
        assert count(es, indexer.index) == 300


def test_canaries_among_rejections_are_deleted(node: EmbeddedNode, indexer: InProcess) -> None:
    """A canary is sent for a document that is rejected for an unknown reason, and it must not remain."""
    oversized = [commit(number, {"text": "x" * 1_100_000}, at=indexer.began) for number in range(1000, 1030)]
    frames = indexer.posts(600)
    for number, large in enumerate(oversized):
        indexer.put([large, *frames[20 * number : 20 * (number + 1)]])
    with indexer.running(6):
        pass
    counted = indexer.counters.snapshot()
    assert counted.adds_up
    assert (counted.indexed, counted.duplicates) == (len(frames), 0), "only rejected documents are sent again"
    assert counted.dead_lettered == len(oversized)
    with client_for(node) as es:
        assert count(es, indexer.index) == len(frames)


def test_a_node_that_is_killed_under_load_loses_no_acknowledged_event(
    node: EmbeddedNode, indexer: InProcess
) -> None:
    frames = indexer.posts(4000)
    with indexer.running(2):
        for first in range(0, len(frames), 50):
            indexer.put(frames[first : first + 50])
        while not indexer.counters.snapshot().indexed:
            time.sleep(0.01)
        node.kill()
        assert indexer.counters.snapshot().in_flight, "under load"
        node.start()
    with client_for(node) as es:
        assert_all_indexed(es, indexer.index, indexer.counters.snapshot(), frames)
