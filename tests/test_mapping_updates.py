"""Daily indices of version 0.1.0 get the mapping of `redacted` and `hidden` at the start, at any age."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from elasticsearch import Elasticsearch

from bench import version_0_1_0
from slurp.config import parse
from slurp.documents.existing import EXISTING
from slurp.elastic.privileges import worker
from slurp.elastic.setup import Setup
from slurp.embedded.node import EmbeddedNode
from slurp.lexicons import committed
from tests.file_realm import FileRealm

Json = dict[str, Any]
Start = Callable[..., None]

PASSWORD = "geheim-geheim"


@pytest.fixture(autouse=True)
def _no_config_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def start(es: Elasticsearch, fresh_index_prefix: str) -> Start:
    """Return a function that runs the setup for the index of the test, as at a start with these options."""

    def run(*options: str, client: Elasticsearch = es) -> None:
        Setup(parse(["--index", fresh_index_prefix, *options], {}), committed()).run(client)

    return run


@pytest.fixture
def days(es: Elasticsearch, fresh_index_prefix: str) -> list[str]:
    """Daily indices of version 0.1.0: of today, and one that is older than every retention."""
    names = [
        f"{fresh_index_prefix}-2020.01.02",
        time.strftime(f"{fresh_index_prefix}-%Y.%m.%d", time.gmtime()),
    ]
    for name in names:
        es.indices.create(index=name, **version_0_1_0.index_body())
    return names


def mapping_of(es: Elasticsearch, name: str) -> Json:
    found: Json = es.indices.get_mapping(index=name)[name]["mappings"]
    return found


def assert_searchable(es: Elasticsearch, name: str) -> None:
    es.index(index=name, id="hidden", document={"text": "word", "hidden": True})
    es.index(index=name, id="redacted", document={"redacted": {"at": "2026-01-02", "reason": "deleted"}})
    es.index(index=name, id="back", document={"text": "word", "hidden": None}, refresh=True)
    found = es.search(index=name, query=cast(Json, EXISTING))["hits"]["hits"]
    assert [hit["_id"] for hit in found] == ["back"]
    reason = {"term": {"redacted.reason": "deleted"}}
    assert es.count(index=name, query=reason)["count"] == 1


@pytest.mark.parametrize("retention", ["forever", "30d"])
def test_each_open_day_of_this_program_gets_the_fields_at_the_start(
    es: Elasticsearch, fresh_index_prefix: str, start: Start, days: list[str], retention: str
) -> None:
    foreign, closed = f"{fresh_index_prefix}-2020.01.03", f"{fresh_index_prefix}-2020.01.04"
    es.indices.create(index=foreign, mappings={"properties": {"did": {"type": "keyword"}}})
    es.indices.create(index=closed, **version_0_1_0.index_body())
    es.indices.close(index=closed)
    before = {name: mapping_of(es, name) for name in (*days, foreign)}
    start("--retention", retention)
    old = mapping_of(es, days[0])
    added = {
        name: field for name, field in old["properties"].items() if name not in before[days[0]]["properties"]
    }
    assert added == {
        "redacted": {
            "properties": {"at": {"type": "date"}, "reason": {"type": "keyword", "ignore_above": 64}}
        },
        "hidden": {"type": "boolean"},
    }
    assert {**old, "properties": before[days[0]]["properties"]} == before[days[0]], "nothing else is changed"
    assert mapping_of(es, foreign) == before[foreign]
    for name in days:
        assert_searchable(es, name)
    es.indices.open(index=closed)
    assert "hidden" not in mapping_of(es, closed)["properties"]


def test_a_second_start_changes_nothing(
    start: Start, days: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "slurp.elastic.mapping_updates"):
        start()
        assert f"added 'redacted' and 'hidden' to the mappings of {days[0]}" in caplog.text
        caplog.clear()
        start()
    # Only these: another test may have left the other loggers at INFO.
    assert not [one for one in caplog.records if one.name == "slurp.elastic.mapping_updates"]


@pytest.fixture
def incomplete(
    es: Elasticsearch, fresh_index_prefix: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Five old days without the fields, in a cluster that is set up: what a failed update leaves."""
    names = [f"{fresh_index_prefix}-2020.01.0{day}" for day in range(1, 6)]
    for name in names:
        es.indices.create(index=name, **version_0_1_0.index_body())
    with monkeypatch.context() as patch:
        patch.setattr("slurp.elastic.setup.add_deletion_fields", lambda *args, **options: None)
        start()
    return names


def lacking(names: list[str], reason: str) -> str:
    shown = f"{', '.join(names[:3])} and {len(names) - 3} more" if len(names) > 3 else ", ".join(names)
    return f"the mappings of {shown} lack 'redacted' and 'hidden' ({reason}"


def test_with_no_setup_the_days_are_named_and_not_changed(
    es: Elasticsearch, start: Start, incomplete: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    start("--no-setup")
    assert lacking(incomplete, "not added, because of --no-setup)") in caplog.text
    assert not any("hidden" in mapping_of(es, name)["properties"] for name in incomplete)


def test_a_day_that_rejects_the_fields_does_not_prevent_the_others(
    es: Elasticsearch, start: Start, incomplete: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    es.indices.put_settings(index=incomplete[1], settings={"index.mapping.total_fields.limit": 5})
    es.indices.put_settings(index=incomplete[2], settings={"index.blocks.read_only": True})
    try:
        start()
        assert lacking([incomplete[1]], "400 illegal_argument_exception: ") in caplog.text
        assert lacking([incomplete[2]], "403 cluster_block_exception: ") in caplog.text
        assert ["hidden" in mapping_of(es, name)["properties"] for name in incomplete] == [
            *(True, False, False, True, True)
        ]
    finally:
        es.indices.put_settings(index=incomplete[2], settings={"index.blocks.read_only": None})


@pytest.mark.cluster_wide
def test_without_the_privilege_the_start_succeeds_with_a_warning(
    es_node: EmbeddedNode,
    es: Elasticsearch,
    fresh_index_prefix: str,
    start: Start,
    incomplete: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    realm = FileRealm(es_node)
    role = worker(fresh_index_prefix)
    first, *others = role["indices"]
    reading = {**first, "privileges": ["view_index_metadata", "read"]}
    realm.roles({"t_mapless": {**role, "indices": [reading, *others]}})
    realm.add("t_mapless", PASSWORD, "t_mapless")
    realm.wait_for_privilege("t_mapless", PASSWORD, f"{fresh_index_prefix}-x", "read")
    with realm.client("t_mapless", PASSWORD) as client:
        start(client=client)
    assert lacking(incomplete, "the index privilege 'manage' is missing)") in caplog.text
    assert not any("hidden" in mapping_of(es, name)["properties"] for name in incomplete)
