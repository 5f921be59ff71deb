"""Classification of bulk results, which were recorded from a real Elasticsearch."""

from __future__ import annotations

import pytest

from slurp.elastic.error_classes import Item, ItemClass, classify


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Item(201), ItemClass.INDEXED),
        (Item(200, result="updated"), ItemClass.INDEXED),
        (Item(200, result="noop"), ItemClass.DROPPED),
        (Item(409, "version_conflict_engine_exception", "document already exists"), ItemClass.DUPLICATE),
        (
            Item(400, "document_parsing_exception", "[1:10] failed to parse field [did]"),
            ItemClass.DOCUMENT_ERROR,
        ),
        (Item(400, "mapper_parsing_exception", "failed to parse"), ItemClass.DOCUMENT_ERROR),
        (Item(400, "strict_dynamic_mapping_exception", "mapping set to strict"), ItemClass.DOCUMENT_ERROR),
        (
            Item(
                400,
                "illegal_argument_exception",
                'Document contains at least one immense term in field="uri"',
            ),
            ItemClass.DOCUMENT_ERROR,
        ),
        (
            Item(400, "illegal_argument_exception", "pipeline with id [x] does not exist"),
            ItemClass.CLUSTER_ERROR,
        ),
        (
            Item(
                400, "validation_exception", "this cluster currently has [9]/[9] maximum normal shards open"
            ),
            ItemClass.CLUSTER_ERROR,
        ),
        (Item(400, "index_closed_exception", "closed"), ItemClass.CLUSTER_ERROR),
        (Item(404, "index_not_found_exception", "no such index"), ItemClass.CLUSTER_ERROR),
        (Item(429, "cluster_block_exception", "flood stage disk watermark"), ItemClass.CLUSTER_ERROR),
        (Item(403, "cluster_block_exception", "index write (api)"), ItemClass.CLUSTER_ERROR),
        (Item(429, "es_rejected_execution_exception", "queue capacity"), ItemClass.CLUSTER_ERROR),
        (Item(503, "unavailable_shards_exception", "primary shard is not active"), ItemClass.CLUSTER_ERROR),
        (Item(503, "never_heard_of_exception", ""), ItemClass.UNKNOWN_ERROR),
        (Item(500, "never_heard_of_exception", "", is_whole_request=True), ItemClass.CLUSTER_ERROR),
        (Item(400, "document_parsing_exception", "", is_whole_request=True), ItemClass.CLUSTER_ERROR),
        (Item(403, "security_exception", "", is_whole_request=True), ItemClass.ACCESS_DENIED),
        (Item(500, "fail_processor_exception", "user's pipeline"), ItemClass.UNKNOWN_ERROR),
        (Item(403, "security_exception", "action is unauthorized"), ItemClass.ACCESS_DENIED),
        (Item(401, "security_exception", "unable to authenticate"), ItemClass.ACCESS_DENIED),
        (Item(400, "illegal_argument_exception", "something new"), ItemClass.UNKNOWN_ERROR),
        (Item(500, "already_closed_exception", "relocating shard"), ItemClass.CLUSTER_ERROR),
    ],
)
def test_an_item_is_classified_by_its_error_type(item: Item, expected: ItemClass) -> None:
    assert classify(item) is expected
