"""Several `--es` nodes: requests are distributed, and an unavailable node is excluded."""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.simulator.jetstream import Simulator
from tests.harness import InProcess
from tests.proxy import Proxy
from tests.test_elasticsearch_faults import assert_all_indexed
from tests.worker import Worker, assert_each_once, checkpoint


@pytest.mark.parametrize("is_down", [False, True])
def test_requests_are_distributed_evenly_over_available_nodes(
    es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path, is_down: bool
) -> None:
    with Proxy(es_node.port) as first, Proxy(es_node.port) as second:
        # Two proxies to one node, which the client sees as two nodes.
        urls = [f"http://127.0.0.1:{proxy.port}" for proxy in (first, second)]
        indexer = InProcess(urls[0], fresh_index_prefix, tmp_path, "--es", urls[1])
        frames = indexer.posts(30)
        if is_down:
            second.__exit__(None, None, None)
        before = [proxy.count(b"/_bulk") for proxy in (first, second)]
        for at in range(0, 30, 3):
            counted = indexer.feed(frames[at : at + 3])
        assert_all_indexed(es, fresh_index_prefix, counted, frames)
        used = [proxy.count(b"/_bulk") - count for proxy, count in zip((first, second), before, strict=True)]
    if is_down:
        assert used == [10, 0]
    else:
        assert sum(used) == 10
        assert abs(used[0] - used[1]) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("accepts", [True, False], ids=["accepts", "drops packets"])
def test_an_unresponsive_node_delays_nothing_and_is_used_again_when_it_responds(
    es_node: EmbeddedNode,
    es: Elasticsearch,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
    accepts: bool,
) -> None:
    with Proxy(es_node.port) as healthy, Proxy(es_node.port) as unresponsive:
        urls = [
            option
            for proxy in (healthy, unresponsive)
            for option in ("--es", f"http://127.0.0.1:{proxy.port}")
        ]
        with Worker(
            *("--jetstream", jetstream.url, *urls, "--index", fresh_index_prefix, "--since", "0"),
            *("--no-kibana", "--stats-interval", "1s"),
            home=tmp_path,
        ) as worker:
            jetstream.run_at(300)
            worker.wait_for(r"indexed [1-9]")
            worker.wait_until_counted(lambda now: now["indexed"] > 2_000)
            before = statistics.median(checkpoint_ages(es, fresh_index_prefix, seconds=3))
            if accepts:
                unresponsive.silence()
            else:
                unresponsive.ignore_connections()
            line_count = len(worker.lines)
            ages = checkpoint_ages(es, fresh_index_prefix, seconds=20)
            lags = lags_in(worker.lines[line_count:])
            print(f"age of the checkpoint before: {before:.1f} s, then: {sorted(ages)}")
            print(f"lag: {lags}")
            # A request to the unresponsive node would end after 90 s. The usual lag is one flush, a second.
            assert max(lags) < 15
            assert statistics.median(lags) < 3
            assert statistics.median(ages) < before + 4

            unresponsive.recover()
            before, deadline = unresponsive.count(b"/_bulk"), time.monotonic() + 60
            while unresponsive.count(b"/_bulk") < before + 3:
                assert time.monotonic() < deadline, "the node is not used again"
                time.sleep(0.1)
            jetstream.pause()
            worker.wait_until_counted(lambda now: now["received"] >= jetstream.published)
            assert worker.stop() == 0
            assert_each_once(es, fresh_index_prefix, jetstream.frames)


def checkpoint_ages(es: Elasticsearch, index: str, seconds: float) -> list[float]:
    """Return the ages of the checkpoint in seconds, measured several times a second."""
    ages, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        saved = checkpoint(es, index)
        assert saved is not None
        ages.append(time.time() - saved["time_us"] / 1e6)
        time.sleep(0.3)
    return ages


def lags_in(lines: list[str]) -> list[float]:
    """Return the lag in each stats line, in seconds."""
    found = re.findall(r"\| lag (?:(\d+)m ?)?([\d.]+)s", "\n".join(lines))
    return [60 * int(minutes or 0) + float(seconds) for minutes, seconds in found]
