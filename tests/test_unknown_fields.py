"""Counts of collections and fields that no known lexicon contains."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.elastic.templates import DRIFT_INDEX
from slurp.elastic.unknown_fields import UnknownFields
from slurp.lexicons import committed
from tests.harness import InProcess, commit

UNKNOWN_FIELD = commit(1, {"$type": "app.bsky.feed.post", "text": "x", "mood": {"is": "good"}})
UNKNOWN_COLLECTION = commit(2, {"x": 1}, "org.example.note")


def stored(es: Elasticsearch, index: str) -> dict[str, dict[str, Any]]:
    """Return the stored counts of an index prefix by collection and field."""
    es.indices.refresh(index=DRIFT_INDEX)
    hits = es.search(index=DRIFT_INDEX, query={"term": {"index": index}}, size=100)["hits"]["hits"]
    return {
        f"{hit['_source'].get('collection', '')} {hit['_source'].get('field', '')}".strip(): hit["_source"]
        for hit in hits
    }


def test_unknown_names_are_counted_stored_and_logged(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    indexer.feed([UNKNOWN_FIELD, UNKNOWN_COLLECTION, commit(3, {"text": "known"})])
    assert (
        indexer.unknown_fields.new_names()
        == "not in any known lexicon: app.bsky.feed.post mood, org.example.note"
    )
    assert indexer.unknown_fields.new_names() == ""
    indexer.unknown_fields.flush(es)
    found = stored(es, fresh_index_prefix)
    assert found.keys() == {"app.bsky.feed.post mood", "org.example.note"}
    field = found["app.bsky.feed.post mood"]
    assert (field["kind"], field["field"], field["count"]) == ("field", "mood", 1)
    assert field["example_uri"] == f"at://did:plc:{1:024}/app.bsky.feed.post/self"
    assert found["org.example.note"]["kind"] == "collection"


def count_unknown(unknown_fields: UnknownFields, frame: bytes) -> None:
    """Count the unknown names in an event, as an indexer does after it was stored."""
    seen = unknown_fields.find(orjson.loads(frame))
    assert seen is not None
    unknown_fields.count(seen)


def test_a_replay_counts_nothing_and_counts_survive_a_restart(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    indexer.feed([UNKNOWN_COLLECTION, UNKNOWN_COLLECTION])
    indexer.feed([UNKNOWN_COLLECTION])
    indexer.unknown_fields.flush(es)
    assert stored(es, fresh_index_prefix)["org.example.note"]["count"] == 1
    later = datetime.now(UTC) + timedelta(days=1)
    restarted = UnknownFields(committed(), fresh_index_prefix, clock=lambda: later)
    for number in range(3):
        count_unknown(restarted, commit(number + 10, {}, "org.example.note"))
    restarted.flush(es)
    restarted.flush(es)
    found = stored(es, fresh_index_prefix)["org.example.note"]
    assert found["count"] == 4
    assert found["first_seen"] < found["last_seen"] == later.isoformat(timespec="milliseconds")


def test_the_number_of_names_is_limited_and_no_count_is_lost(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    unknown_fields = UnknownFields(committed(), fresh_index_prefix, max_names=5)
    for number in range(50):
        count_unknown(unknown_fields, commit(number, {}, f"org.example.n{number}"))
    assert unknown_fields.new_names().endswith("org.example.n4 and 2 more")
    unknown_fields.flush(es)
    found = stored(es, fresh_index_prefix)
    assert len(found) == 6
    assert found[""]["kind"] == "others"
    assert sum(document["count"] for document in found.values()) == 50


def test_long_names_are_cut() -> None:
    unknown_fields = UnknownFields(committed(), "any")
    count_unknown(unknown_fields, commit(1, {}, f"org.example.{'n' * 1_000_000}", "r" * 1_000_000))
    assert len(unknown_fields.new_names()) < 1000
    assert sum(len(count.example_uri) for count in unknown_fields._counts.values()) < 5000


@pytest.mark.cluster_wide
def test_counts_that_cannot_be_written_are_kept(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    count_unknown(indexer.unknown_fields, UNKNOWN_COLLECTION)
    es.indices.put_settings(index=DRIFT_INDEX, settings={"index.blocks.write": True})
    try:
        indexer.unknown_fields.flush(es)
    finally:
        es.indices.put_settings(index=DRIFT_INDEX, settings={"index.blocks.write": None})
    assert not stored(es, fresh_index_prefix)
    indexer.unknown_fields.flush(es)
    assert stored(es, fresh_index_prefix)["org.example.note"]["count"] == 1
