"""The program with a Kibana that starts late or hangs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode, free_port
from slurp.kibana import objects
from slurp.simulator.jetstream import Simulator
from tests.stub_kibana import StubKibana
from tests.worker import Worker, assert_each_once, count

# Seconds for which Kibana is down.
DOWN = float(os.environ.get("SLURP_TEST_KIBANA_DOWN", "5"))


def test_kibana_may_start_later_than_everything_else(
    es_node: EmbeddedNode,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    port = free_port()
    options = (
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix),
        *("--kibana", f"http://127.0.0.1:{port}", "--since", "0"),
        *("--flush", "200ms", "--stats-interval", "1s"),
    )
    built = [(one["type"], one["id"]) for one in objects.build(fresh_index_prefix)]
    jetstream.generate(500, span=0.5)
    with Worker(*options, home=tmp_path) as worker:
        worker.wait_for(r"Kibana at .*: not ready: no response")
        up_at = time.monotonic() + DOWN
        worker.wait_for("received 500 = indexed 500 ")
        jetstream.generate(500, span=0.5)
        worker.wait_for("received 1,000 = indexed 1,000 ")
        assert count(es, fresh_index_prefix) == 1000
        time.sleep(max(0.0, up_at - time.monotonic()))
        with StubKibana(port) as kibana:
            worker.wait_for(r"Kibana 9\.5\.3 at .* created", timeout=45)
            assert set(kibana.objects) == set(built)
            assert kibana.imports == [(False, built)]
            assert worker.stop() == 0
            with Worker(*options, home=tmp_path) as restarted:
                restarted.wait_for("all objects are up to date")
                assert restarted.stop() == 0
            assert len(kibana.imports) == 1
        assert "changeme" not in worker.log
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_a_hanging_kibana_does_not_delay_the_shutdown(
    es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path
) -> None:
    with StubKibana() as kibana:
        with (
            kibana.hanging(),
            Worker(
                *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix),
                *("--kibana", kibana.url),
                home=tmp_path,
            ) as worker,
        ):
            worker.wait_for("connected to")
            deadline = time.monotonic() + 10
            while not kibana.waiting and time.monotonic() < deadline:
                time.sleep(0.02)
            assert kibana.waiting
            began = time.monotonic()
            assert worker.stop() == 0
            assert time.monotonic() - began < 6
        assert worker.lines[-1].endswith("Shutdown complete")
