"""Our own indices deleted while we run come back with the mapping that searches in them need."""

from __future__ import annotations

import pytest
from elasticsearch import Elasticsearch

from slurp.elastic.templates import DRIFT_INDEX, STATE_INDEX, asset
from slurp.events.position import Position
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.checkpoint import Checkpoint, Checkpoints
from tests.harness import InProcess, commit
from tests.test_drift import note


def assert_mapped_as_made(es: Elasticsearch, index: str, file: str) -> None:
    found = es.indices.get_mapping(index=index)[index]["mappings"]
    made = asset(file)["mappings"]
    assert found["dynamic"] == "false"
    assert found["properties"].keys() == made["properties"].keys()
    assert found["properties"]["index"] == made["properties"]["index"]


def test_the_state(es: Elasticsearch, indexer: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    def at(cursor: int) -> Checkpoint:
        return Checkpoint(Position("host", cursor, cursor), started=False, clean=False)

    def new_run() -> Checkpoints:
        return Checkpoints(indexer.elastic, Subscription.of(indexer.config))

    run = new_run()
    assert run.save(at(1))
    es.indices.delete(index=STATE_INDEX)
    assert run.save(at(2))
    assert f"index {STATE_INDEX} was deleted, created it again" in caplog.text
    assert_mapped_as_made(es, STATE_INDEX, "state")
    assert [found.position.cursor for found in new_run().load()] == [2]


def test_drift(es: Elasticsearch, indexer: InProcess) -> None:
    es.indices.delete(index=DRIFT_INDEX)
    note(indexer.unknown_fields, commit(1, {}, "org.example.note"))
    indexer.unknown_fields.flush(es)
    assert_mapped_as_made(es, DRIFT_INDEX, "drift")
    es.indices.refresh(index=DRIFT_INDEX)
    query = {"term": {"collection": "org.example.note"}}
    assert es.search(index=DRIFT_INDEX, query=query)["hits"]["total"]["value"] == 1
