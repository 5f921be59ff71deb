"""Queries for fields of version 0.1.0 find the same in the common fields that replace them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch, helpers

from bench import version_0_1_0
from slurp.documents.urls import page_url
from slurp.embedded.node import EmbeddedNode
from slurp.lexicons.overrides import COMMON_FIELDS
from tests.harness import InProcess, commit

Json = dict[str, Any]

DID = "did:plc:author"
POST = f"at://{DID}/app.bsky.feed.post/3l6oveex3ii2l"
REFERENCE = {"uri": POST, "cid": "bafyreiftot7eltsc3f6g4qktykmbv6jcmdmhcx5osscan6jpdxkpqcmcza"}
CREATED = {"createdAt": "2020-01-02T03:04:05.678Z"}
LABELS = {"labels": {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "nudity"}]}}
FACETS = [
    {"features": [{"$type": "app.bsky.richtext.facet#mention", "did": "did:plc:friend"}]},
    {"features": [{"$type": "app.bsky.richtext.facet#tag", "tag": "caturday"}]},
    {"features": [{"$type": "app.bsky.richtext.facet#link", "uri": "https://example.com/facet"}]},
]
LISTING = {**CREATED, **LABELS, "description": "a description", "descriptionFacets": FACETS}
CARD = {"uri": "https://example.com/card", "title": "the title", "description": "the description"}
LINK_CARD = {"$type": "app.bsky.embed.external", "external": CARD}
IMAGES = {"$type": "app.bsky.embed.images", "images": [{"alt": "alternative one"}]}
GALLERY = {"$type": "app.bsky.embed.gallery", "items": [{"alt": "alternative two"}]}
VIDEO = {"$type": "app.bsky.embed.video", "alt": "alternative three"}
MEDIA = (LINK_CARD, IMAGES, GALLERY, VIDEO)

RECORDS: dict[str, list[Json]] = {
    "app.bsky.actor.profile": [
        {**CREATED, **LABELS, "displayName": "Ada", "description": "who", "website": "https://example.com/me"}
    ],
    "app.bsky.actor.status": [{**CREATED, "status": "app.bsky.actor.status#live", "embed": LINK_CARD}],
    "app.bsky.feed.generator": [{**LISTING, "displayName": "Cats"}],
    "app.bsky.feed.like": [{**CREATED, "subject": REFERENCE, "via": REFERENCE}],
    "app.bsky.feed.post": [
        {
            **CREATED,
            **LABELS,
            "text": "words of a post",
            "langs": ["pt-BR"],
            "tags": ["dogday"],
            "facets": FACETS,
            "reply": {"root": REFERENCE, "parent": REFERENCE},
        },
        *({**CREATED, "embed": media} for media in MEDIA),
        *(
            {
                **CREATED,
                "embed": {
                    "$type": "app.bsky.embed.recordWithMedia",
                    "media": media,
                    "record": {"record": REFERENCE},
                },
            }
            for media in MEDIA
        ),
    ],
    "app.bsky.feed.postgate": [{**CREATED, "post": POST}],
    "app.bsky.feed.repost": [{**CREATED, "subject": REFERENCE, "via": REFERENCE}],
    "app.bsky.feed.threadgate": [{**CREATED, "post": POST}],
    "app.bsky.graph.block": [{**CREATED, "subject": DID}],
    "app.bsky.graph.follow": [{**CREATED, "subject": DID, "via": REFERENCE}],
    "app.bsky.graph.list": [{**LISTING, "name": "Friends"}],
    "app.bsky.graph.listblock": [{**CREATED, "subject": POST}],
    "app.bsky.graph.listitem": [{**CREATED, "subject": DID, "list": POST}],
    "app.bsky.graph.starterpack": [{**CREATED, "name": "Start", "description": "of it", "list": POST}],
    "app.bsky.graph.verification": [{**CREATED, "subject": DID, "displayName": "Bob", "handle": "b.example"}],
    "app.bsky.labeler.service": [CREATED],
    "site.standard.document": [
        {
            **LABELS,
            "publishedAt": CREATED["createdAt"],
            "title": "Essay",
            "description": "a summary",
            "textContent": "a long text",
            "tags": ["essays"],
        }
    ],
    "site.standard.graph.recommend": [{**CREATED, "document": POST}],
    "site.standard.graph.subscription": [{**CREATED, "publication": POST}],
    "site.standard.publication": [
        {**LABELS, "name": "Paper", "description": "news", "url": "https://example.com/paper"}
    ],
}
MOVED = [(nsid, path, field) for nsid, paths in COMMON_FIELDS.items() for path, field in paths.items()]


def values(record: Any, path: list[str]) -> Iterator[str]:
    if isinstance(record, list):
        for item in record:
            yield from values(item, path)
    elif path and isinstance(record, dict):
        yield from values(record.get(path[0]), path[1:])
    elif isinstance(record, str):
        yield record


@pytest.fixture
def frames() -> list[bytes]:
    return [
        commit(number, {"$type": nsid, **record}, nsid)
        for number, (nsid, record) in enumerate(
            (nsid, record) for nsid, records in RECORDS.items() for record in records
        )
    ]


def test_each_moved_field_is_found_in_its_common_field(
    es: Elasticsearch, indexer: InProcess, frames: list[bytes]
) -> None:
    old = f"{indexer.index}-of-0.1.0"
    es.indices.create(index=old, **version_0_1_0.index_body())
    now = int(time.time() * 1e6)
    documents = [version_0_1_0.document(frame, "host", now) for frame in frames]
    helpers.bulk(es, ({"_index": old, "_id": one.id, **orjson.loads(one.body)} for one in documents))
    assert indexer.feed(frames).indexed == len(frames)
    es.indices.refresh(index=f"{indexer.index}-*")
    new = indexer.today
    types = {index: _types(es, index) for index in (old, new)}

    def found(index: str, collection: str, field: str, value: str) -> set[str]:
        kind = types[index][field]
        query = {"match": {field: {"query": value, "operator": "and"}}}
        clauses = [
            {"term": {"commit.collection": collection}},
            query if kind == "text" else {"term": {field: value}},
        ]
        hits = es.search(index=index, query={"bool": {"filter": clauses}}, size=100)["hits"]["hits"]
        return {hit["_id"] for hit in hits}

    for nsid, path, common in MOVED:
        assert f"record.{nsid}.{path}" not in types[new]
        wanted = {value for record in RECORDS[nsid] for value in values(record, path.split("."))}
        assert wanted, (nsid, path)
        for value in wanted:
            before = found(old, nsid, f"record.{nsid}.{path}", value)
            assert before, (nsid, path, value)
            assert before <= found(new, nsid, common, value), (nsid, path, common)
            # One query for daily indices of both versions.
            assert before <= found(old, nsid, common, value), (nsid, path, common)


def test_an_upgrade_within_a_day_and_back_loses_nothing(
    es: Elasticsearch, es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path, frames: list[bytes]
) -> None:
    """The daily index of version 0.1.0 receives documents of the new version, then those of 0.1.0 again."""
    today = f"{fresh_index_prefix}-{time.strftime('%Y.%m.%d', time.gmtime())}"
    es.indices.create(index=today, **version_0_1_0.index_body())
    third = len(frames) // 3
    now = int(time.time() * 1e6)

    def index_as_0_1_0(some: list[bytes]) -> None:
        documents = [version_0_1_0.document(frame, "host", now) for frame in some]
        helpers.bulk(es, ({"_index": today, "_id": one.id, **orjson.loads(one.body)} for one in documents))

    index_as_0_1_0(frames[:third])
    upgraded = InProcess(es_node.url, fresh_index_prefix, tmp_path)
    # The events before the checkpoint are read again.
    counted = upgraded.feed(frames[: 2 * third])
    assert (counted.indexed, counted.duplicates, counted.quarantined) == (third, third, 0)
    mapping = es.indices.get_mapping(index=today)[today]["mappings"]["properties"]
    assert mapping["url"], "of 0.1.0"
    assert mapping["redacted"], "of this version"
    index_as_0_1_0(frames[2 * third :])
    es.indices.refresh(index=today)
    assert es.count(index=today)["count"] == len(frames)
    # Documents of 0.1.0 also fit into a daily index of this version.
    es.indices.create(index=f"{today}-new")
    documents = [version_0_1_0.document(frame, "host", now) for frame in frames]
    helpers.bulk(
        es, ({"_index": f"{today}-new", "_id": one.id, **orjson.loads(one.body)} for one in documents)
    )


def test_the_pages_of_0_1_0_are_those_that_the_data_view_computes(frames: list[bytes]) -> None:
    pages = 0
    for frame in frames:
        source = orjson.loads(version_0_1_0.document(frame, "host", 1_600_000_000_000_000).body)
        for part in (source, source.get("subject", {}), source.get("quote", {})):
            assert part.get("url") == page_url(part.get("uri", ""))
            pages += "url" in part
    assert pages > 10


def _types(es: Elasticsearch, index: str) -> dict[str, str]:
    fields = es.field_caps(index=index, fields="*")["fields"]
    return {name: next(iter(kinds)) for name, kinds in fields.items()}
