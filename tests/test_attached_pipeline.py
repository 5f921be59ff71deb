"""The ingest pipeline, attached to and detached from daily indices of a real node.

The embedded node has no ingest processors; the tests use pipelines without processors.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.ingest_pipeline import PipelineAttachment
from slurp.elastic.setup import Setup
from slurp.elastic.templates import MANAGED_META
from slurp.events.times import day_of
from slurp.lexicons import committed

SETTING = "index.default_pipeline"


@pytest.fixture
def index(es: Elasticsearch, fresh_index_prefix: str) -> Iterator[str]:
    Setup(parse(["--index", fresh_index_prefix], {}), committed()).run(es)
    es.ingest.put_pipeline(id=fresh_index_prefix, processors=[], meta=MANAGED_META)
    yield fresh_index_prefix
    for name in es.indices.get(index=f"{fresh_index_prefix}-*"):
        es.indices.put_settings(index=name, settings={SETTING: None})
    for name in (fresh_index_prefix, f"{fresh_index_prefix}@custom"):
        es.options(ignore_status=404).ingest.delete_pipeline(id=name)


def pipelines(es: Elasticsearch, index: str) -> dict[str, str]:
    """Return the default pipelines by index, without indices that have none."""
    found = es.indices.get_settings(index=f"{index}-*", name=SETTING, flat_settings=True)
    return {name: body["settings"][SETTING] for name, body in found.items()}


def test_the_pipeline_is_attached_while_there_is_one_of_the_user(es: Elasticsearch, index: str) -> None:
    old, customized = (f"{index}-{day_of(day)}" for day in (20_000, 20_001))
    es.indices.create(index=old)
    es.indices.create(index=customized, settings={SETTING: "_none"})
    es.indices.create(index=f"{index}-other", mappings={"_meta": {}})
    attachment = PipelineAttachment(index)
    attachment.apply(es)
    assert pipelines(es, index) == {customized: "_none"}

    es.ingest.put_pipeline(id=f"{index}@custom", processors=[])
    attachment.apply(es)
    new = f"{index}-{day_of(20_003)}"
    es.indices.create(index=new)
    assert pipelines(es, index) == {old: index, customized: "_none", new: index}
    assert es.index(index=new, id="a", document={"kind": "commit"})["result"] == "created"

    es.ingest.delete_pipeline(id=f"{index}@custom")
    PipelineAttachment(index).apply(es)
    assert pipelines(es, index) == {customized: "_none"}
    later = f"{index}-{day_of(20_004)}"
    es.indices.create(index=later)
    assert later not in pipelines(es, index)


def test_an_index_that_rejects_the_change_does_not_prevent_it_for_others(
    es: Elasticsearch, index: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, blocked, last = (f"{index}-{day_of(day)}" for day in (20_000, 20_001, 20_002))
    for name in (first, blocked, last):
        es.indices.create(index=name)
    es.indices.put_settings(index=blocked, settings={"index.blocks.read_only": True})
    es.ingest.put_pipeline(id=f"{index}@custom", processors=[])
    attachment = PipelineAttachment(index)
    try:
        attachment.apply(es)
        attachment.apply(es)
    finally:
        es.indices.put_settings(index=blocked, settings={"index.blocks.read_only": None})
    assert pipelines(es, index) == {first: index, last: index}
    assert caplog.text.count(f"index {blocked} keeps its ingest pipeline: 403 cluster_block_exception") == 1


def test_a_default_pipeline_in_the_users_template_is_kept(es: Elasticsearch, index: str) -> None:
    es.cluster.put_component_template(name=f"{index}@custom", template={"settings": {SETTING: "_none"}})
    es.ingest.put_pipeline(id=f"{index}@custom", processors=[])
    before, after = f"{index}-{day_of(20_000)}", f"{index}-{day_of(20_001)}"
    es.indices.create(index=before)
    PipelineAttachment(index).apply(es)
    es.indices.create(index=after)
    assert pipelines(es, index) == {before: "_none", after: "_none"}
