"""Equal errors have equal reasons in quarantine, and no reason contains a user-written value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from hypothesis import given
from hypothesis import strategies as st

from slurp.documents.rejection import generic_reason
from slurp.elastic.bulk import create, request
from tests.harness import InProcess, commit, posts_with_integer
from tests.worker import documents

KIND = "document_parsing_exception: "
SAMPLES = [
    (
        f"{KIND}[1:7] failed to parse field [l] of type [long] in document with id '3kabc-_xYz'. Preview of "
        "field's value: 'post 17' (For input string: \"post 17\")",
        f"{KIND}failed to parse field [l] of type [long]: For input string",
    ),
    (
        f"400 {KIND}[1:13] failed to parse: illegal latitude value [2000.0] for g (illegal latitude value "
        "[2000.0] for g)",
        f"… {KIND}failed to parse: illegal latitude value […] for g",
    ),
    (
        f"{KIND}[1:8] object mapping for [o.p] tried to parse field [null] as object",
        f"{KIND}object mapping for [o.p] tried to parse field [null] as object",
    ),
    (
        "strict_dynamic_mapping_exception: [1:9] dynamic introduction of [new] within [_doc] is not allowed",
        "strict_dynamic_mapping_exception: dynamic introduction of […] within [_doc] is not allowed",
    ),
    (
        f"{KIND}[1:2] failed to parse: [1:10] Unrecognized token 'tru': was expecting\n at [Source: x]",
        f"{KIND}failed to parse: Unrecognized token …",
    ),
    (
        f"{KIND}[1:2] failed to parse: Number value length (2000) exceeds (1000, from `getMax()`)",
        f"{KIND}failed to parse: Number value length (…) exceeds (…, from …",
    ),
    ("refused by a bug", "refused by a bug"),
    ("", ""),
]


@pytest.mark.parametrize(("error", "expected"), SAMPLES)
def test_variable_parts_are_removed(error: str, expected: str) -> None:
    assert generic_reason(error) == expected


@given(st.text(max_size=200), st.integers(0, 10**9))
def test_a_reason_never_contains_the_value(value: str, number: int) -> None:
    """For any value the reason is one of a few."""
    error = (
        f"{KIND}[{number}:{number}] failed to parse field [a.b] of type [long] in document with id "
        f"'{number}-x'. Preview of field's value: '{value}' (For input string: \"{value}\")"
    )
    head = f"{KIND}failed to parse field [a.b] of type [long]: "
    assert generic_reason(error).startswith(head)
    if generic_reason(error) != f"{head}For input string":
        assert generic_reason(error).removeprefix(head) in value, "a cause contained in the value"


@given(st.text(max_size=2000))
def test_any_text_gives_a_short_reason(error: str) -> None:
    assert len(generic_reason(error)) <= 300


# Reasons of a real node

SECRET = "Zk7"
MAPPING = {
    "dynamic": False,
    "properties": {
        "date": {"type": "date"},
        "long": {"type": "long"},
        "int": {"type": "integer"},
        "byte": {"type": "byte"},
        "float": {"type": "float"},
        "bool": {"type": "boolean"},
        "key": {"type": "keyword"},
        "text": {"type": "text"},
        "ip": {"type": "ip"},
        "geo": {"type": "geo_point"},
        "nanos": {"type": "date_nanos"},
        "range": {"type": "integer_range"},
        "vector": {"type": "dense_vector", "dims": 3},
        "flat": {"type": "flattened", "depth_limit": 5},
        "inner": {"properties": {"x": {"type": "long"}}},
        "nested": {"type": "nested", "properties": {"x": {"type": "long"}}},
        "open": {"type": "object", "dynamic": True},
    },
}


def deep(levels: int, bottom: Any) -> Any:
    for _ in range(levels):
        bottom = {"a": bottom}
    return bottom


def rejected(n: int) -> list[Any]:
    """Return documents that have the same errors for each `n` and differ in everything else."""
    value = f"{SECRET} {n}"
    return [
        {"date": value},
        {"date": {"a": value}},
        {"date": 10**30 + n},
        {"long": value},
        {"long": 10**30 + n},
        {"long": {"x": value}},
        {"int": 3 * 10**9 + n},
        {"byte": 200 + n},
        {"float": f"1e40{n}"},
        {"bool": value},
        {"bool": 2 + n},
        {"key": {"x": value}},
        {"key": value * 8000},
        {"text": [{"x": value}]},
        {"ip": value},
        {"geo": [1000 + n, 2000 + n]},
        {"geo": {"lat": 1000 + n, "lon": 0}},
        {"nanos": f"190{n}-01-01"},
        {"range": {"gte": 9 + n, "lte": 1 + n}},
        {"range": value},
        {"vector": [1] * (4 + n)},
        {"flat": value},
        {"flat": deep(30 + n, value)},
        {"flat": {"x": value * 8000}},
        {"flat": {f"{value}\0": value}},
        {"inner": value},
        {"inner": [value]},
        {"inner": {"x": value}},
        {"nested": value},
        {f" {' ' * n}": value},
        {f"{SECRET}..{n}": value},
        {"open": {f"{SECRET}{n}x{number}": number for number in range(100)}},
        {"open": deep(40 + n, value)},
    ]


def test_equal_errors_have_equal_reasons_on_a_real_node(es: Elasticsearch, fresh_index_prefix: str) -> None:
    name = f"{fresh_index_prefix}-x"
    limits = {"mapping.total_fields.limit": 60, "mapping.depth.limit": 20}
    es.indices.create(index=name, mappings=MAPPING, settings={"index": limits})
    reasons: list[list[str]] = []
    for n in (1, 2):
        # Preceded by text of different length, so that the columns differ.
        bodies = [json.dumps({"any": "x" * n, **document}).encode() for document in rejected(n)]
        items = request(es, [create(name, f"{n}k-{SECRET}{i}", body) for i, body in enumerate(bodies)])
        assert [item for item in items if item.status != 400] == []
        reasons.append([generic_reason(f"{item.type}: {item.reason}") for item in items])
    assert reasons[0] == reasons[1]
    for reason in reasons[0]:
        assert reason.startswith(KIND)
        assert SECRET not in reason
        assert not any(character.isdigit() for character in reason)
    assert len(set(reasons[0])) > 20, "different errors are still distinguished"


def test_quarantine_aggregates_by_the_generic_reason_and_keeps_the_details(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str
) -> None:
    frames = [
        commit(number, {"odd": {"x": "y" * number}}, at=indexer.began, rkey=f"3k{number}")
        for number in range(1, 6)
    ]
    indexer.feed([commit(900, {"text": "creates the index"})])
    es.indices.put_mapping(index=indexer.today, properties=posts_with_integer("odd"))
    assert indexer.feed(frames).quarantined == 5
    found = [one for one in documents(es, fresh_index_prefix).values() if "quarantine" in one]
    counts = {"reasons": {"terms": {"field": "quarantine.error"}}}
    answer = es.search(index=f"{fresh_index_prefix}-*", aggregations=counts, size=0)
    (bucket,) = answer["aggregations"]["reasons"]["buckets"]
    assert bucket["doc_count"] == 5
    assert "failed to parse field [record.app.bsky.feed.post.odd] of type [" in bucket["key"]
    for source in found:
        assert "Preview of field's value" in source["quarantine"]["detail"]
        assert json.loads(source["quarantine"]["raw"])
    query = {"query_string": {"query": "quarantine.detail:*"}}
    assert es.count(index=f"{fresh_index_prefix}-*", query=query)["count"] == 0, "not searchable"
