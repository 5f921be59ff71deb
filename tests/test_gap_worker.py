"""Gaps of a worker: logged, recorded once, and filled from a server that has the events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import ConnectionTimeout, Elasticsearch

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.setup import Setup
from slurp.elastic.templates import asset
from slurp.embedded.node import EmbeddedNode
from slurp.events.position import Gap
from slurp.jetstream.subscription import Subscription
from slurp.lexicons import committed
from slurp.logs import Secrets
from slurp.pipeline.gaps import GapRecorder
from slurp.pipeline.progress import Counters
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import Clock, InProcess
from tests.worker import (
    StartWorker,
    Worker,
    assert_each_once,
    count,
    run_literally,
    starter,
    stats_documents,
)

GAP = Gap("one.example", 1_795_000_000_123_456, 1_795_003_600_000_000)


def gap_documents(es: Elasticsearch, index: str) -> list[dict[str, Any]]:
    es.indices.refresh(index="skeetslurper-state")
    query = {"bool": {"filter": [{"term": {"index": index}}, {"term": {"type": "gap"}}]}}
    return [
        dict(hit["_source"]) for hit in es.search(index="skeetslurper-state", query=query)["hits"]["hits"]
    ]


def summary(worker: Worker) -> str:
    """Return the log line with the totals of a run."""
    return next(line for line in worker.lines if "total, " in line)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def short_lookback(clock: Clock) -> Iterator[Simulator]:
    """A server that keeps the events of 15 minutes."""
    with Simulator(port=0, seed=1, clock=clock, server=ServerOptions(lookback=900)) as simulator:
        yield simulator


@pytest.fixture
def start(
    es_node: EmbeddedNode, short_lookback: Simulator, fresh_index_prefix: str, tmp_path: Path
) -> StartWorker:
    return starter(es_node.url, short_lookback.url, fresh_index_prefix, tmp_path)


def test_a_gap_is_reported_with_the_command_that_fills_it_from_another_server(
    start: StartWorker,
    short_lookback: Simulator,
    clock: Clock,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    clock.ago = 7200
    short_lookback.generate(1000, span=1)
    with start("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
        assert "gaps 0 " in summary(worker)
    clock.ago = 0
    short_lookback.generate(7000, span=7000)

    with Simulator(port=0, seed=1) as other:
        # The same events with other sequence numbers.
        events = [orjson.loads(frame) for frame in short_lookback.frames]
        other.publish({**event, "cursor": event["cursor"] + 100_000} for event in events)
        # A slow probe of the other server makes the worker read from the first one.
        other.faults.delay(0.5, times=3)
        servers = ("--jetstream", short_lookback.url, "--jetstream", other.url)
        with start("--catch-up", *servers) as worker:
            warning = worker.wait_for(r"WARNING +reader-1 +gap: \S+ has no events from .* \(1h4\d.*\)")[0]
            assert worker.exit_code() == 0
            counted = worker.counted()
        assert "gaps 1 " in summary(worker)
        assert counted["indexed"] < 1500
        assert sum(one["gaps"] for one in stats_documents(es, fresh_index_prefix)) == 1
        (document,) = gap_documents(es, fresh_index_prefix)
        assert short_lookback.url.endswith(document["host"])
        assert 6200 < document["seconds"] < 6400
        assert document["from"] < document["to"] < document["found_at"]
        assert count(es, fresh_index_prefix) < 2500

        line = next(line for line in worker.lines if warning in line)
        command = line.partition("run beside this worker: ")[2]
        assert command.endswith(f" --jetstream {other.url}")
        filled = run_literally(command, tmp_path)
        assert filled.returncode == 0, filled.stderr
        assert "gaps 0 " in filled.stderr
    assert_each_once(es, fresh_index_prefix, short_lookback.frames)


@pytest.mark.slow
def test_a_gap_that_is_found_again_after_a_kill_is_recorded_once(
    start: StartWorker,
    short_lookback: Simulator,
    clock: Clock,
    indexer: InProcess,
    es: Elasticsearch,
    fresh_index_prefix: str,
) -> None:
    clock.ago = 7200
    short_lookback.generate(1000, span=1)
    with start("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    clock.ago = 0
    short_lookback.generate(7000, span=7000)
    # The day may change before the worker indexes.
    for day in (indexer.day, indexer.day + 1):
        indexer.days.ensure(day)
    es.indices.put_settings(index=f"{fresh_index_prefix}-*", settings={"index.blocks.write": True})
    for _ in range(2):
        # Nothing is acknowledged, so the checkpoint stays before the gap.
        with start() as worker:
            worker.wait_for("gap: ")
            worker.wait_for("holding the events in flight")
            worker.wait_for("gaps 1")
            time.sleep(2)  # it is recorded with the checkpoint, each second
            worker.kill()
    es.indices.put_settings(index=f"{fresh_index_prefix}-*", settings={"index.blocks.write": False})
    assert len(gap_documents(es, fresh_index_prefix)) == 1


# The recorder


@pytest.fixture
def elastic(
    es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Elastic:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = parse(["--es", es_node.url, "--index", fresh_index_prefix], {})
    elastic = Elastic(config, Secrets(()))
    Setup(config, committed()).run(elastic.client)
    return elastic


def recorder_of(elastic: Elastic, index: str, counters: Counters | None = None, **more: Any) -> GapRecorder:
    servers = ["wss://one.example", "wss://two.example"]
    return GapRecorder(elastic, Subscription(index), servers, counters or Counters(), **more)


def test_every_field_of_a_gap_is_mapped(elastic: Elastic, es: Elasticsearch, fresh_index_prefix: str) -> None:
    recorder = recorder_of(elastic, fresh_index_prefix)
    recorder.report(1, GAP)
    recorder.write()
    (document,) = gap_documents(es, fresh_index_prefix)
    unmapped = {"dids"}  # their number, which no search uses
    assert document.keys() - unmapped <= asset("state")["mappings"]["properties"].keys()
    assert document["from"] == "2026-11-18T11:06:40.123+00:00"
    assert document["seconds"] == 3599.877


def test_gaps_that_start_at_the_same_time_are_recorded_separately(
    elastic: Elastic, es: Elasticsearch, fresh_index_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No event between them was acknowledged, so both start at the time of the same event."""
    recorder = recorder_of(elastic, fresh_index_prefix)
    for first in (1001, 5001):
        recorder.report(1, replace(GAP, from_cursor=first, to_cursor=first + 999))
    recorder.write()
    found = gap_documents(es, fresh_index_prefix)
    assert sorted((one["from_cursor"], one["to_cursor"]) for one in found) == [(1001, 2000), (5001, 6000)]
    assert "UTC (1h, cursors 5001 to 6000)" in caplog.text


def test_the_command_starts_at_the_full_second_before_the_gap(
    elastic: Elastic, fresh_index_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder_of(elastic, fresh_index_prefix).report(1, GAP)
    assert "--replay-from 2026-11-18T11:06:40Z --jetstream wss://two.example\n" in caplog.text


def test_a_failed_write_is_retried(
    elastic: Elastic, es: Elasticsearch, fresh_index_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recorder_of(elastic, fresh_index_prefix)
    recorder.report(1, GAP)
    recorder.report(1, GAP)

    def times_out(self: Elasticsearch, **_: object) -> None:
        raise ConnectionTimeout("late")

    with monkeypatch.context() as patched:
        patched.setattr(Elasticsearch, "index", times_out)
        with pytest.raises(ConnectionTimeout):
            recorder.write()
    recorder.write()
    assert len(gap_documents(es, fresh_index_prefix)) == 1
