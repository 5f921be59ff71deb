"""Faults of the cluster delay events and quarantine none of them; unusual records are stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurp.documents.document import Document, build
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import Clocks
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.periodic_task import PeriodicTask
from slurp.embedded.node import EmbeddedNode
from slurp.events.identity import event_id
from slurp.lexicons.mapping import count_fields
from slurp.pipeline.progress import Snapshot
from tests.harness import InProcess, commit
from tests.proxy import Proxy
from tests.tiers import slow_except
from tests.worker import count, documents


def assert_all_indexed(es: Elasticsearch, index: str, counted: Snapshot, frames: list[bytes]) -> None:
    """Check that all frames are in the index, and none is quarantined or a dead letter."""
    assert counted.adds_up
    assert (counted.quarantined, counted.dead_lettered) == (0, 0)
    assert counted.indexed + counted.duplicates == counted.received
    found = documents(es, index)
    assert found.keys() >= {event_id(orjson.loads(frame)) for frame in frames}
    assert not [source for source in found.values() if "quarantine" in source]


def test_a_closed_index_delays_events(es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    es.indices.close(index=indexer.today)
    counted = indexer.feed_through_outage(frames[1:], lambda: es.indices.open(index=indexer.today))
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


@pytest.mark.parametrize(
    "block", slow_except(["write", "read_only_allow_delete", "read_only"], "read_only_allow_delete")
)
def test_an_index_block_delays_events(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str, block: str
) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    name = f"index.blocks.{block}"
    es.indices.put_settings(index=indexer.today, settings={name: True})
    counted = indexer.feed_through_outage(
        frames[1:], lambda: es.indices.put_settings(index=indexer.today, settings={name: None})
    )
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


def test_a_missing_ingest_pipeline_delays_events(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    # The embedded node has no processors, but accepts a pipeline without processors.
    pipeline, setting = f"{fresh_index_prefix}-pipeline", "index.default_pipeline"
    es.indices.put_settings(index=indexer.today, settings={setting: pipeline})
    counted = indexer.feed_through_outage(
        frames[1:], lambda: es.ingest.put_pipeline(id=pipeline, processors=[])
    )
    assert_all_indexed(es, fresh_index_prefix, counted, frames)
    es.indices.put_settings(index=indexer.today, settings={setting: "_none"})
    es.ingest.delete_pipeline(id=pipeline)


@pytest.fixture
def shard_limit_reached(es: Elasticsearch) -> Iterator[None]:
    es.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
    yield
    es.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})


@pytest.mark.cluster_wide
def test_the_shard_limit_delays_events(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str, shard_limit_reached: None
) -> None:
    frames = indexer.posts()
    counted = indexer.feed_through_outage(
        frames, lambda: es.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
    )
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


@pytest.mark.cluster_wide
def test_the_shard_limit_at_midnight_does_not_delay_events_of_yesterday(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    yesterday, today = indexer.posts(10, days_ago=1), indexer.posts(10, first=10)
    indexer.feed(yesterday[:1])
    es.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
    counts = []

    def raise_limit() -> None:
        counts.append(count(es, fresh_index_prefix))
        es.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})

    both = [frame for pair in zip(yesterday, today, strict=True) for frame in pair]
    counted = indexer.feed_through_outage(both, raise_limit)
    assert counts == [10], "all events of yesterday"
    assert_all_indexed(es, fresh_index_prefix, counted, both)
    assert counted.duplicates == 1, "acknowledged events are not sent again"


@pytest.mark.cluster_wide
def test_the_index_of_tomorrow_is_created_once_the_shard_limit_allows_it(
    es: Elasticsearch, indexer: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before_midnight = (indexer.day + 1) * 86_400 - 60
    days = DailyIndices(
        *(indexer.elastic, indexer.config.index, None),
        lambda client: None,
        Clocks(now=lambda: before_midnight),
    )
    own_log = OutageLog(
        failing_message="index of tomorrow missing: {}", recovered_message="index of tomorrow exists"
    )
    task = PeriodicTask(indexer.elastic, days.ensure_tomorrow, own_log, OutageLog())
    es.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
    try:
        task.run()
        assert "index of tomorrow missing: 400 validation_exception" in caplog.text
    finally:
        es.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
    task.run()
    assert "index of tomorrow exists" in caplog.text
    assert es.indices.exists(index=days.name(indexer.day + 1))


def create_without_primary(es: Elasticsearch, index: str) -> None:
    """Create an index that no node may hold: a write waits for its primary shard, then fails with 503."""
    settings = {"index.routing.allocation.require._name": "no-such-node"}
    es.indices.create(index=index, settings=settings, wait_for_active_shards=0)


def allocate_primary(es: Elasticsearch, index: str) -> None:
    es.indices.put_settings(index=index, settings={"index.routing.allocation.require._name": None})


def test_a_missing_primary_shard_delays_events(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurp.elastic.bulk.BULK_TIMEOUT", "100ms")
    create_without_primary(es, indexer.today)
    frames = indexer.posts()
    counted = indexer.feed_through_outage(frames, lambda: allocate_primary(es, indexer.today))
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


def test_each_item_of_a_bulk_response_is_handled_separately(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    def numbers(first: int, until: int) -> list[bytes]:
        return [commit(n, {"text": str(n)}, at=indexer.began) for n in range(first, until)]

    mappings = {"dynamic": False, "_meta": {"skeetslurper": {}}, "properties": {"text": {"type": "long"}}}
    es.indices.create(index=indexer.today, mappings=mappings)
    stored, new, rejected = numbers(0, 5), numbers(5, 15), indexer.posts(2, first=15)
    held = indexer.posts(10, first=20, days_ago=1)
    indexer.feed([*stored, *held[:1]])
    yesterday = indexer.days.name(indexer.day - 1)
    es.indices.close(index=yesterday)
    mixed = [frame for group in zip_longest(stored, held[1:], new, rejected) for frame in group if frame]
    counted = indexer.feed_through_outage(mixed, lambda: es.indices.open(index=yesterday))
    assert counted.adds_up
    assert (counted.indexed, counted.quarantined, counted.dead_lettered) == (6 + 9 + 10, 2, 0)
    assert counted.duplicates == 5, "only failed items are sent again"
    frames = [*stored, *held, *new, *rejected]
    assert documents(es, fresh_index_prefix).keys() == {event_id(orjson.loads(frame)) for frame in frames}


def test_an_item_that_fails_the_whole_request_is_isolated(
    es: Elasticsearch, indexer: InProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frames = indexer.posts(50)
    invalid_id = event_id(orjson.loads(frames[17]))

    def build_invalid(*arguments: Any) -> Document:
        document = build(*arguments)
        identity = document.identity._replace(id="x" * 513)
        return document._replace(identity=identity) if document.id == invalid_id else document

    monkeypatch.setattr("slurp.pipeline.indexer.build", build_invalid)
    counted = indexer.feed(frames)
    assert counted.adds_up
    assert (counted.indexed, counted.quarantined, counted.duplicates) == (49, 1, 0)
    assert "the last: 400 action_request_validation_exception: Validation Failed: 1: id" in caplog.text
    found = es.get(index=indexer.today, id=invalid_id)["_source"]
    assert orjson.loads(found["quarantine"]["raw"]) == orjson.loads(frames[17])


# Requests and responses that a proxy cuts off or delays


@pytest.fixture
def proxy(es_node: EmbeddedNode) -> Iterator[Proxy]:
    """Yield a proxy in front of the node."""
    with Proxy(es_node.port) as proxy:
        yield proxy


@pytest.fixture
def behind(
    proxy: Proxy, fresh_index_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """Return an `indexer` whose requests pass through the proxy."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return InProcess(f"http://127.0.0.1:{proxy.port}", fresh_index_prefix, tmp_path)


