"""A real cluster of three nodes that loses one node, and then the majority."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode, NodeOptions, free_port
from slurp.simulator.jetstream import Simulator
from tests.fixtures_es import PASSWORD, client_for
from tests.worker import Worker, assert_each_once, checkpoint, wait_for_documents


@pytest.fixture
def cluster(tmp_path: Path, es_version: str) -> Iterator[list[EmbeddedNode]]:
    """Yield three nodes that form a cluster."""
    ports = [(free_port(), free_port()) for _ in range(3)]
    cluster_settings = {
        "discovery.type": None,
        "discovery.seed_hosts": ",".join(f"127.0.0.1:{transport}" for _, transport in ports),
        "cluster.initial_master_nodes": ",".join(f"embedded-{port}" for port, _ in ports),
    }
    nodes = [
        EmbeddedNode(
            tmp_path / f"node-{port}",
            port=port,
            version=es_version,
            password=PASSWORD,
            options=NodeOptions(heap="300m", settings={**cluster_settings, "transport.port": str(transport)}),
        )
        for port, transport in ports
    ]
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.callback(node.stop)
        # In parallel: no node is ready before it has found a second one.
        with ThreadPoolExecutor() as pool:
            list(pool.map(EmbeddedNode.start, nodes))
        yield nodes


def health(es: Elasticsearch, status: str) -> Any:
    """Wait until the cluster has this status, for 90 s at most, and return its health."""
    return es.options(request_timeout=120).cluster.health(wait_for_status=status, timeout="90s")


def node_of_primary(es: Elasticsearch, index: str) -> str:
    """Return the name of the node with the primary shard of today's index."""
    rows: Any = es.cat.shards(index=f"{index}-*", format="json", h="index,prirep,node").body
    # The first by name: a second index, if there is one, is that of tomorrow.
    return str(min((row["index"], row["node"]) for row in rows if row["prirep"] == "p")[1])


# Six starts of Elasticsearch and a slow election.
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_worker_survives_one_lost_node_and_waits_for_a_majority(
    cluster: list[EmbeddedNode], jetstream: Simulator, tmp_path: Path
) -> None:
    index = "cluster"
    urls = [option for node in cluster for option in ("--es", node.url)]
    with Worker(
        *("--jetstream", jetstream.url, *urls, "--index", index, "--since", "0"),
        *("--no-kibana", "--stats-interval", "1s", "--flush", "200ms"),
        home=tmp_path,
    ) as worker:
        jetstream.run_at(500)
        worker.wait_for(r"indexed [1-9]")
        with client_for(cluster[0]) as es:
            assert health(es, "green")["number_of_nodes"] == 3
            primary = node_of_primary(es, index)
        first = next(node for node in cluster if primary == f"embedded-{node.port}")
        second, third = (node for node in cluster if node is not first)
        first.kill()
        before = worker.counted()["indexed"]
        worker.wait_until_counted(lambda now: now["indexed"] > before + 1000)

        # One node of three cannot elect a master, and writes wait for a master.
        second.kill()
        worker.wait_until_counted(lambda now: now["in flight"] > 1000)
        second.start()
        jetstream.pause()
        with client_for(third) as es:
            health(es, "yellow")
            wait_for_documents(es, index, len(jetstream.frames))
            assert worker.stop() == 0
            counted = worker.counted()
            assert (counted["quarantined"], counted["in flight"]) == (0, 0)
            assert_each_once(es, index, jetstream.frames)
            saved = checkpoint(es, index)
            assert saved is not None
            assert saved["clean"]
