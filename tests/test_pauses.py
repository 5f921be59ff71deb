"""Elasticsearch pauses, the server hangs up on who does not read: what is read again, and that it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.position import REWIND_EVENTS
from slurp.simulator.connection import Manners
from slurp.simulator.jetstream import Simulator
from tests.harness import reading
from tests.proxy import Proxy
from tests.worker import Worker, assert_each_once

PAUSES = 4

# Longer than the wait that tells the worker that it is the reason; little room on the way.
MANNERS = Manners(write_timeout=4, send_buffer=65_536)


def hung_up(jetstream: Simulator) -> int:
    return sum(one.ended == "too slow" for one in jetstream.connections)


def begun(jetstream: Simulator) -> list[int]:
    """The cursors that were asked for."""
    return [one.cursor for one in jetstream.connections if one.cursor is not None]


@pytest.mark.slow
def test_a_pause_of_elasticsearch_costs_two_blocks_at_most(
    es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    with (
        Simulator(port=0, seed=1, manners=MANNERS) as jetstream,
        Proxy(es_node.port) as elastic,
        Worker(
            *("--jetstream", jetstream.url, "--es", f"http://127.0.0.1:{elastic.port}"),
            *("--index", fresh_index_prefix, "--since", "0", "--no-kibana", "--stats-interval", "1s"),
            *("--buffer", "5000"),
            home=tmp_path,
        ) as worker,
    ):
        # All of it lies within a minute: a rewind by time reads all that is indexed by now once more.
        jetstream.generate(100_000, span=55)
        worker.wait_for(r"indexed \d")
        worker.wait_until_counted(lambda now: now["indexed"] > 3 * REWIND_EVENTS)
        elastic.hold_answers(b"/_bulk")
        jetstream.wait_until(hung_up, timeout=60)
        elastic.release_answers()
        worker.wait_until_counted(lambda now: now["indexed"] == len(jetstream.frames))
        assert worker.stop() == 0
        counted = worker.counted()
    assert "closed the connection while the queue was full" in worker.log
    assert len(begun(jetstream)) == 2
    assert 0 < counted["duplicates"] <= REWIND_EVENTS
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_pauses_one_after_the_other_are_always_followed_by_progress() -> None:
    """In a replay at full speed, each as soon as the connection after the last one is made."""
    with Simulator(port=0, seed=1, manners=MANNERS) as jetstream:
        jetstream.generate(150_000, span=60)
        with reading(jetstream) as run:
            for pause in range(1, PAUSES + 1):
                run.acknowledges.clear()
                jetstream.wait_until(lambda j, pause=pause: hung_up(j) == pause, timeout=60)  # type: ignore[misc]
                run.acknowledges.set()
                jetstream.wait_until(lambda j, pause=pause: len(begun(j)) > pause, timeout=60)  # type: ignore[misc]
            jetstream.wait_until(lambda _: run.frames[-1] == jetstream.frames[-1], timeout=60)
        asked = begun(jetstream)
        assert asked == sorted(set(asked)), "each connection begins behind the one before"
        assert len(run.frames) <= len(jetstream.frames) + PAUSES * REWIND_EVENTS
        assert set(run.frames) == set(jetstream.frames)