# A response that is cut off within its header can have a status of success and no body.
@pytest.mark.parametrize(
    "after",
    slow_except([0, 20, 60, 90, 250], 0, 60, 250),
    ids=["before", "in the status line", "in the header", "later in the header", "in the body"],
)
@pytest.mark.parametrize("reset", slow_except([True, False], True), ids=["reset", "closed"])
def test_a_truncated_response_causes_no_duplicates(
    es: Elasticsearch, behind: InProcess, proxy: Proxy, fresh_index_prefix: str, after: int, reset: bool
) -> None:
    frames = behind.posts()
    proxy.cut_answer(b"/_bulk", after, reset=reset)
    counted = behind.feed(frames)
    assert proxy.count(b"/_bulk") == 2
    assert counted.duplicates == len(frames), "Elasticsearch applied the first request"
    assert_all_indexed(es, fresh_index_prefix, counted, frames)
    assert count(es, fresh_index_prefix) == len(frames)


@pytest.mark.slow
def test_a_slow_response_is_awaited_without_a_retry(
    es: Elasticsearch, behind: InProcess, proxy: Proxy, fresh_index_prefix: str
) -> None:
    create_without_primary(es, behind.today)
    frames = behind.posts()
    behind.put(frames)
    with behind.running(1):
        # Longer than the default request timeout of the client, 10 s.
        time.sleep(11)
        assert (proxy.count(b"/_bulk"), behind.counters.snapshot().in_flight) == (1, len(frames))
        allocate_primary(es, behind.today)
    assert proxy.count(b"/_bulk") == 1
    assert behind.counters.snapshot().indexed == len(frames)


