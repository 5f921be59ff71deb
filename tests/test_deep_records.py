"""JSON of any depth passes an indexer without loss of values and without ending it."""

from __future__ import annotations

import json

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.pipeline.dead_letters import frame_of
from tests.harness import InProcess, commit
from tests.worker import documents

MARK = b'"the bottom"'


def nested(number: int, levels: int, collection: str, at: float, *, lists: bool) -> bytes:
    """Return a frame whose record is nested `levels` deep."""
    opening, closing = (b"[", b"]") if lists else (b'{"a":', b"}")
    frame = commit(number, {"deep": "the bottom"}, collection, at=at)
    return frame.replace(MARK, opening * levels + MARK + closing * levels)


@pytest.mark.parametrize("collection", ["app.bsky.feed.post", "com.example.other"])
def test_values_at_any_depth_are_kept(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str, collection: str
) -> None:
    levels = [1, 19, 254, 900, 990, 1000, 1010, 1020, 1024, 1030, 10_000, 100_000]
    frames = [
        nested(1000 + 2 * place + lists, depth, collection, indexer.began, lists=bool(lists))
        for place, depth in enumerate(levels)
        for lists in (0, 1)
    ]
    plain = indexer.posts(50)
    counted = indexer.feed([*plain[:25], *frames, *plain[25:]])
    assert counted.adds_up
    assert counted.in_flight == 0
    assert counted.received == len(frames) + 50

    lines = indexer.letters.path.read_bytes().splitlines() if indexer.letters.path.exists() else []
    letters = {frame_of(orjson.loads(line)) for line in lines}
    found = documents(es, fresh_index_prefix)
    assert len(found) + len(letters) == counted.received
    assert letters <= set(frames), "no other frames"
    assert {frames[-1], frames[-2]} <= letters, "no parser accepts 100,000 levels"
    by_did = {document["did"]: document for document in found.values()}
    for number, frame in enumerate(frames):
        if frame not in letters:
            assert "the bottom" in json.dumps(by_did[f"did:plc:{1000 + number:024}"])
