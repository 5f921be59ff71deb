"""The documents in skeetslurper-stats: each event counted once, whatever becomes of a write."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
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
from slurp.monitoring.stats_index import State, StatsIndex, interval
from slurp.pipeline.progress import Snapshot
from slurp.simulator.jetstream import Simulator
from tests.worker import Worker, assert_stats_add_up, stats_documents

START = Snapshot(0, 0, 0, 0, 0, 0, 0, 0, reconnects=0, gaps=0, future_revs=0, newest_us=None, at=100.0)
LATER = replace(START, received=90, indexed=50, duplicates=20, quarantined=4, dead_lettered=3, dropped=5)
LATER = replace(LATER, expired=2, in_flight=6, reconnects=2, gaps=1, at=110.0)
STATE = State("one.example", True, 3, 1.2345)


def after(before: Snapshot, seconds: float, **more: int) -> Snapshot:
    """`before` with a little more of what is named."""
    counts = {name: getattr(before, name) + count for name, count in more.items()}
    return replace(before, at=before.at + seconds, **counts)


def wait_until(true: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


# Pure


def test_a_document_holds_what_happened_in_between() -> None:
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
    assert "lag_ms" not in last, "unknown"


def test_every_counter_of_the_tally_is_in_a_document() -> None:
    left_out = {"newest_us", "at"}
    assert {f.name for f in fields(Snapshot)} - left_out <= interval(START, LATER, STATE).keys()


class Recorded:
    """A client that keeps the documents it is given; `fails` are raised first, one a write."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.fails: list[Exception] = []
        self.timeout = 0.0
        self.indices = SimpleNamespace(get_mapping=lambda **_: {})

    @property
    def client(self) -> Recorded:
        return self

    def options(self, request_timeout: float) -> Recorded:
        self.timeout = request_timeout
        return self

    def index(self, **request: Any) -> None:
        self.written.append(request)
        if self.fails:
            raise self.fails.pop(0)


def recorded(outage_log: OutageLog | None = None) -> tuple[Recorded, StatsIndex]:
    node = Recorded()
    return node, StatsIndex(cast(Elastic, node), outage_log or OutageLog(), "ev", "", START)


def test_a_number_is_used_again_until_its_write_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    node, stats = recorded()
    node.fails = [ConnectionTimeout("late"), ConnectionTimeout("late")]
    now = START
    for _ in range(4):
        now = after(now, 30, received=100, indexed=100)
        stats.write(now, STATE, within=30)
    run = node.written[0]["document"]["run"]
    assert [request["id"] for request in node.written] == [f"{run}-{n}" for n in (1, 1, 1, 2)]
    assert [request["version"] for request in node.written] == [1, 2, 3, 4]
    assert [request["document"]["received"] for request in node.written] == [100, 200, 300, 100]
    assert [request["document"]["interval_ms"] for request in node.written][2:] == [90_000, 30_000]
    assert caplog.text.count("part of the next document): no response in time") == 1, "told once"


def test_another_reason_is_told(caplog: pytest.LogCaptureFixture) -> None:
    node, stats = recorded()
    meta = cast(Any, SimpleNamespace(status=403))
    denied = AuthorizationException("no", meta, {"error": {"type": "security_exception", "reason": "x"}})
    node.fails = [ConnectionTimeout("late"), denied, denied]
    for _ in range(3):
        stats.write(LATER, STATE, within=30)
    assert caplog.text.count("no response in time") == 1
    assert caplog.text.count("403 security_exception: x") == 1


def test_known_trouble_is_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    outage_log = OutageLog()
    node, stats = recorded(outage_log)
    outage_log.failing("away")
    node.fails = [ConnectionTimeout("late")]
    stats.write(LATER, STATE, within=30)
    assert "next document" not in caplog.text


@pytest.mark.parametrize(("within", "timeout"), [(4, 2.0), (-1, 0.1)])
def test_a_write_has_two_requests_in_its_time(within: float, timeout: float) -> None:
    node, stats = recorded()
    stats.write(LATER, STATE, within)
    assert node.timeout == timeout


