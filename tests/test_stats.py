"""The documents in skeetslurper-stats: each event is counted once, also if a write fails."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from elastic_transport import ConnectionTimeout
from elasticsearch import AuthorizationException, ConflictError, Elasticsearch

from slurp import __version__
from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.setup import Setup
from slurp.elastic.templates import STATS_INDEX, asset, is_managed
from slurp.embedded.node import EmbeddedNode
from slurp.lexicons import committed
from slurp.logs import Secrets
from slurp.monitoring.stats_index import DeletionsState, State, StatsIndex, interval
from slurp.pipeline.progress import Snapshot
from slurp.simulator.jetstream import Simulator
from tests.harness import until
from tests.worker import StartWorker, assert_stats_add_up, stats_documents

START = Snapshot(0, 0, 0, 0, 0, 0, 0, 0, reconnects=0, gaps=0, future_revs=0, newest_us=None, at=100.0)
LATER = replace(START, received=90, indexed=50, duplicates=20, quarantined=4, dead_lettered=3, dropped=5)
LATER = replace(LATER, expired=2, in_flight=6, reconnects=2, gaps=1, at=110.0)
STATE = State("one.example", True, 3, 1.2345)


def after(before: Snapshot, seconds: float, **more: int) -> Snapshot:
    """Return the snapshot `seconds` after `before`, with the named counters increased."""
    counts = {name: getattr(before, name) + count for name, count in more.items()}
    return replace(before, at=before.at + seconds, **counts)


# Without a node


def test_a_document_holds_the_changes_since_the_previous_one() -> None:
    assert interval(START, LATER, STATE) == {
        "host": "one.example",
        "interval_ms": 10_000,
        "received": 90,
        "indexed": 50,
        "duplicates": 20,
        "quarantined": 4,
        "dead_lettered": 3,
        "dropped": 5,
        "expired": 2,
        "reconnects": 2,
        "gaps": 1,
        "future_revs": 0,
        "in_flight": 6,
        "queue": 3,
        "connected": True,
        "rate_in": 9.0,
        "rate_out": 8.4,
        "lag_ms": 1234,
    }
    end = replace(after(LATER, 2.5, received=10, indexed=16), in_flight=0)
    last = interval(LATER, end, State("two.example", False, 0, None))
    assert last.items() >= {"received": 10, "indexed": 16, "duplicates": 0, "reconnects": 0}.items()
    assert last.items() >= {"in_flight": 0, "rate_in": 4.0, "rate_out": 6.4, "interval_ms": 2500}.items()
    assert "lag_ms" not in last, "the lag is unknown"


def test_redactions_of_unwritten_documents_are_part_of_the_next_one() -> None:
    client, stats = stats_index()
    client.errors = [ConnectionTimeout("late")]
    for redacted, oldest in ((5, 0.0), (7, 2.5), (7, 0.0)):
        stats.write(LATER, STATE._replace(deletions=DeletionsState(redacted, oldest)), within=30)
    written = [request["document"] for request in client.written]
    assert [document["redacted"] for document in written] == [5, 7, 0]
    assert [document["deletions_oldest_ms"] for document in written] == [0, 2500, 0]
    assert "redacted" not in interval(START, LATER, STATE), "with --deletions keep"


def test_every_counter_is_in_a_document() -> None:
    not_counters = {"newest_us", "at"}
    assert {f.name for f in fields(Snapshot)} - not_counters <= interval(START, LATER, STATE).keys()


class RecordingClient:
    """A client that records the index requests, and raises the exceptions in `errors`, one per write."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.errors: list[Exception] = []
        self.timeout = 0.0
        self.indices = SimpleNamespace(get_mapping=lambda **_: {})

    @property
    def client(self) -> RecordingClient:
        return self

    def options(self, request_timeout: float) -> RecordingClient:
        self.timeout = request_timeout
        return self

    def index(self, **request: Any) -> None:
        self.written.append(request)
        if self.errors:
            raise self.errors.pop(0)


def stats_index(outage_log: OutageLog | None = None) -> tuple[RecordingClient, StatsIndex]:
    client = RecordingClient()
    return client, StatsIndex(cast(Elastic, client), outage_log or OutageLog(), "ev", "", START)


def test_a_document_number_is_reused_until_its_write_is_acknowledged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, stats = stats_index()
    client.errors = [ConnectionTimeout("late"), ConnectionTimeout("late")]
    now = START
    for _ in range(4):
        now = after(now, 30, received=100, indexed=100)
        stats.write(now, STATE, within=30)
    run = client.written[0]["document"]["run"]
    assert [request["id"] for request in client.written] == [f"{run}-{n}" for n in (1, 1, 1, 2)]
    assert [request["version"] for request in client.written] == [1, 2, 3, 4]
    assert [request["document"]["received"] for request in client.written] == [100, 200, 300, 100]
    assert [request["document"]["interval_ms"] for request in client.written][2:] == [90_000, 30_000]
    assert caplog.text.count("next document): no response in time") == 1, "logged once"


def test_each_new_reason_of_a_failed_write_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    client, stats = stats_index()
    meta = cast(Any, SimpleNamespace(status=403))
    denied = AuthorizationException("no", meta, {"error": {"type": "security_exception", "reason": "x"}})
    client.errors = [ConnectionTimeout("late"), denied, denied]
    for _ in range(3):
        stats.write(LATER, STATE, within=30)
    assert caplog.text.count("no response in time") == 1
    assert caplog.text.count("403 security_exception: x") == 1


