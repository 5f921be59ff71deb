"""Several `--es` share the work, and one that is away is done without."""

from __future__ import annotations

from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.embedded import EmbeddedNode
from tests.harness import InProcess
from tests.proxy import Proxy
from tests.test_faults import assert_all_indexed


@pytest.mark.parametrize("away", [False, True])
def test_nodes_are_used_evenly(
    es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path, away: bool
) -> None:
    with Proxy(es_node.port) as first, Proxy(es_node.port) as second:
        # To one node by two roads, which is all that the client can see of two nodes.
        urls = [f"http://127.0.0.1:{one.port}" for one in (first, second)]
        indexer = InProcess(urls[0], fresh_index_prefix, tmp_path, "--es", urls[1])
        frames = indexer.posts(30)
        if away:
            second.__exit__(None, None, None)
        before = [one.count(b"/_bulk") for one in (first, second)]
        for at in range(0, 30, 3):
            counted = indexer.feed(frames[at : at + 3])
        assert_all_indexed(es, fresh_index_prefix, counted, frames)
        used = [one.count(b"/_bulk") - was for one, was in zip((first, second), before, strict=True)]
    if away:
        assert used == [10, 0]
    else:
        assert sum(used) == 10
        assert abs(used[0] - used[1]) <= 2
