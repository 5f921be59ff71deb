"""The fields on a real node: all documents are accepted, no field is added, example queries find them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch
from hypothesis import HealthCheck, given, settings

from slurp import lexicons
from slurp.documents.document import build, quarantined
from slurp.documents.example_queries import examples
from slurp.documents.fields import mapping
from slurp.elastic.error_classes import Item, ItemClass, classify
from slurp.events.frames import BadFrame, parse
from slurp.events.identity import event_id
from slurp.simulator.event_generator import EventGenerator
from slurp.simulator.options import NetworkOptions
from tests.test_hostile_records import ARRIVED, COLLECTIONS, JSON, commit

Event = dict[str, Any]


@pytest.fixture
def index(es: Elasticsearch, fresh_index_prefix: str) -> str:
    """Return an index with the mappings of both component templates."""
    both = mapping()
    both["properties"]["record"] = lexicons.committed().mapping["properties"]["record"]
    es.indices.create(index=fresh_index_prefix, mappings=both)
    return fresh_index_prefix


def send(es: Elasticsearch, index: str, frames: Iterable[bytes]) -> list[Item]:
    """Index the documents of `frames`; return the rejected ones."""
    rejected: list[Item] = []
    lines: list[Any] = []  # bytes, which the client accepts although its types do not allow them
    for frame in frames:
        document = build(parse(frame), "host", ARRIVED)
        lines += [orjson.dumps({"index": {"_id": document.id}}), document.body]
    for start in range(0, len(lines), 4000):
        answer = es.bulk(index=index, operations=lines[start : start + 4000])
        for item in answer["items"]:
            if error := item["index"].get("error"):
                rejected.append(Item(item["index"]["status"], error["type"], error["reason"]))
    es.indices.refresh(index=index)
    return rejected


def field_count(es: Elasticsearch, index: str) -> int:
    found = es.indices.get_mapping(index=index)[index]["mappings"]
    return lexicons.mapping.count_fields(found["properties"])


def ids(es: Elasticsearch, index: str, query: Mapping[str, Any]) -> set[str]:
    hits = es.search(index=index, size=10_000, source=False, **query)["hits"]["hits"]
    return {hit["_id"] for hit in hits}


def simulated(count: int) -> list[bytes]:
    network = EventGenerator(7, NetworkOptions(accounts=300))
    return [network.event(ARRIVED + number * 1000, number).frame for number in range(1, count + 1)]


def test_every_recorded_event_is_accepted(es: Elasticsearch, index: str, corpus: list[Path]) -> None:
    frames = [line for path in corpus for line in path.read_bytes().splitlines() if line.strip()]
    fields = field_count(es, index)
    assert send(es, index, frames) == []
    assert es.count(index=index)["count"] == len({event_id(parse(frame)) for frame in frames})
    assert field_count(es, index) == fields


def test_ten_thousand_invented_lexicons_add_no_field(es: Elasticsearch, index: str) -> None:
    fields = field_count(es, index)
    frames = [
        commit({f"field{n}x{number}": f"value {n} of {number}" for n in range(10)}, f"org.made{number}.thing")
        for number in range(10_000)
    ]
    assert send(es, index, frames) == []
    assert field_count(es, index) == fields
    one = {"query": {"term": {"other_record.field7x4711": "value 7 of 4711"}}}
    assert ids(es, index, one) == {event_id(parse(frames[4711]))}
    assert ids(es, index, {"query": {"term": {"other_record": "value 3 of 42"}}}) == {
        event_id(parse(frames[42]))
    }


NASTY: dict[str, Any] = {
    "an empty name": {"": 1, "facets": [{"": {"": 2}}]},
    "blank names": {" ": 1, "\t": {"\u00a0": 2}, "embed": {" \n": 1}},
    "dots": {".": 1, "..": 2, "a..b": 3, ".text": 4, "text.": 5, "text.x": 6, "subject.uri": {"x": 1}},
    "NUL": {"text": "a\0b", "a\0b": "c\0d", "tags": ["\0"], "langs": ["\0"]},
    "big numbers": {"text": 2**63, "a": 2**64 - 1, "b": 10**30, "c": -(2**63), "createdAt": 1e300},
    "no numbers": {"text": float("nan"), "a": [float("inf")]},
    "lone surrogates": {"text": "\ud800", "\udfff": "\ud83d"},
    "long words": {
        "tags": ["t" * 40_000],
        "text": "w" * 40_000,
        "other": "é" * 40_000,
        "n" * 40_000: "v" * 1024,
    },
    "long names of four bytes": {"😀" * 400: {"😀" * 399: {"😀" * 398: "€" * 1024}}},
    "percent": {"a%2Eb": 1, "a.b": 2},
}


@pytest.mark.parametrize("collection", ["app.bsky.feed.post", "app.bsky.feed.like", "com.example.other"])
@pytest.mark.parametrize("kind", NASTY)
def test_malformed_records_are_accepted(es: Elasticsearch, index: str, kind: str, collection: str) -> None:
    assert send(es, index, [commit(NASTY[kind], collection)]) == []


@pytest.mark.parametrize("levels", [17, 18, 19, 30, 250, 800])
@pytest.mark.parametrize("collection", ["app.bsky.feed.post", "com.example.other"])
def test_deep_records_are_accepted(es: Elasticsearch, index: str, levels: int, collection: str) -> None:
    # The longest path and value that are indexed: 28,800 and 3,072 bytes of the 32,766 of a term.
    record: Any = "€" * 1024
    for _ in range(levels):
        record = {"😀" * 400: record}
    assert send(es, index, [commit(record, collection)]) == []


@settings(
    max_examples=settings().max_examples * 2 // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(JSON, COLLECTIONS)
def test_a_rejected_record_can_be_quarantined(
    es: Elasticsearch, index: str, record: Any, collection: str
) -> None:
    """Only a record of the wrong shape is rejected, as an error of the document; its quarantined form is
    accepted.
    """
    fields = field_count(es, index)
    frame = commit(record, collection)
    try:
        event = parse(frame)
    except BadFrame:
        return
    for item in send(es, index, [frame]):
        assert classify(item) is ItemClass.DOCUMENT_ERROR, item
        assert collection in lexicons.committed().record_types, item
        kept = quarantined(event, frame, "host", ARRIVED, str(item))
        assert es.index(index=index, id=kept.id, document=json.loads(kept.body))["_id"] == kept.id
    assert field_count(es, index) == fields


def test_the_example_queries_find_the_expected_documents(
    es: Elasticsearch, index: str, corpus: list[Path]
) -> None:
    frames = [line for path in corpus for line in path.read_bytes().splitlines() if line.strip()]
    frames += simulated(6000)
    assert send(es, index, frames) == []
    # The last operation on an `_id` counts, as in the index.
    events = {event_id(event): event for event in map(parse, frames)}
    values = {
        "tag": most(events, lambda e: [tag.lower() for tag in raw_tags(e)]),
        "lang": most(events, lambda e: [tag.split("-")[0].lower() for tag in record_of(e).get("langs", [])]),
        "domain": "example.com",
        "post": most(events, lambda e: [record_of(e).get("reply", {}).get("parent", {}).get("uri")]),
        "person": most(events, lambda e: [record_of(e).get("subject")] if is_in(e, "graph.follow") else []),
    }
    values["domain"] = most(events, raw_domains)
    promised = conditions(values)
    # No single value suits all queries: likes refer to other posts, followers may follow no account.
    liked = most(events, lambda e: [record_of(e)["subject"]["uri"]] if is_like(e) else [])
    rooted = most(events, lambda e: [record_of(e).get("reply", {}).get("root", {}).get("uri")])
    follower = most(events, lambda e: [e["did"]] if is_in(e, "graph.follow") and record_of(e) else [])
    own = {
        "likes": {"post": liked},
        "thread": {"post": rooted},
        "following": {"person": follower},
    }
    for example in examples():
        parameters = values | own.get(example.name, {})
        (query,) = [one.query for one in examples(**parameters) if one.name == example.name]
        wanted = {doc_id for doc_id, event in events.items() if conditions(parameters)[example.name](event)}
        assert wanted, f"{example.name}: nothing to find"
        assert ids(es, index, query) == wanted, example.name
    assert promised.keys() == {example.name for example in examples()}


def conditions(parameters: Mapping[str, str]) -> dict[str, Callable[[Event], bool]]:
    """Return the results of the example queries, computed from the raw events."""
    post, person = parameters["post"], parameters["person"]
    return {
        "tag": lambda e: is_in(e, "feed.post") and parameters["tag"] in map(str.lower, raw_tags(e)),
        "language": lambda e: any(
            tag.lower().split("-")[0] == parameters["lang"] for tag in record_of(e).get("langs", [])
        ),
        "domain": lambda e: is_in(e, "feed.post") and parameters["domain"] in raw_domains(e),
        "replies": lambda e: record_of(e).get("reply", {}).get("parent", {}).get("uri") == post,
        "thread": lambda e: record_of(e).get("reply", {}).get("root", {}).get("uri") == post,
        "likes": lambda e: is_like(e) and record_of(e)["subject"]["uri"] == post,
        "followers": lambda e: is_in(e, "graph.follow") and record_of(e).get("subject") == person,
        "following": lambda e: (
            is_in(e, "graph.follow") and e["did"] == person and e["commit"]["operation"] == "create"
        ),
        "deletions": lambda e: is_in(e, "feed.post") and e["commit"]["operation"] == "delete",
        "takedowns": lambda e: e.get("account", {}).get("status") == "takendown",
    }


def record_of(event: Event) -> dict[str, Any]:
    return event.get("commit", {}).get("record") or {}


def is_in(event: Event, collection: str) -> bool:
    return bool(event.get("commit", {}).get("collection") == f"app.bsky.{collection}")


def is_like(event: Event) -> bool:
    return is_in(event, "feed.like") and bool(record_of(event))


def features(event: Event) -> list[dict[str, Any]]:
    return [feature for facet in record_of(event).get("facets", []) for feature in facet["features"]]


def raw_tags(event: Event) -> list[str]:
    record = record_of(event)
    own = record.get("tags", []) if is_in(event, "feed.post") else []
    return [feature["tag"] for feature in features(event) if "tag" in feature] + own


def raw_domains(event: Event) -> list[str]:
    """Return the last two labels: correct for top-level domains under which names are registered directly."""
    links = [feature["uri"] for feature in features(event) if "uri" in feature]
    if external := record_of(event).get("embed", {}).get("external"):
        links.append(external["uri"])
    hosts = [link.split("/")[2] for link in links if link.startswith("http")]
    return [".".join(host.split(".")[-2:]) for host in hosts if host.endswith((".com", ".net", ".org"))]


def most(events: Mapping[str, Event], values: Callable[[Event], Iterable[Any]]) -> str:
    """Return the most frequent value; the alphabetically first one of several."""
    counts: dict[str, int] = {}
    for event in events.values():
        for value in values(event):
            if isinstance(value, str):
                counts[value] = counts.get(value, 0) + 1
    return max(sorted(counts), key=lambda value: counts[value])