def test_missing_responses_are_retried_with_back_off(
    es: Elasticsearch, behind: InProcess, proxy: Proxy, fresh_index_prefix: str
) -> None:
    frames = behind.posts()
    behind.days.ensure(behind.day)
    behind.elastic._client = behind.elastic.client.options(request_timeout=0.3)
    proxy.hold_answers(b"/_bulk")
    began, durations = time.monotonic(), []

    def release() -> None:
        while proxy.count(b"/_bulk") < 5:
            time.sleep(0.02)
        durations.append(time.monotonic() - began)
        proxy.release_answers()

    counted = behind.feed_through_outage(frames, release)
    # Four timeouts, and the shortest delays of a back-off of 0.2, 0.4, 0.8 and 1.6 s.
    assert durations[0] > 4 * 0.3 + 0.1 + 0.2 + 0.4 + 0.8
    assert_all_indexed(es, fresh_index_prefix, counted, frames)
    assert count(es, fresh_index_prefix) == len(frames)


def test_many_rejected_documents_are_one_log_line(
    es: Elasticsearch, indexer: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    mappings = {"dynamic": False, "_meta": {"skeetslurper": {}}, "properties": {"text": {"type": "long"}}}
    es.indices.create(index=indexer.today, mappings=mappings)
    assert indexer.feed(indexer.posts(20)).quarantined == 20
    messages = [record.getMessage() for record in caplog.records if "quarantine" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("20 event(s) to quarantine, the last: 400 document_parsing_exception: ")


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"text": value}
    return value


# JSON as any account may write it: unusual keys, deep nesting, wrong types in fields of the lexicons.
NAMES = st.sampled_from(
    ["text", "langs", "createdAt", "tags", "facets", "reply", "embed", "$type", "", "a..b"]
)
KEYS = NAMES | st.text(max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.just("x" * 40_000)
    | st.just("a\x00b")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
DEEP = st.integers(1, 60).map(nested)
COLLECTIONS = st.sampled_from(
    [
        "app.bsky.feed.post",
        "app.bsky.feed.like",
        "app.bsky.graph.follow",
        "app.bsky.actor.profile",
        "x.y.note",
    ]
)


@settings(
    max_examples=settings().max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    records=st.lists(
        st.tuples(COLLECTIONS, st.dictionaries(KEYS, VALUES, max_size=6) | DEEP), min_size=1, max_size=40
    )
)
def test_any_record_is_stored_and_adds_no_field_to_the_mapping(
    es: Elasticsearch, indexer: InProcess, records: list[tuple[str, Any]]
) -> None:
    base = indexer.counters.snapshot().received
    frames = [
        commit(base + number, record, collection, at=indexer.began)
        for number, (collection, record) in enumerate(records)
    ]
    before = indexer.counters.snapshot()
    indexer.days.ensure(indexer.day)
    fields = field_count(es, indexer.today)
    counted = indexer.feed(frames)
    assert counted.adds_up
    assert counted.received - before.received == len(frames)
    assert (counted.in_flight, counted.dead_lettered, counted.duplicates) == (0, 0, 0)
    ids = [event_id(orjson.loads(frame)) for frame in frames]
    assert all(doc["found"] for doc in es.mget(index=indexer.today, ids=ids, source=False)["docs"])
    assert field_count(es, indexer.today) == fields


def field_count(es: Elasticsearch, index: str) -> int:
    return count_fields(es.indices.get_mapping(index=index)[index]["mappings"]["properties"])
