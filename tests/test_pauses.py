"""Pauses of Elasticsearch in which the server disconnects the slow reader: progress and duplicates."""

from __future__ import annotations

from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.position import REWIND_EVENTS
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import reading
from tests.proxy import Proxy
from tests.worker import Worker, assert_each_once

PAUSES = 4

# The timeout is longer than the 2.5 s of waiting for queue space after which a disconnect does not count as a
# failure of the server. With a small buffer the server's writes block soon.
SERVER = ServerOptions(write_timeout=4, send_buffer=65_536)


def write_timeouts(jetstream: Simulator) -> int:
    """Return how many connections the server has closed because the client read too slowly."""
    return sum(one.ended == "write timeout" for one in jetstream.connections)


def requested_cursors(jetstream: Simulator) -> list[int]:
    """Return the cursors of all connections."""
    return [one.cursor for one in jetstream.connections if one.cursor is not None]


@pytest.mark.slow
def test_a_pause_of_elasticsearch_causes_at_most_two_blocks_of_duplicates(
    es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    with (
        Simulator(port=0, seed=1, server=SERVER) as jetstream,
        Proxy(es_node.port) as elastic,
        Worker(
            *("--jetstream", jetstream.url, "--es", f"http://127.0.0.1:{elastic.port}"),
            *("--index", fresh_index_prefix, "--since", "0", "--no-kibana", "--stats-interval", "1s"),
            *("--buffer", "5000"),
            home=tmp_path,
        ) as worker,
    ):
        # All events lie within a minute, so a rewind by time would replay all indexed events.
        jetstream.generate(100_000, span=55)
        worker.wait_for(r"indexed \d")
        worker.wait_until_counted(lambda now: now["indexed"] > 3 * REWIND_EVENTS)
        elastic.hold_answers(b"/_bulk")
        jetstream.wait_until(write_timeouts, timeout=60)
        elastic.release_answers()
        worker.wait_until_counted(lambda now: now["indexed"] == len(jetstream.frames))
        assert worker.stop() == 0
        counted = worker.counted()
    assert "closed the connection while the queue was full" in worker.log
    assert len(requested_cursors(jetstream)) == 2
    assert 0 < counted["duplicates"] <= REWIND_EVENTS
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_each_of_several_pauses_is_followed_by_progress() -> None:
    """In a replay at full speed. Each pause starts as soon as the reader has reconnected."""
    with Simulator(port=0, seed=1, server=SERVER) as jetstream:
        jetstream.generate(150_000, span=60)
        with reading(jetstream) as run:
            for pause in range(1, PAUSES + 1):
                run.acknowledges.clear()
                jetstream.wait_until(lambda j, pause=pause: write_timeouts(j) == pause, timeout=60)  # type: ignore[misc]
                run.acknowledges.set()
                jetstream.wait_until(lambda j, pause=pause: len(requested_cursors(j)) > pause, timeout=60)  # type: ignore[misc]
            jetstream.wait_until(lambda _: run.frames[-1] == jetstream.frames[-1], timeout=60)
        cursors = requested_cursors(jetstream)
        assert cursors == sorted(set(cursors)), "each connection starts after the one before"
        assert len(run.frames) <= len(jetstream.frames) + PAUSES * REWIND_EVENTS
        assert set(run.frames) == set(jetstream.frames)
