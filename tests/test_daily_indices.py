"""Daily indices that are deleted, or created by other programs, while the worker is running."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from slurp.elastic import daily_indices
from slurp.elastic.templates import day_mappings
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Fatal
from slurp.lexicons import committed
from tests.harness import InProcess
from tests.test_elasticsearch_faults import assert_all_indexed
from tests.worker import count


def mapping_of(es: Elasticsearch, index: str) -> dict[str, Any]:
    return dict(es.indices.get_mapping(index=index)[index]["mappings"])


@pytest.fixture
def always_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the index before each batch, as if a minute had passed."""
    monkeypatch.setattr(daily_indices, "_CHECK_INTERVAL", 0.0)


def test_a_day_index_has_the_mappings_of_the_templates(es: Elasticsearch, indexer: InProcess) -> None:
    indexer.days.ensure(indexer.day)
    mapping = mapping_of(es, indexer.today)
    assert mapping["dynamic"] == "false"
    assert mapping["_meta"] == day_mappings(committed())["_meta"]


def test_no_index_is_created_while_only_templates_of_a_newer_version_exist(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    newer = {"skeetslurper": {"version": "99.0.0"}}
    es.cluster.put_component_template(name=f"{fresh_index_prefix}@settings", template={}, meta=newer)
    es.indices.delete_index_template(name=fresh_index_prefix)
    with pytest.raises(Fatal, match=r"of a newer version.*run that version with --setup-only, or delete"):
        indexer.feed(indexer.posts())
    assert not es.indices.exists(index=indexer.today)


def test_an_index_that_was_created_from_another_template_is_deleted(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    other = f"{fresh_index_prefix}z"
    es.indices.put_index_template(name=other, index_patterns=[f"{fresh_index_prefix}*"], priority=900)
    with pytest.raises(Fatal, match=f"template '{other}' has a higher priority"):
        indexer.feed(indexer.posts())
    assert not es.indices.exists(index=indexer.today)


def test_a_deleted_day_index_is_created_again(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    es.indices.delete(index=indexer.today)
    counted = indexer.feed(frames[1:])
    assert_all_indexed(es, fresh_index_prefix, counted, frames[1:])
    assert mapping_of(es, indexer.today)["_meta"] == day_mappings(committed())["_meta"]


def test_a_day_index_that_is_deleted_under_load_is_created_again_and_reported_once(
    es: Elasticsearch,
    indexer: InProcess,
    fresh_index_prefix: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The check follows from the rejection, not from the interval.
    monkeypatch.setattr(daily_indices, "_CHECK_INTERVAL", 3600.0)
    frames = indexer.posts(4000)
    batches = [frames[first : first + 50] for first in range(0, len(frames), 50)]
    with indexer.running(3):
        for batch in batches[:40]:
            indexer.put(batch)
        while not indexer.counters.snapshot().indexed:
            time.sleep(0.01)
        assert indexer.counters.snapshot().in_flight, "under load"
        es.indices.delete(index=indexer.today)
        for batch in batches[40:]:
            indexer.put(batch)
    counted = indexer.counters.snapshot()
    assert_all_indexed(es, fresh_index_prefix, counted, frames[2000:])
    assert count(es, fresh_index_prefix) < counted.indexed, "the first documents are lost"
    assert mapping_of(es, indexer.today)["_meta"] == day_mappings(committed())["_meta"]
    assert_reported_once(indexer, caplog)


@pytest.mark.usefixtures("always_check")
def test_a_day_index_that_another_worker_created_again_is_reported(
    es: Elasticsearch, indexer: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    frames = indexer.posts(3)
    indexer.feed(frames[:1])
    es.indices.delete(index=indexer.today)
    es.indices.create(index=indexer.today)
    for frame in frames[1:]:
        indexer.feed([frame])
    assert_reported_once(indexer, caplog)


def test_an_alias_in_place_of_a_day_index_is_accepted(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    es.indices.create(index=f"{fresh_index_prefix}-shrunk", aliases={indexer.today: {}})
    assert indexer.feed(indexer.posts(1)).indexed == 1


def assert_reported_once(indexer: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    messages = [record.getMessage() for record in caplog.records if "was deleted" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith(
        f"index {indexer.today} was deleted while the worker was running: its documents are lost, "
    )
    begin = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(indexer.began))
    assert messages[0].endswith(f"--worker-name fill --replay-from {begin}")


def test_a_bulk_request_creates_no_index(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    response = es.bulk(index=f"{fresh_index_prefix}-2020.01.01", operations=[{"create": {}}, {"any": 1}])
    assert response["items"][0]["create"]["error"]["type"] == "index_not_found_exception"


def test_deletion_of_template_and_day_index_is_detected_within_a_minute(
    es: Elasticsearch,
    indexer: InProcess,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    es.indices.delete_index_template(name=fresh_index_prefix)
    es.indices.delete(index=indexer.today)
    indexer.feed(frames[1:10])
    monkeypatch.setattr(daily_indices, "_CHECK_INTERVAL", 0.0)
    with pytest.raises(Fatal, match=f"index {indexer.today} exists and .* not from its index template"):
        indexer.feed(frames[10:])


@pytest.mark.cluster_wide
def test_the_documented_setting_prevents_creation_of_the_index_without_template(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    es.cluster.put_settings(persistent={"action.auto_create_index": f"-{fresh_index_prefix}-*,+*"})
    try:
        es.indices.delete_index_template(name=fresh_index_prefix)
        es.indices.delete(index=indexer.today)
        counted = indexer.feed(frames[1:])
    finally:
        es.cluster.put_settings(persistent={"action.auto_create_index": None})
    assert_all_indexed(es, fresh_index_prefix, counted, frames[1:])
    assert mapping_of(es, indexer.today)["_meta"] == day_mappings(committed())["_meta"]


@pytest.mark.usefixtures("always_check")
def test_a_deleted_template_is_restored(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    indexer.feed(indexer.posts(1))
    es.indices.delete_index_template(name=fresh_index_prefix)
    indexer.feed(indexer.posts(2))
    assert es.indices.exists_index_template(name=fresh_index_prefix)


@pytest.mark.usefixtures("always_check")
def test_indexing_into_an_existing_day_continues_without_template_and_setup(
    es: Elasticsearch,
    es_node: EmbeddedNode,
    indexer: InProcess,
    fresh_index_prefix: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    indexer.days.ensure(indexer.day)
    es.indices.delete_index_template(name=fresh_index_prefix)
    without_setup = InProcess(es_node.url, fresh_index_prefix, tmp_path, "--no-setup", setup=False)
    assert without_setup.feed(without_setup.posts()).indexed == 20
    assert "cannot create new daily indices: index template" in caplog.text
    with pytest.raises(Fatal, match="an administrator has to run --setup-only"):
        without_setup.days.ensure(without_setup.day + 1)


@pytest.mark.usefixtures("always_check")
def test_a_repeated_check_by_another_thread_does_not_block(indexer: InProcess) -> None:
    indexer.days.ensure(indexer.day)
    with indexer.days._lock:
        indexer.days.ensure(indexer.day)
