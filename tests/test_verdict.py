"""Answers as a real Elasticsearch gave them."""

from __future__ import annotations

import pytest

from slurp.elastic.error_classes import Item, ItemClass, classify


@pytest.mark.parametrize(
    ("item", "verdict"),
    [
        (Item(201), ItemClass.INDEXED),
        (Item(200, result="updated"), ItemClass.INDEXED),
        (Item(200, result="noop"), ItemClass.DROPPED),
        (Item(409, "version_conflict_engine_exception", "document already exists"), ItemClass.DUPLICATE),
        (Item(400, "document_parsing_exception", "[1:10] failed to parse field [did]"), ItemClass.DOCUMENT),
        (Item(400, "mapper_parsing_exception", "failed to parse"), ItemClass.DOCUMENT),
        (Item(400, "strict_dynamic_mapping_exception", "mapping set to strict"), ItemClass.DOCUMENT),
        (
            Item(
                400,
                "illegal_argument_exception",
                'Document contains at least one immense term in field="uri"',
            ),
            ItemClass.DOCUMENT,
        ),
        (Item(400, "illegal_argument_exception", "pipeline with id [x] does not exist"), ItemClass.HOLD),
        (
            Item(
                400, "validation_exception", "this cluster currently has [9]/[9] maximum normal shards open"
            ),
            ItemClass.HOLD,
        ),
        (Item(400, "index_closed_exception", "closed"), ItemClass.HOLD),
        (Item(404, "index_not_found_exception", "no such index"), ItemClass.HOLD),
        (Item(429, "cluster_block_exception", "flood stage disk watermark"), ItemClass.HOLD),
        (Item(403, "cluster_block_exception", "index write (api)"), ItemClass.HOLD),
        (Item(429, "es_rejected_execution_exception", "queue capacity"), ItemClass.HOLD),
        (Item(503, "unavailable_shards_exception", "primary shard is not active"), ItemClass.HOLD),
        (Item(503, "never_heard_of_exception", ""), ItemClass.UNKNOWN),
        (Item(500, "never_heard_of_exception", "", whole=True), ItemClass.HOLD),
        (Item(400, "document_parsing_exception", "", whole=True), ItemClass.HOLD),
        (Item(403, "security_exception", "", whole=True), ItemClass.DENIED),
        (Item(500, "fail_processor_exception", "somebody's pipeline"), ItemClass.UNKNOWN),
        (Item(403, "security_exception", "action is unauthorized"), ItemClass.DENIED),
        (Item(401, "security_exception", "unable to authenticate"), ItemClass.DENIED),
        (Item(400, "illegal_argument_exception", "something new"), ItemClass.UNKNOWN),
        (Item(500, "already_closed_exception", "a shard on its way"), ItemClass.HOLD),
    ],
)
def test_the_type_decides(item: Item, verdict: ItemClass) -> None:
    assert classify(item) is verdict
