"""Trouble of the cluster is waited for and puts nothing into quarantine; odd records lose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurp.documents.identity import event_id
from slurp.lexicons.mapping import count_fields
from slurp.tally import Snapshot
from tests.harness import InProcess, commit
from tests.worker import documents


def assert_all_indexed(es: Elasticsearch, index: str, counted: Snapshot, frames: list[bytes]) -> None:
    assert counted.adds_up
    assert (counted.quarantined, counted.dead_lettered) == (0, 0)
    assert counted.indexed + counted.duplicates == counted.received
    found = documents(es, index)
    assert found.keys() >= {event_id(orjson.loads(frame)) for frame in frames}
    assert not [source for source in found.values() if "quarantine" in source]


def test_a_closed_index_is_waited_for(es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    es.indices.close(index=indexer.today)
    counted = indexer.feed_through_trouble(frames[1:], lambda: es.indices.open(index=indexer.today))
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


@pytest.mark.parametrize("block", ["write", "read_only_allow_delete", "read_only"])
def test_a_block_is_waited_for(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str, block: str
) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    name = f"index.blocks.{block}"
    es.indices.put_settings(index=indexer.today, settings={name: True})
    counted = indexer.feed_through_trouble(
        frames[1:], lambda: es.indices.put_settings(index=indexer.today, settings={name: None})
    )
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


def test_a_missing_pipeline_is_waited_for(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    name = "index.default_pipeline"
    es.indices.put_settings(index=indexer.today, settings={name: "nowhere"})
    counted = indexer.feed_through_trouble(
        frames[1:], lambda: es.indices.put_settings(index=indexer.today, settings={name: "_none"})
    )
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


@pytest.fixture
def no_more_shards(es: Elasticsearch) -> Iterator[None]:
    es.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
    yield
    es.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})


def test_the_shard_limit_is_waited_for(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str, no_more_shards: None
) -> None:
    frames = indexer.posts()
    counted = indexer.feed_through_trouble(
        frames, lambda: es.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
    )
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


def test_many_refused_documents_are_one_line(
    es: Elasticsearch, indexer: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    mappings = {"dynamic": False, "_meta": {"skeetslurper": {}}, "properties": {"text": {"type": "long"}}}
    es.indices.create(index=indexer.today, mappings=mappings)
    assert indexer.feed(indexer.posts(20)).quarantined == 20
    told = [record.getMessage() for record in caplog.records if "quarantine" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("20 event(s) to quarantine, the last: 400 document_parsing_exception: ")


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"text": value}
    return value


# JSON as strangers write it: odd keys, deep nesting, wrong types where our lexicons have fields.
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
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    records=st.lists(
        st.tuples(COLLECTIONS, st.dictionaries(KEYS, VALUES, max_size=6) | DEEP), min_size=1, max_size=40
    )
)
def test_no_record_is_lost_or_grows_the_mapping(
    es: Elasticsearch, indexer: InProcess, records: list[tuple[str, Any]]
) -> None:
    base = indexer.tally.snapshot().received
    frames = [
        commit(base + number, record, collection, at=indexer.began)
        for number, (collection, record) in enumerate(records)
    ]
    before = indexer.tally.snapshot()
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
