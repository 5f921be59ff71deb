"""Frames of 4 to 32 MB are indexed, or kept as dead letters, in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.documents.document import build
from slurp.events.frames import MAX_FRAME_BYTES, BadFrame, parse, parse_notice
from slurp.simulator import protocol_v2
from slurp.simulator.jetstream import Simulator
from tests.harness import InProcess, commit, posts_with_integer, reading, until


def escaped(number: int, size: int) -> bytes:
    """Return a post of `size` characters `<` as a server writes them: in six bytes each."""
    return commit(number, {"$type": "app.bsky.feed.post", "text": "@"}).replace(
        b'"@"', b'"' + b"\\u003c" * size + b'"'
    )


# A record of 1 MB.
LEGAL = 1_000_000


def commit_of(payload: bytes) -> bytes:
    """Return the frame of a commit whose record is `payload`."""
    frame = commit(7, "@", collection="com.example.thing")
    return frame.replace(b'"@"', payload)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_a_legal_record_in_a_frame_of_6_mb_is_indexed(
    jetstream: Simulator, indexer: InProcess, es: Elasticsearch, protocol: str
) -> None:
    large = escaped(1, LEGAL)
    assert len(large) > 6_000_000
    if protocol == "v2":
        message = protocol_v2.frame(orjson.loads(large), 5)
        large = message.replace(b"<" * LEGAL, b"\\u003c" * LEGAL)
    jetstream.generate(20, span=0.5)
    jetstream.faults.garbage(large.decode(), after=10)
    with reading(jetstream, options=("--protocol", protocol)) as run:
        until(lambda: len(run.frames) == 21)
        assert large in run.frames
    counted = indexer.feed(run.frames)
    assert (counted.received, counted.dead_lettered, counted.in_flight) == (21, 0, 0)
    es.indices.refresh(index=f"{indexer.index}-*")
    large_event = orjson.loads(escaped(1, 1))
    found = es.search(index=f"{indexer.index}-*", query={"term": {"did": large_event["did"]}}, size=1)
    (hit,) = found["hits"]["hits"]
    assert hit["_source"]["commit"]["rkey"] == large_event["commit"]["rkey"]


def test_a_frame_at_the_limit_is_indexed(indexer: InProcess) -> None:
    frame = commit_of(b'{"x":"' + b"x" * (MAX_FRAME_BYTES - 1000) + b'"}')
    counted = indexer.feed([frame, *indexer.posts(2)])
    assert (counted.indexed, counted.in_flight) == (3, 0)


def test_a_large_event_that_is_rejected_is_quarantined(es: Elasticsearch, indexer: InProcess) -> None:
    indexer.feed([commit(900, {"text": "creates the index"})])
    es.indices.put_mapping(index=indexer.today, properties=posts_with_integer("odd"))
    counted = indexer.feed([commit(1, {"$type": "app.bsky.feed.post", "odd": "x" * 8_000_000})])
    assert (counted.quarantined, counted.in_flight) == (1, 0)


@pytest.mark.cluster_wide  # What the node rejects depends on all requests that it handles at the time.
def test_a_frame_too_large_for_quarantine_is_a_dead_letter(es: Elasticsearch, indexer: InProcess) -> None:
    """Escaped quotes double its size there. A node with 512 MB rejects every request of more than 51 MB."""
    indexer.feed([commit(900, {"text": "creates the index"})])
    es.indices.put_mapping(index=indexer.today, properties=posts_with_integer("odd"))
    frame = commit(1, {"$type": "app.bsky.feed.post", "odd": "@"}).replace(
        b'"@"', b'"' + b'\\"' * 15_000_000 + b'"'
    )
    counted = indexer.feed([frame, *indexer.posts(2)])
    assert (counted.indexed, counted.dead_lettered, counted.in_flight) == (3, 1, 0)
    letter = orjson.loads(indexer.letters.path.read_bytes())
    assert "cannot be quarantined: a document of 60," in letter["reason"]
    assert letter["frame"].encode() == frame, "kept completely"


def test_a_document_that_exceeds_the_limit_is_a_dead_letter(indexer: InProcess) -> None:
    tags = [f"{number:060}" for number in range(300_000)]
    counted = indexer.feed([commit(1, {"$type": "app.bsky.feed.post", "tags": tags})])
    assert (counted.dead_lettered, counted.in_flight) == (1, 0)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'{"a":0},', b"0,"])
def test_a_large_frame_of_many_small_values_is_rejected_undecoded(unit: bytes) -> None:
    """Its objects would need a gigabyte."""
    with pytest.raises(BadFrame, match=r"commas and brackets, more than 1,000,000$"):
        parse(commit_of(b"[" + unit * (MAX_FRAME_BYTES // len(unit)) + b"0]"))


def test_a_small_frame_of_many_small_values_is_decoded() -> None:
    assert parse(commit_of(b"[" + b"[]," * 1_200_000 + b"0]"))


def test_text_longer_than_a_legal_record_is_not_analyzed() -> None:
    """Counting the graphemes of 16 million accented letters needs 20 s and a gigabyte."""
    longest, longer = "e\u0301" * (2**19), "e\u0301" * (2**19) + "e"
    for text, kept in ((longest, True), (longer, False)):
        event = parse(commit(1, {"$type": "app.bsky.feed.post", "text": text, "tags": [text]}))
        source = orjson.loads(build(event, "h", 0).body)
        assert ("text" in source, "length" in source, "tags" in source) == (kept, kept, kept)
        assert source["record"]["app.bsky.feed.post"]["text"] == text


def test_a_long_frame_is_not_a_notice() -> None:
    assert parse_notice(protocol_v2.error("Name", "x" * 1000)) is not None
    assert parse_notice(protocol_v2.error("Name", "x" * 100_000)) is None


# Prints the peak memory of a process that handles one message, from the socket's bytes to the event.
_PEAK = """
import resource, sys
from slurp.jetstream.message_parser import MessageParser
from slurp.events.frames import BadFrame, MAX_FRAME_BYTES, parse, first_position
from tests.hostile_server import text

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

unit = sys.argv[1].encode()
begin = peak()
parser, sent = MessageParser(), 0
head = text(b"x" * MAX_FRAME_BYTES)[:10]
parser.feed(head + b"[")
while sent < MAX_FRAME_BYTES - 1:
    piece = (unit * (65_536 // len(unit) + 1))[: min(65_536, MAX_FRAME_BYTES - 1 - sent)]
    parser.feed(piece)
    sent += len(piece)
    messages = parser.next_messages()
((_, data),) = messages
assert len(data) == MAX_FRAME_BYTES
first_position([data], "h")
print((peak() - begin) // 1_000_000)
"""


@pytest.mark.parametrize("unit", ["x", "[],", '{"a":0},', '"aa":0,'])
def test_the_largest_frame_needs_bounded_memory(unit: str) -> None:
    found = subprocess.run([sys.executable, "-c", _PEAK, unit], check=True, capture_output=True, text=True)
    assert int(found.stdout) < 4 * MAX_FRAME_BYTES // 1_000_000
