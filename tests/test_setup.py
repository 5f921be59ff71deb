"""The setup on a real node: first and repeated runs, upgrades, and resources that are not changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.config import Config, parse
from slurp.elastic import templates
from slurp.elastic.setup import Setup, create_index, load_lexicons
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Exit, Fatal
from slurp.lexicons import committed
from slurp.lexicons.mapping import count_fields
from tests.worker import Worker

Prepare = Callable[..., Setup]


@pytest.fixture(autouse=True)
def _no_config_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def prepare(es: Elasticsearch, fresh_index_prefix: str) -> Prepare:
    """Return a function that runs the setup for the index of the test, as at a start with these options."""

    def run(*options: str) -> Setup:
        config = options_for(fresh_index_prefix, *options)
        setup = Setup(config, load_lexicons(config))
        setup.run(es)
        return setup

    return run


@pytest.fixture
def today(fresh_index_prefix: str) -> str:
    """The daily index of the current day, which may have changed since the import of this module."""
    return time.strftime(f"{fresh_index_prefix}-%Y.%m.%d", time.gmtime())


def options_for(index: str, *options: str) -> Config:
    return parse(["--index", index, *options], {})


def write_lexicon(folder: Path, **properties: str) -> None:
    folder.mkdir(exist_ok=True)
    record = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
    }
    body = {
        "lexicon": 1,
        "id": "org.example.note",
        "defs": {"main": {"type": "record", "key": "tid", "record": record}},
    }
    (folder / "note.json").write_text(json.dumps(body))


def test_a_day_index_is_composed_of_all_templates(
    es: Elasticsearch, fresh_index_prefix: str, today: str, prepare: Prepare
) -> None:
    es.cluster.put_component_template(
        name=f"{fresh_index_prefix}@custom",
        template={"mappings": {"properties": {"custom": {"type": "keyword"}}}},
    )
    prepare("--shards", "2", "--replicas", "0", "--refresh", "7s", "--codec", "default")
    es.indices.create(index=today)
    created = es.indices.get(index=today)[today]
    index = created["settings"]["index"]
    assert (index["number_of_shards"], index["number_of_replicas"]) == ("2", "0")
    assert (index["refresh_interval"], index["codec"]) == ("7000ms", "default")
    assert index["translog"]["durability"] == "request"
    mapping = created["mappings"]
    assert mapping["dynamic"] == "false"
    assert mapping["_meta"]["skeetslurper"]["version"]
    assert mapping["properties"]["custom"] == {"type": "keyword"}
    post = mapping["properties"]["record"]["properties"]["app"]["properties"]["bsky"]["properties"]
    embed = post["feed"]["properties"]["post"]["properties"]["embed"]["properties"]
    assert embed["presentation"]["type"] == "keyword"
    assert count_fields(mapping["properties"]) < 1000


def test_a_second_start_puts_only_what_has_changed(
    es: Elasticsearch, fresh_index_prefix: str, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare()
    put: list[str] = []
    original = type(es.cluster).put_component_template

    def record(self: object, *, name: str, **body: object) -> object:
        put.append(name)
        return original(self, name=name, **body)  # type: ignore[arg-type]

    monkeypatch.setattr(type(es.cluster), "put_component_template", record)
    prepare()
    assert put == []
    prepare("--shards", "3")
    assert put == [f"{fresh_index_prefix}@settings"]


def test_templates_of_a_newer_version_are_not_changed(
    es: Elasticsearch,
    fresh_index_prefix: str,
    prepare: Prepare,
    caplog: pytest.LogCaptureFixture,
) -> None:
    newer = {"skeetslurper": {"version": "99.0.0"}}
    es.cluster.put_component_template(name=f"{fresh_index_prefix}@settings", template={}, meta=newer)
    prepare()
    assert "newer version" in caplog.text
    assert templates.index_template_meta(es, fresh_index_prefix) is None


def test_templates_of_an_older_version_are_replaced(
    es: Elasticsearch, fresh_index_prefix: str, prepare: Prepare
) -> None:
    older = {"skeetslurper": {"version": "0.0.1"}}
    es.indices.put_index_template(
        name=fresh_index_prefix, index_patterns=[f"{fresh_index_prefix}-*"], priority=300, meta=older
    )
    prepare()
    meta = templates.index_template_meta(es, fresh_index_prefix)
    assert templates.managed_version(meta) > (0, 0, 1)


def test_a_template_of_the_user_is_rejected(
    es: Elasticsearch, fresh_index_prefix: str, prepare: Prepare
) -> None:
    es.indices.put_index_template(
        name=fresh_index_prefix, index_patterns=[f"{fresh_index_prefix}-*"], priority=1
    )
    with pytest.raises(Fatal, match="was not created by this program") as stopped:
        prepare()
    assert stopped.value.code is Exit.USAGE


def test_a_new_field_of_a_lexicon_is_searchable_and_existing_documents_are_kept(
    es: Elasticsearch, fresh_index_prefix: str, today: str, prepare: Prepare, tmp_path: Path
) -> None:
    folder = tmp_path / "lexicons"
    write_lexicon(folder, title="string")
    prepare("--lexicons", str(folder))
    foreign = f"{fresh_index_prefix}-2020.01.01"
    es.indices.create(index=today)
    es.index(index=today, id="old", document={"record": {"org.example.note": {"stars": 4}}})
    long_ago = f"{fresh_index_prefix}-2020.01.02"
    es.indices.create(index=long_ago)
    es.indices.create(index=foreign, mappings={"_meta": {}})

    write_lexicon(folder, title="string", stars="integer")
    prepare("--lexicons", str(folder))
    es.index(index=today, id="new", document={"record": {"org.example.note": {"stars": 5}}}, refresh=True)
    hits = es.search(index=today, query={"range": {"record.org.example.note.stars": {"gte": 1}}})["hits"]
    assert [hit["_id"] for hit in hits["hits"]] == ["new"]
    assert es.get(index=today, id="old")["_source"]["record"]["org.example.note"]["stars"] == 4
    for untouched in (long_ago, foreign):
        fields = es.indices.get_field_mapping(index=untouched, fields="record.org.example.note.stars")
        assert not fields[untouched]["mappings"], "older than the updated days"


def test_fields_with_another_mapping_do_not_prevent_new_fields(
    es: Elasticsearch, fresh_index_prefix: str, today: str, prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    customized = {
        "did": {"type": "long"},
        "commit": {"properties": {"operation": {"type": "text"}}},
        "identity": {"type": "nested", "properties": {"handle": {"type": "text"}}},
        "account": {"type": "object", "enabled": False},
        "quote": {"type": "flattened"},
        "name": {"type": "text", "fields": {"custom": {"type": "text"}}},
    }
    assert create_index(es, today, mappings={"_meta": {"skeetslurper": {}}, "properties": customized})
    prepare()
    mapping = es.indices.get_mapping(index=today)[today]["mappings"]
    found = mapping["properties"]
    for name in ("did", "account", "quote"):
        assert found[name] == customized[name]
    assert found["commit"]["properties"]["operation"]["type"] == "text"
    assert found["commit"]["properties"]["collection"]["type"] == "keyword"
    assert found["identity"]["type"] == "nested"
    assert found["identity"]["properties"]["time"]["type"] == "date"
    assert found["name"]["fields"].keys() == {"custom", "keyword"}
    assert found["record"]["properties"]["app"]
    assert mapping["_meta"] == templates.day_mappings(committed())["_meta"]
    assert "cannot update the mappings" not in caplog.text


def test_a_day_index_that_rejects_new_fields_is_a_warning(
    es: Elasticsearch, fresh_index_prefix: str, today: str, prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    full = {"index.mapping.total_fields.limit": 5}
    assert create_index(es, today, mappings={"_meta": {"skeetslurper": {}}}, settings=full)
    prepare()
    assert f"cannot update the mappings of {today}" in caplog.text
    assert templates.index_template_meta(es, fresh_index_prefix)


def test_with_no_setup_missing_resources_are_reported(
    es: Elasticsearch, fresh_index_prefix: str, prepare: Prepare
) -> None:
    with pytest.raises(
        Fatal, match=f"no index template '{fresh_index_prefix}' created by this program.*--setup-only"
    ):
        prepare("--no-setup")
    prepare()
    prepare("--no-setup")


def test_invalid_lexicons_are_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "lexicons"
    write_lexicon(folder, **{f"field{number}": "integer" for number in range(900)})
    with pytest.raises(Fatal, match=r"90[0-9] fields from lexicons and") as stopped:
        load_lexicons(options_for("x", "--lexicons", str(folder)))
    assert stopped.value.code is Exit.USAGE
    record = {"type": "object", "properties": {}}
    body = {
        "lexicon": 1,
        "id": "app.bsky.feed.post",
        "defs": {"main": {"type": "record", "key": "tid", "record": record}},
    }
    (folder / "note.json").write_text(json.dumps(body))
    with pytest.raises(Fatal, match=r"already mapped: app\.bsky\.feed\.post"):
        load_lexicons(options_for("x", "--lexicons", str(folder)))


def test_the_built_in_lexicons_stay_below_the_field_limit() -> None:
    mapping = templates.day_mappings(committed())
    assert count_fields(mapping["properties"]) < 1000


def test_setup_only_needs_no_jetstream(
    es: Elasticsearch, es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path
) -> None:
    options = ("--es", es_node.url, "--index", fresh_index_prefix, "--jetstream", "ws://127.0.0.1:1")
    with Worker(*options, "--no-setup", "--no-kibana", home=tmp_path) as worker:
        assert worker.exit_code() == 2
        assert "an administrator has to run --setup-only once" in worker.log
    with Worker(*options, "--setup-only", home=tmp_path) as worker:
        assert worker.exit_code() == 0
        assert worker.lines[-1].endswith("Shutdown complete")
    assert templates.index_template_meta(es, fresh_index_prefix)
