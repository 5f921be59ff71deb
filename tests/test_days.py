"""Day indices that are missing, or were made behind our back, while the worker runs."""

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
def distrust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch comes a minute after the last one."""
    monkeypatch.setattr(daily_indices, "_TRUST", 0.0)


def test_a_day_has_what_the_templates_say(es: Elasticsearch, indexer: InProcess) -> None:
    indexer.days.ensure(indexer.day)
    mapping = mapping_of(es, indexer.today)
    assert mapping["dynamic"] == "false"
    assert mapping["_meta"] == day_mappings(committed())["_meta"]


def test_no_index_is_made_while_only_templates_of_a_newer_version_are_there(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    newer = {"skeetslurper": {"version": "99.0.0"}}
    es.cluster.put_component_template(name=f"{fresh_index_prefix}@settings", template={}, meta=newer)
    es.indices.delete_index_template(name=fresh_index_prefix)
    with pytest.raises(Fatal, match=r"of a newer version.*run that version with --setup-only, or delete"):
        indexer.feed(indexer.posts())
    assert not es.indices.exists(index=indexer.today)


def test_an_index_that_another_template_won_is_taken_back(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    winner = f"{fresh_index_prefix}z"
    es.indices.put_index_template(name=winner, index_patterns=[f"{fresh_index_prefix}*"], priority=900)
    with pytest.raises(Fatal, match=f"template '{winner}' has a higher priority"):
        indexer.feed(indexer.posts())
    assert not es.indices.exists(index=indexer.today)


def test_a_day_that_is_deleted_is_made_again(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    frames = indexer.posts()
    indexer.feed(frames[:1])
    es.indices.delete(index=indexer.today)
    counted = indexer.feed(frames[1:])
    assert_all_indexed(es, fresh_index_prefix, counted, frames[1:])
    assert mapping_of(es, indexer.today)["_meta"] == day_mappings(committed())["_meta"]


def test_a_day_that_is_deleted_under_load_begins_anew_and_is_told_once(
    es: Elasticsearch,
    indexer: InProcess,
    fresh_index_prefix: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The refusal makes it look again, not the minute that has passed.
    monkeypatch.setattr(daily_indices, "_TRUST", 3600.0)
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
    assert count(es, fresh_index_prefix) < counted.indexed, "what was there is gone"
    assert mapping_of(es, indexer.today)["_meta"] == day_mappings(committed())["_meta"]
    assert_told_once(indexer, caplog)


@pytest.mark.usefixtures("distrust")
def test_a_day_that_another_worker_made_again_is_told_too(
    es: Elasticsearch, indexer: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    frames = indexer.posts(3)
    indexer.feed(frames[:1])
    es.indices.delete(index=indexer.today)
    es.indices.create(index=indexer.today)
    for frame in frames[1:]:
        indexer.feed([frame])
    assert_told_once(indexer, caplog)


def test_an_alias_in_place_of_a_day_is_taken(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    es.indices.create(index=f"{fresh_index_prefix}-shrunk", aliases={indexer.today: {}})
    assert indexer.feed(indexer.posts(1)).indexed == 1


def assert_told_once(indexer: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    told = [record.getMessage() for record in caplog.records if "was deleted" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(f"index {indexer.today} was deleted while we ran: what it held is gone, ")
    begin = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(indexer.began))
    assert told[0].endswith(f"--worker-name fill --replay-from {begin}")


def test_a_bulk_makes_no_index(es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str) -> None:
    answer = es.bulk(index=f"{fresh_index_prefix}-2020.01.01", operations=[{"create": {}}, {"any": 1}])
    assert answer["items"][0]["create"]["error"]["type"] == "index_not_found_exception"


def test_template_and_day_deleted_at_once_are_noticed_within_a_minute(
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
    monkeypatch.setattr(daily_indices, "_TRUST", 0.0)
    with pytest.raises(Fatal, match=f"index {indexer.today} exists and .* without our template"):
        indexer.feed(frames[10:])


@pytest.mark.cluster_wide
def test_the_documented_setting_keeps_the_day_from_coming_back_without_template(
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


@pytest.mark.usefixtures("distrust")
def test_a_template_that_is_deleted_is_put_again(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    indexer.feed(indexer.posts(1))
    es.indices.delete_index_template(name=fresh_index_prefix)
    indexer.feed(indexer.posts(2))
    assert es.indices.exists_index_template(name=fresh_index_prefix)


@pytest.mark.usefixtures("distrust")
def test_today_goes_on_without_a_template_that_we_may_not_put(
    es: Elasticsearch,
    es_node: EmbeddedNode,
    indexer: InProcess,
    fresh_index_prefix: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    indexer.days.ensure(indexer.day)
    es.indices.delete_index_template(name=fresh_index_prefix)
    bound = InProcess(es_node.url, fresh_index_prefix, tmp_path, "--no-setup", setup=False)
    assert bound.feed(bound.posts()).indexed == 20
    assert "no new day can be made: index template" in caplog.text
    with pytest.raises(Fatal, match="an administrator has to run --setup-only"):
        bound.days.ensure(bound.day + 1)


@pytest.mark.usefixtures("distrust")
def test_nobody_waits_for_a_second_look(indexer: InProcess) -> None:
    indexer.days.ensure(indexer.day)
    with indexer.days._lock:
        indexer.days.ensure(indexer.day)
