"""The indices for state and unknown fields are created again, with their mappings, if they are deleted."""

from __future__ import annotations

import pytest
from elasticsearch import Elasticsearch

from slurp.elastic.templates import DRIFT_INDEX, STATE_INDEX, asset
from slurp.events.position import Position
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.checkpoint import Checkpoint, Checkpoints
from tests.harness import InProcess, commit
from tests.test_unknown_fields import count_unknown


def assert_has_mappings_of_asset(es: Elasticsearch, index: str, file: str) -> None:
    found = es.indices.get_mapping(index=index)[index]["mappings"]
    expected = asset(file)["mappings"]
    assert found["dynamic"] == "false"
    assert found["properties"].keys() == expected["properties"].keys()
    assert found["properties"]["index"] == expected["properties"]["index"]


@pytest.mark.cluster_wide
def test_the_state_index_is_created_again(
    es: Elasticsearch, indexer: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    def at(cursor: int) -> Checkpoint:
        return Checkpoint(Position("host", cursor, cursor), is_start=False, clean=False)

    def start_run() -> Checkpoints:
        return Checkpoints(indexer.elastic, Subscription.of(indexer.config))

    run = start_run()
    assert run.save(at(1))
    es.indices.delete(index=STATE_INDEX)
    assert run.save(at(2))
    assert f"index {STATE_INDEX} was deleted, created it again" in caplog.text
    assert_has_mappings_of_asset(es, STATE_INDEX, "state")
    assert [found.position.cursor for found in start_run().load()] == [2]


@pytest.mark.cluster_wide
def test_the_index_of_unknown_fields_is_created_again(es: Elasticsearch, indexer: InProcess) -> None:
    es.indices.delete(index=DRIFT_INDEX)
    count_unknown(indexer.unknown_fields, commit(1, {}, "org.example.note"))
    indexer.unknown_fields.flush(es)
    assert_has_mappings_of_asset(es, DRIFT_INDEX, "drift")
    es.indices.refresh(index=DRIFT_INDEX)
    query = {"term": {"collection": "org.example.note"}}
    assert es.search(index=DRIFT_INDEX, query=query)["hits"]["total"]["value"] == 1