def test_a_cluster_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """A client as the worker has it, after the set-up."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = parse(["--es", es_node.url, "--index", fresh_index_prefix], {})
    elastic = Elastic(config, Secrets(()))
    Setup(config, committed()).run(elastic.client)
    return elastic


@pytest.fixture
def start(es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path) -> Any:
    def begin(*options: str) -> Worker:
        return Worker(
            *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix),
            *("--no-kibana", "--stats-interval", "1s", "--flush", "200ms", "--since", "0", *options),
            home=tmp_path,
        )

    return begin


def test_the_documents_of_a_run_add_up_to_its_summary(
    start: Callable[..., Worker], jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.run_at(1000)
    jetstream.faults.garbage(after=100)
    with start("--worker-name", "left") as worker:
        worker.wait_for("connected to")
        # There is a lag once an event is indexed, which takes its time on a machine under load.
        wait_until(
            lambda: (
                len(there := stats_documents(es, fresh_index_prefix)) >= 3
                and there[-1].get("lag_ms") is not None
            )
        )
        assert worker.stop() == 0
        counted = worker.counted()
    assert counted["dead-lettered"]
    found = assert_stats_add_up(es, fresh_index_prefix, counted)
    mapped = asset("stats")["mappings"]["properties"].keys()
    for one in found:
        assert one.keys() <= mapped, "an explicit field for each"
        assert (one["index"], one["worker"], one["version"]) == (fresh_index_prefix, "left", __version__)
        assert jetstream.url.endswith(one["host"])
    assert len({one["run"] for one in found}) == 1
    assert [one["connected"] for one in found][-2:] == [True, False]
    assert 0 < found[-2]["lag_ms"] < 60_000
    assert found[1]["interval_ms"] > 900


@pytest.mark.cluster_wide
def test_a_closed_index_delays_the_counts_and_loses_none(
    start: Callable[..., Worker], jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.run_at(500)
    with start() as worker:
        worker.wait_for("indexed [1-9]")
        es.indices.close(index=STATS_INDEX)
        try:
            worker.wait_for("cannot write statistics to skeetslurper-stats.* 400 index_closed_exception")
            lines = worker.log.count(" received ")
            wait_until(lambda: worker.log.count(" received ") >= lines + 3)
        finally:
            es.indices.open(index=STATS_INDEX, wait_for_active_shards=1)
        wait_until(lambda: len(stats_documents(es, fresh_index_prefix)) > 1)
        assert worker.stop() == 0
        counted = worker.counted()
    assert worker.log.count("index_closed_exception") == 1
    found = assert_stats_add_up(es, fresh_index_prefix, counted)
    assert max(one["interval_ms"] for one in found) > 2500


@pytest.mark.cluster_wide
def test_a_deleted_index_comes_back_with_its_mapping(
    elastic: Elastic, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    stats = StatsIndex(elastic, OutageLog(), fresh_index_prefix, "", START)
    es.indices.delete(index=STATS_INDEX)
    stats.write(LATER, STATE, within=30)
    assert [one["received"] for one in stats_documents(es, fresh_index_prefix)] == [90]
    mapping = es.indices.get_mapping(index=STATS_INDEX)[STATS_INDEX]["mappings"]
    assert mapping["dynamic"] == "false"
    assert is_managed(mapping["_meta"])
    assert mapping["properties"] == asset("stats")["mappings"]["properties"]


def test_a_write_whose_answer_was_lost_counts_once(
    elastic: Elastic,
    es: Elasticsearch,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[dict[str, Any]] = []
    original = Elasticsearch.index

    def answer_lost(self: Elasticsearch, **request: Any) -> Any:
        sent.append(request)
        answer = original(self, **request)
        if len(sent) == 1:
            raise ConnectionTimeout("late")
        return answer

    monkeypatch.setattr(Elasticsearch, "index", answer_lost)
    stats = StatsIndex(elastic, OutageLog(), fresh_index_prefix, "", START)
    stats.write(LATER, STATE, within=30)
    assert len(stats_documents(es, fresh_index_prefix)) == 1
    end = after(LATER, 30, received=10)
    stats.write(end, STATE, within=30)
    with pytest.raises(ConflictError):
        original(es, **sent[0])  # the first comes late
    stats.write(after(end, 30, received=1), STATE, within=30)
    assert [one["received"] for one in stats_documents(es, fresh_index_prefix)] == [100, 1]