def test_a_failed_write_is_not_logged_during_a_logged_outage(caplog: pytest.LogCaptureFixture) -> None:
    outage_log = OutageLog()
    client, stats = stats_index(outage_log)
    outage_log.failing("not reachable")
    client.errors = [ConnectionTimeout("late")]
    stats.write(LATER, STATE, within=30)
    assert "next document" not in caplog.text


@pytest.mark.parametrize(("within", "timeout"), [(4, 2.0), (-1, 0.1)])
def test_the_request_timeout_leaves_time_for_two_requests(within: float, timeout: float) -> None:
    client, stats = stats_index()
    stats.write(LATER, STATE, within)
    assert client.timeout == timeout


def test_a_hanging_cluster_does_not_block_the_stats_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        elastic = Elastic(parse(["--es", url], {}), Secrets(()))
        stats = StatsIndex(elastic, OutageLog(), "ev", "", START)
        began = time.monotonic()
        stats.write(LATER, STATE, within=0.4)
        assert time.monotonic() - began < 1


# On a real node


@pytest.fixture
def elastic(
    es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Elastic:
    """Return a client as the worker uses it, after the setup."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = parse(["--es", es_node.url, "--index", fresh_index_prefix], {})
    elastic = Elastic(config, Secrets(()))
    Setup(config, committed()).run(elastic.client)
    return elastic


@pytest.fixture
def start(start_worker: StartWorker) -> StartWorker:
    return lambda *options: start_worker("--since", "0", *options)


def test_the_documents_of_a_run_add_up_to_its_summary(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.run_at(1000)
    jetstream.faults.garbage(after=100)
    with start("--worker-name", "left") as worker:
        worker.wait_for("connected to")
        # `lag_ms` exists once an event is indexed, which may take seconds on a machine under load.
        until(
            lambda: (
                len(written := stats_documents(es, fresh_index_prefix)) >= 3
                and written[-1].get("lag_ms") is not None
            )
        )
        assert worker.stop() == 0
        counted = worker.counted()
    assert counted["dead-lettered"]
    found = assert_stats_add_up(es, fresh_index_prefix, counted)
    mapped = asset("stats")["mappings"]["properties"].keys()
    for document in found:
        assert document.keys() <= mapped, "each field is in the mapping"
        assert (document["index"], document["worker"], document["version"]) == (
            fresh_index_prefix,
            "left",
            __version__,
        )
        assert jetstream.url.endswith(document["host"])
    assert len({document["run"] for document in found}) == 1
    assert [document["connected"] for document in found][-2:] == [True, False]
    assert 0 < found[-2]["lag_ms"] < 60_000
    assert all(document["deletions_oldest_ms"] >= 0 for document in found)
    redacted = int(re.findall(r" redacted ([\d,]+)", worker.log)[-1].replace(",", ""))
    assert sum(document["redacted"] for document in found) == redacted > 0
    assert found[1]["interval_ms"] > 900


@pytest.mark.cluster_wide
def test_a_closed_index_delays_counts_and_loses_none(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.run_at(500)
    with start() as worker:
        worker.wait_for("indexed [1-9]")
        es.indices.close(index=STATS_INDEX)
        try:
            worker.wait_for("cannot write statistics to skeetslurper-stats.* 400 index_closed_exception")
            lines = worker.log.count(" received ")
            until(lambda: worker.log.count(" received ") >= lines + 3)
        finally:
            es.indices.open(index=STATS_INDEX, wait_for_active_shards=1)
        until(lambda: len(stats_documents(es, fresh_index_prefix)) > 1)
        assert worker.stop() == 0
        counted = worker.counted()
    assert worker.log.count("index_closed_exception") == 1
    found = assert_stats_add_up(es, fresh_index_prefix, counted)
    assert max(document["interval_ms"] for document in found) > 2500


@pytest.mark.cluster_wide
def test_a_deleted_index_is_created_again_with_its_mapping(
    elastic: Elastic, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    stats = StatsIndex(elastic, OutageLog(), fresh_index_prefix, "", START)
    es.indices.delete(index=STATS_INDEX)
    stats.write(LATER, STATE, within=30)
    assert [document["received"] for document in stats_documents(es, fresh_index_prefix)] == [90]
    mapping = es.indices.get_mapping(index=STATS_INDEX)[STATS_INDEX]["mappings"]
    assert mapping["dynamic"] == "false"
    assert is_managed(mapping["_meta"])
    assert mapping["properties"] == asset("stats")["mappings"]["properties"]


def test_a_write_with_a_lost_response_counts_once(
    elastic: Elastic,
    es: Elasticsearch,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[dict[str, Any]] = []
    original = Elasticsearch.index

    def lose_first_response(self: Elasticsearch, **request: Any) -> Any:
        requests.append(request)
        response = original(self, **request)
        if len(requests) == 1:
            raise ConnectionTimeout("late")
        return response

    monkeypatch.setattr(Elasticsearch, "index", lose_first_response)
    stats = StatsIndex(elastic, OutageLog(), fresh_index_prefix, "", START)
    stats.write(LATER, STATE, within=30)
    assert len(stats_documents(es, fresh_index_prefix)) == 1
    end = after(LATER, 30, received=10)
    stats.write(end, STATE, within=30)
    with pytest.raises(ConflictError):
        original(es, **requests[0])  # the first request arrives late
    stats.write(after(end, 30, received=1), STATE, within=30)
    assert [document["received"] for document in stats_documents(es, fresh_index_prefix)] == [100, 1]
