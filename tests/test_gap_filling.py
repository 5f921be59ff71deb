"""Gaps of a worker are filled from the archive of a server, without any action of the operator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events import tid
from slurp.events.frames import parse
from slurp.events.identity import event_id
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import Clock
from tests.test_gap_worker import gap_documents
from tests.worker import StartWorker, assert_each_once, documents, starter

HOUR = 3600


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[Simulator]:
    """A server whose stream goes back 15 minutes, with an archive."""
    options = ServerOptions(lookback=900, archive_segment=500, archive_block=64)
    with Simulator(port=0, seed=1, clock=clock, server=options) as simulator:
        yield simulator


@pytest.fixture
def start(es_node: EmbeddedNode, server: Simulator, fresh_index_prefix: str, tmp_path: Path) -> StartWorker:
    return starter(es_node.url, server.url, fresh_index_prefix, tmp_path, "--retention", "forever")


@pytest.fixture
def outage(start: StartWorker, server: Simulator, clock: Clock) -> None:
    """A worker was stopped for longer than the server's stream goes back."""
    clock.ago = 2 * HOUR
    server.generate(1000, span=60)
    with start("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    clock.ago = 0
    server.generate(7000, span=7000)


@pytest.mark.usefixtures("outage")
def test_a_gap_is_filled_while_live_reading_goes_on(
    start: StartWorker, server: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with start() as worker:
        worker.wait_for("gap: ")
        worker.wait_for("filling the gap from ")
        worker.wait_for("filled the gap from ")
        worker.stop()
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, server.frames)
    [gap] = gap_documents(es, fresh_index_prefix)
    assert gap["filled_at"] > gap["found_at"]
    assert server.url.endswith(gap["filled_from"])
    assert gap["unfilled"] == []
    late = [one["backfill"] for one in documents(es, fresh_index_prefix).values() if "backfill" in one]
    assert 5000 < len(late) < 7000
    assert {one["source"] for one in late} == {gap["host"]}


def test_history_is_read_from_the_archive(
    start: StartWorker, server: Simulator, clock: Clock, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    clock.ago = 2 * HOUR
    server.generate(3000, span=60)
    clock.ago = 0
    server.generate(5000, span=7000)
    with start("--since", "3h", "--catch-up") as worker:
        assert worker.exit_code() == 0
        worker.wait_for("filled the gap from ")
    assert_each_once(es, fresh_index_prefix, server.frames)


@pytest.mark.usefixtures("outage")
def test_what_was_deleted_meanwhile_does_not_come_back(
    start: StartWorker, server: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """The stream has the deletions, and the archive the records: it is read after them."""
    created = [event for event in map(parse, server.frames[1500:3000]) if is_create(event)][::10]
    assert len(created) > 50
    server.publish(deletion_of(event) for event in created)
    # A file of the archive is sealed when it is full.
    server.generate(1500)
    with start() as worker:
        worker.wait_for("filled the gap from ")
        worker.stop()
    assert_each_once(es, fresh_index_prefix, server.frames)
    found = documents(es, fresh_index_prefix)
    for event in created:
        assert found[event_id(event)]["redacted"]["reason"] == "deleted"


@pytest.mark.slow
@pytest.mark.usefixtures("outage")
def test_filling_continues_where_it_was_killed(
    start: StartWorker, server: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    for _ in range(3):
        with start("--batch", "100", "--indexers", "1") as worker:
            worker.wait_for("filling the gap from ")
            time.sleep(1)
            worker.kill()
    with start() as worker:
        worker.wait_for("filled the gap from ")
        worker.stop()
    assert_each_once(es, fresh_index_prefix, server.frames)


@pytest.mark.usefixtures("outage")
def test_an_archive_that_wants_a_key_is_named_once(
    start: StartWorker, server: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    server.archive.key = "the-key"
    with start() as worker:
        worker.wait_for(
            "wants an API key for its archive .* --jetstream-api-key-file; the gaps stay recorded"
        )
        worker.stop()
    key = tmp_path / "key"
    key.write_text("the-key\n")
    key.chmod(0o600)
    with start("--jetstream-api-key-file", str(key)) as worker:
        worker.wait_for("filled the gap from ")
        worker.stop()
        assert not any("the-key" in line for line in worker.lines)
    assert_each_once(es, fresh_index_prefix, server.frames)


@pytest.mark.slow
@pytest.mark.usefixtures("outage")
def test_an_archive_that_refuses_for_a_while_is_read_later(
    start: StartWorker, server: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    server.archive.failures += [(503, {}, b""), (429, {"Retry-After": "1"}, b"")]
    server.archive.cuts += [1000, 1000, 0, 5000]
    with start() as worker:
        worker.wait_for("the archive cannot be read: planSnapshot: HTTP 503; trying again in ")
        worker.wait_for("filling the gap from ")
        server.archive.compact()
        worker.wait_for("filled the gap from ")
        worker.stop()
    # Compaction removed what later events have replaced; that is a duplicate, or gone at its source.
    assert not gap_documents(es, fresh_index_prefix)[0]["unfilled"]


@pytest.mark.usefixtures("outage")
def test_gaps_are_not_filled_if_that_is_off(
    start: StartWorker, server: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with start("--fill-gaps", "off", "--catch-up") as worker:
        assert worker.exit_code() == 0
    assert not server.archive.requests
    assert "filled_at" not in gap_documents(es, fresh_index_prefix)[0]


def is_create(event: dict[str, Any]) -> bool:
    return event["kind"] == "commit" and bool(event["commit"]["operation"] == "create")


def deletion_of(event: dict[str, Any]) -> dict[str, Any]:
    commit = {name: event["commit"][name] for name in ("collection", "rkey")}
    rev = tid.from_micros(int(time.time() * 1e6))
    return {"did": event["did"], "kind": "commit", "commit": {**commit, "operation": "delete", "rev": rev}}


def test_a_gap_is_filled_from_the_server_that_has_all_of_it(
    start: StartWorker, clock: Clock, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """The server that is read is younger than the gap; the archive of the other one is not."""
    options = ServerOptions(lookback=900, archive_segment=500, archive_block=64)
    with (
        Simulator(port=0, seed=1, clock=clock, server=options) as old,
        Simulator(port=0, seed=1, clock=clock, server=options) as young,
    ):
        clock.ago = 2 * HOUR
        old.generate(4000, span=60)
        clock.ago = 0
        old.generate(5000, span=7000)
        events = [orjson.loads(frame) for frame in old.frames[6000:]]
        young.publish({**event, "cursor": event["cursor"] + 100_000} for event in events)
        old.faults.delay(0.5, times=3)
        servers = ("--jetstream", young.url, "--jetstream", old.url)
        with start("--since", "3h", "--catch-up", *servers) as worker:
            assert worker.exit_code() == 0
        assert_each_once(es, fresh_index_prefix, old.frames)
        [gap] = gap_documents(es, fresh_index_prefix)
        assert young.url.endswith(gap["host"])
        assert old.url.endswith(gap["filled_from"])
        # A gap is filled once. Only the server with the checkpoint: another one may have a gap of its own.
        requests = len(young.archive.requests)
        with start("--jetstream", young.url) as worker:
            worker.wait_for("connected to")
            time.sleep(12)
            worker.stop()
        assert len(young.archive.requests) == requests
        assert gap_documents(es, fresh_index_prefix) == [gap]
