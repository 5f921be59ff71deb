"""Answers as a real Elasticsearch gave them."""

from __future__ import annotations

import pytest

from slurp.elastic.verdict import Item, Verdict, judge


@pytest.mark.parametrize(
    ("item", "verdict"),
    [
        (Item(201), Verdict.INDEXED),
        (Item(200, result="updated"), Verdict.INDEXED),
        (Item(200, result="noop"), Verdict.DROPPED),
        (Item(409, "version_conflict_engine_exception", "document already exists"), Verdict.DUPLICATE),
        (Item(400, "document_parsing_exception", "[1:10] failed to parse field [did]"), Verdict.DOCUMENT),
        (Item(400, "mapper_parsing_exception", "failed to parse"), Verdict.DOCUMENT),
        (Item(400, "strict_dynamic_mapping_exception", "mapping set to strict"), Verdict.DOCUMENT),
        (
            Item(
                400,
                "illegal_argument_exception",
                'Document contains at least one immense term in field="uri"',
            ),
            Verdict.DOCUMENT,
        ),
        (Item(400, "illegal_argument_exception", "pipeline with id [x] does not exist"), Verdict.HOLD),
        (
            Item(
                400, "validation_exception", "this cluster currently has [9]/[9] maximum normal shards open"
            ),
            Verdict.HOLD,
        ),
        (Item(400, "index_closed_exception", "closed"), Verdict.HOLD),
        (Item(404, "index_not_found_exception", "no such index"), Verdict.HOLD),
        (Item(429, "cluster_block_exception", "flood stage disk watermark"), Verdict.HOLD),
        (Item(403, "cluster_block_exception", "index write (api)"), Verdict.HOLD),
        (Item(429, "es_rejected_execution_exception", "queue capacity"), Verdict.HOLD),
        (Item(503, "unavailable_shards_exception", "primary shard is not active"), Verdict.HOLD),
        (Item(503, "never_heard_of_exception", ""), Verdict.UNKNOWN),
        (Item(500, "never_heard_of_exception", "", whole=True), Verdict.HOLD),
        (Item(400, "document_parsing_exception", "", whole=True), Verdict.HOLD),
        (Item(403, "security_exception", "", whole=True), Verdict.DENIED),
        (Item(500, "fail_processor_exception", "somebody's pipeline"), Verdict.UNKNOWN),
        (Item(403, "security_exception", "action is unauthorized"), Verdict.DENIED),
        (Item(401, "security_exception", "unable to authenticate"), Verdict.DENIED),
        (Item(400, "illegal_argument_exception", "something new"), Verdict.UNKNOWN),
        (Item(500, "already_closed_exception", "a shard on its way"), Verdict.HOLD),
    ],
)
def test_the_type_decides(item: Item, verdict: Verdict) -> None:
    assert judge(item) is verdict
