"""Several `--es` share the work, and one that is away is done without."""

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


@pytest.mark.slow
@pytest.mark.parametrize("accepts", [True, False], ids=["accepts", "drops packets"])
def test_a_silent_node_delays_nothing_and_is_used_again_when_it_answers(
    es_node: EmbeddedNode,
    es: Elasticsearch,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
    accepts: bool,
) -> None:
    with Proxy(es_node.port) as sound, Proxy(es_node.port) as silent:
        urls = [option for one in (sound, silent) for option in ("--es", f"http://127.0.0.1:{one.port}")]
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
                silent.silence()
            else:
                silent.ignore_connections()
            said = len(worker.lines)
            ages = checkpoint_ages(es, fresh_index_prefix, seconds=20)
            lags = lags_in(worker.lines[said:])
            print(f"age of the checkpoint before: {before:.1f} s, then: {sorted(ages)}")
            print(f"lag: {lags}")
            # A request to the silent node has 90 s. Usual is a lag of one flush, which is a second.
            assert max(lags) < 15
            assert statistics.median(lags) < 3
            assert statistics.median(ages) < before + 4

            silent.recover()
            before, deadline = silent.count(b"/_bulk"), time.monotonic() + 60
            while silent.count(b"/_bulk") < before + 3:
                assert time.monotonic() < deadline, "it is not used again"
                time.sleep(0.1)
            jetstream.pause()
            worker.wait_until_counted(lambda now: now["received"] >= jetstream.published)
            assert worker.stop() == 0
            assert_each_once(es, fresh_index_prefix, jetstream.frames)


def checkpoint_ages(es: Elasticsearch, index: str, seconds: float) -> list[float]:
    """How old the saved position was, several times a second."""
    ages, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        saved = checkpoint(es, index)
        assert saved is not None
        ages.append(time.time() - saved["time_us"] / 1e6)
        time.sleep(0.3)
    return ages


def lags_in(lines: list[str]) -> list[float]:
    """The lag of each stats line, in seconds."""
    found = re.findall(r"\| lag (?:(\d+)m ?)?([\d.]+)s", "\n".join(lines))
    return [60 * int(minutes or 0) + float(seconds) for minutes, seconds in found]
