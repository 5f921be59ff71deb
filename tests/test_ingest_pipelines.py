"""Documents that a user's ingest pipeline drops or fails on. The gateway simulates the pipeline."""

from __future__ import annotations

import threading
import time
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.deadletter import main
from slurp.documents.document import quarantined
from slurp.elastic.bulk import create, create_routed, request
from slurp.events.identity import event_id
from tests.gateway import DROPPED, FAILED, Gateway
from tests.harness import InProcess
from tests.test_elasticsearch_faults import assert_all_indexed
from tests.tiers import slow_except
from tests.worker import documents

Json = dict[str, Any]


def action_id(frame: bytes) -> str:
    """Return the `_id` of the document for a frame."""
    return event_id(orjson.loads(frame))


def test_documents_that_a_pipeline_drops_are_counted_as_dropped(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    frames = behind.posts(20)
    unwanted = {action_id(frame) for frame in frames[5:8]}
    gateway.pipeline = lambda doc_id, routing: DROPPED if doc_id in unwanted else None
    counted = behind.feed(frames)
    assert counted.adds_up
    assert (counted.indexed, counted.dropped, counted.quarantined) == (17, 3, 0)
    assert documents(es, fresh_index_prefix).keys() == {action_id(frame) for frame in frames} - unwanted
    assert behind.feed(frames[4:6]).duplicates == 1, "a dropped document is no duplicate"


def test_a_document_that_a_pipeline_fails_on_is_quarantined_without_delay(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """The quarantined document is accepted, as if the pipeline failed on a field of the record."""
    frames = behind.posts(20)
    failing = action_id(frames[7])
    attempts = []

    def fail(doc_id: str, routing: str | None) -> Json | None:
        attempts.append(doc_id)
        return FAILED if doc_id == failing and attempts.count(failing) < 3 else None

    gateway.pipeline = fail
    started = time.monotonic()
    counted = behind.feed(frames)
    assert time.monotonic() - started < 25, "less than the retry period of a cluster error"
    assert counted.adds_up
    assert (counted.indexed, counted.quarantined, counted.dead_lettered) == (19, 1, 0)
    found = documents(es, fresh_index_prefix)
    assert found[failing]["quarantine"]["error"] == "fail_processor_exception: not this one"
    assert found.keys() == {action_id(frame) for frame in frames}, "no canary remains"


def test_a_pipeline_that_rejects_the_canary_does_not_block_indexing(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """As if it read a field that the canary lacks. A copy of an accepted event is sent instead."""
    frames = behind.posts(20)
    failing = action_id(frames[7])
    attempts = []

    def fail(doc_id: str, routing: str | None) -> Json | None:
        attempts.append("canary" if doc_id.startswith("canary") else doc_id)
        if attempts[-1] == "canary":
            return FAILED if attempts.count("canary") % 2 else None
        return FAILED if doc_id == failing and attempts.count(failing) < 3 else None

    gateway.pipeline = fail
    counted = behind.feed(frames)
    assert (counted.indexed, counted.quarantined, counted.dead_lettered) == (19, 1, 0)
    assert documents(es, fresh_index_prefix).keys() == {action_id(frame) for frame in frames}, (
        "no canary remains"
    )


def test_a_document_that_is_rejected_also_in_quarantine_is_a_dead_letter(
    gateway: Gateway, behind: InProcess
) -> None:
    frames = behind.posts(20)
    failing = action_id(frames[7])
    gateway.pipeline = lambda doc_id, routing: FAILED if doc_id == failing else None
    counted = behind.feed(frames)
    assert (counted.indexed, counted.quarantined, counted.dead_lettered) == (19, 0, 1)
    assert behind.letters.path is not None
    (letter,) = map(orjson.loads, behind.letters.path.read_bytes().splitlines())
    assert letter["reason"] == "rejected even in quarantine: 500 fail_processor_exception: not this one"


@pytest.mark.parametrize("status", slow_except([500, 503, 429], 503))
def test_an_unknown_error_of_the_only_document_is_retried_before_a_canary_is_sent(
    gateway: Gateway, behind: InProcess, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """No other document shows that the index works, so it may be a transient error of the cluster."""
    monkeypatch.setattr("slurp.elastic.canary._RETRY_PERIOD", 2.0)
    times = []

    def fail(doc_id: str, routing: str | None) -> Json | None:
        if not doc_id.startswith("canary"):
            times.append(time.monotonic())
            return {**FAILED, "status": status}
        return None

    gateway.pipeline = fail
    counted = behind.feed(behind.posts(1))
    assert (counted.quarantined, counted.dead_lettered) == (0, 1)
    assert times[-1] - times[0] > 2.0
    assert len(times) < 15, "retries with back-off"


def test_a_transient_server_error_of_unknown_type_quarantines_nothing(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    behind.days.ensure(behind.day)
    frames = behind.posts(20)
    gateway.pipeline = lambda doc_id, routing: FAILED

    def repair() -> None:
        gateway.pipeline = None

    counted = behind.feed_through_outage(frames, repair)
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


def test_an_unknown_error_of_one_shard_quarantines_nothing(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """The canary is sent to the shard of the document, while the other shards accept documents."""
    frames = behind.posts(40)
    on_failing_shard = {action_id(frame) for frame in frames[::2]}
    canaries = []

    def fail(doc_id: str, routing: str | None) -> Json | None:
        if doc_id.startswith("canary"):
            canaries.append(routing)
        return FAILED if (routing or doc_id) in on_failing_shard else None

    gateway.pipeline = fail
    behind.put(frames)
    thread = threading.Thread(target=behind.one_indexer().step, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while len(canaries) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    gateway.pipeline = None
    thread.join(30)
    assert set(canaries) <= on_failing_shard
    assert len(canaries) >= 3
    assert_all_indexed(es, fresh_index_prefix, behind.counters.snapshot(), frames)


def test_a_dropped_canary_is_conclusive_only_if_other_documents_are_accepted(
    gateway: Gateway,
    behind: InProcess,
    es: Elasticsearch,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("slurp.elastic.canary._RETRY_PERIOD", 0.0)
    behind.days.ensure(behind.day)
    frames = behind.posts(1)
    gateway.pipeline = lambda doc_id, routing: DROPPED if doc_id.startswith("canary") else FAILED

    def repair() -> None:
        gateway.pipeline = None

    counted = behind.feed_through_outage(frames, repair)
    assert_all_indexed(es, fresh_index_prefix, counted, frames)

    more = behind.posts(20, first=20)
    failing = action_id(more[3])
    gateway.pipeline = lambda doc_id, routing: (
        DROPPED if doc_id.startswith("canary") else FAILED if doc_id == failing else None
    )
    counted = behind.feed(more)
    assert (counted.indexed, counted.dead_lettered) == (1 + 19, 1), "others were accepted"


def test_the_canary_is_sent_to_the_shard_of_the_document(es: Elasticsearch, fresh_index_prefix: str) -> None:
    index = f"{fresh_index_prefix}-shards"
    es.indices.create(index=index, settings={"number_of_shards": 5})
    for number in range(20):
        doc_id = f"document-{number}"
        pair = [create(index, doc_id, b"{}"), create_routed(index, f"canary-{number}", b"{}", doc_id)]
        assert [item.status for item in request(es, pair)] == [201, 201]
    es.indices.refresh(index=index)
    shards = {
        hit["_id"]: hit["_shard"] for hit in es.search(index=index, explain=True, size=40)["hits"]["hits"]
    }
    assert len(set(shards.values())) > 1
    for number in range(20):
        assert shards[f"canary-{number}"] == shards[f"document-{number}"]


@pytest.mark.parametrize("result", [FAILED, DROPPED], ids=["failed", "dropped"])
def test_a_document_that_a_pipeline_stops_stays_in_quarantine(
    gateway: Gateway,
    behind: InProcess,
    es: Elasticsearch,
    fresh_index_prefix: str,
    capsys: pytest.CaptureFixture[str],
    result: Json,
) -> None:
    """The others are replayed: one document does not end the replay."""
    frames = behind.posts(3)
    behind.days.ensure(behind.day)
    for frame in frames:
        document = quarantined(orjson.loads(frame), frame, "host", 1_700_000_000_000_000, "refused by a bug")
        es.index(index=behind.today, id=document.id, document=orjson.loads(document.body), refresh=True)
    failing = action_id(frames[1])
    gateway.pipeline = lambda doc_id, routing: result if doc_id == failing else None
    given = ("--es", gateway.url, "--index", fresh_index_prefix, "--log-level", "warning")
    assert main(["replay", "--quarantined", *given]) == 1
    assert "stays in quarantine: " in capsys.readouterr().err, "reported for the document, not as an outage"
    kept = [doc_id for doc_id, source in documents(es, fresh_index_prefix).items() if "quarantine" in source]
    assert kept == [failing]
