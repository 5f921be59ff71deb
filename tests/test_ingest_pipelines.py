"""What a user's ingest pipelines do to single documents. The gateway stands in for those of a full node."""

from __future__ import annotations

import threading
import time
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.deadletter import main
from slurp.documents.document import quarantined
from slurp.elastic.bulk import create, create_beside, request
from slurp.events.identity import event_id
from tests.gateway import DROPPED, FAILED, Gateway
from tests.harness import InProcess
from tests.test_elasticsearch_faults import assert_all_indexed
from tests.tiers import slow_except
from tests.worker import documents

Json = dict[str, Any]


def id_of(frame: bytes) -> str:
    return event_id(orjson.loads(frame))


def test_documents_that_a_pipeline_drops_are_an_outcome_of_their_own(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    frames = behind.posts(20)
    unwanted = {id_of(frame) for frame in frames[5:8]}
    gateway.pipeline = lambda doc_id, routing: DROPPED if doc_id in unwanted else None
    counted = behind.feed(frames)
    assert counted.adds_up
    assert (counted.indexed, counted.dropped, counted.quarantined) == (17, 3, 0)
    assert documents(es, fresh_index_prefix).keys() == {id_of(frame) for frame in frames} - unwanted
    assert behind.feed(frames[4:6]).duplicates == 1, "a dropped document is dropped again, and no duplicate"


def test_a_document_that_a_pipeline_fails_on_does_not_hold_the_others(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """The envelope for the quarantine passes: what the pipeline fails on is no common field."""
    frames = behind.posts(20)
    guilty = id_of(frames[7])
    tries = []

    def fail(doc_id: str, routing: str | None) -> Json | None:
        tries.append(doc_id)
        return FAILED if doc_id == guilty and tries.count(guilty) < 3 else None

    gateway.pipeline = fail
    began = time.monotonic()
    counted = behind.feed(frames)
    assert time.monotonic() - began < 25, "less than what an error of everybody is waited for"
    assert counted.adds_up
    assert (counted.indexed, counted.quarantined, counted.dead_lettered) == (19, 1, 0)
    found = documents(es, fresh_index_prefix)
    assert found[guilty]["quarantine"]["error"] == "fail_processor_exception: not this one"
    assert found.keys() == {id_of(frame) for frame in frames}, "and no canary"


def test_a_pipeline_that_rejects_the_canary_does_not_hold_the_stream(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """It reads a field that the canary lacks. A copy of an accepted event is asked with instead."""
    frames = behind.posts(20)
    guilty = id_of(frames[7])
    tries = []

    def fail(doc_id: str, routing: str | None) -> Json | None:
        tries.append("canary" if doc_id.startswith("canary") else doc_id)
        if tries[-1] == "canary":
            return FAILED if tries.count("canary") % 2 else None
        return FAILED if doc_id == guilty and tries.count(guilty) < 3 else None

    gateway.pipeline = fail
    counted = behind.feed(frames)
    assert (counted.indexed, counted.quarantined, counted.dead_lettered) == (19, 1, 0)
    assert documents(es, fresh_index_prefix).keys() == {id_of(frame) for frame in frames}, "and no canary"


def test_a_document_that_no_pipeline_takes_in_quarantine_either_is_a_dead_letter(
    gateway: Gateway, behind: InProcess
) -> None:
    frames = behind.posts(20)
    guilty = id_of(frames[7])
    gateway.pipeline = lambda doc_id, routing: FAILED if doc_id == guilty else None
    counted = behind.feed(frames)
    assert (counted.indexed, counted.quarantined, counted.dead_lettered) == (19, 0, 1)
    assert behind.letters.path is not None
    (letter,) = map(orjson.loads, behind.letters.path.read_bytes().splitlines())
    assert letter["reason"] == "rejected even in quarantine: 500 fail_processor_exception: not this one"


@pytest.mark.parametrize("status", slow_except([500, 503, 429], 503))
def test_an_unknown_error_of_the_only_document_is_waited_for_and_then_asked_about(
    gateway: Gateway, behind: InProcess, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """No other document shows that the index is well, so it may be a fault of the cluster that passes."""
    monkeypatch.setattr("slurp.elastic.canary._ASK_AFTER", 2.0)
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
    assert len(times) < 15, "with a back-off"


def test_an_unknown_error_of_the_server_that_passes_puts_nothing_into_quarantine(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    behind.days.ensure(behind.day)
    frames = behind.posts(20)
    gateway.pipeline = lambda doc_id, routing: FAILED

    def mend() -> None:
        gateway.pipeline = None

    counted = behind.feed_through_trouble(frames, mend)
    assert_all_indexed(es, fresh_index_prefix, counted, frames)


def test_an_unknown_error_of_one_shard_puts_nothing_into_quarantine(
    gateway: Gateway, behind: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    """The canary goes to the shard of the document, while others take theirs."""
    frames = behind.posts(40)
    sick = {id_of(frame) for frame in frames[::2]}
    canaries = []

    def fail(doc_id: str, routing: str | None) -> Json | None:
        if doc_id.startswith("canary"):
            canaries.append(routing)
        return FAILED if (routing or doc_id) in sick else None

    gateway.pipeline = fail
    behind.put(frames)
    thread = threading.Thread(target=behind.one_indexer().step, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while len(canaries) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    gateway.pipeline = None
    thread.join(30)
    assert set(canaries) <= sick
    assert len(canaries) >= 3
    assert_all_indexed(es, fresh_index_prefix, behind.counters.snapshot(), frames)


def test_a_canary_that_a_pipeline_drops_shows_nothing_of_the_index(
    gateway: Gateway,
    behind: InProcess,
    es: Elasticsearch,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("slurp.elastic.canary._ASK_AFTER", 0.0)
    behind.days.ensure(behind.day)
    frames = behind.posts(1)
    gateway.pipeline = lambda doc_id, routing: DROPPED if doc_id.startswith("canary") else FAILED

    def mend() -> None:
        gateway.pipeline = None

    counted = behind.feed_through_trouble(frames, mend)
    assert_all_indexed(es, fresh_index_prefix, counted, frames)

    more = behind.posts(20, first=20)
    guilty = id_of(more[3])
    gateway.pipeline = lambda doc_id, routing: (
        DROPPED if doc_id.startswith("canary") else FAILED if doc_id == guilty else None
    )
    counted = behind.feed(more)
    assert (counted.indexed, counted.dead_lettered) == (1 + 19, 1), "others were taken"


def test_the_canary_is_sent_to_the_shard_of_the_document(es: Elasticsearch, fresh_index_prefix: str) -> None:
    index = f"{fresh_index_prefix}-shards"
    es.indices.create(index=index, settings={"number_of_shards": 5})
    for number in range(20):
        doc_id = f"document-{number}"
        pair = [create(index, doc_id, b"{}"), create_beside(index, f"canary-{number}", b"{}", doc_id)]
        assert [item.status for item in request(es, pair)] == [201, 201]
    es.indices.refresh(index=index)
    shards = {
        hit["_id"]: hit["_shard"] for hit in es.search(index=index, explain=True, size=40)["hits"]["hits"]
    }
    assert len(set(shards.values())) > 1
    for number in range(20):
        assert shards[f"canary-{number}"] == shards[f"document-{number}"]


@pytest.mark.parametrize("answer", [FAILED, DROPPED], ids=["failed", "dropped"])
def test_a_document_that_a_pipeline_does_not_let_through_stays_in_quarantine(
    gateway: Gateway,
    behind: InProcess,
    es: Elasticsearch,
    fresh_index_prefix: str,
    capsys: pytest.CaptureFixture[str],
    answer: Json,
) -> None:
    """The others are freed: one document does not end the replay."""
    frames = behind.posts(3)
    behind.days.ensure(behind.day)
    for frame in frames:
        document = quarantined(orjson.loads(frame), frame, "host", 1_700_000_000_000_000, "refused by a bug")
        es.index(index=behind.today, id=document.id, document=orjson.loads(document.body), refresh=True)
    guilty = id_of(frames[1])
    gateway.pipeline = lambda doc_id, routing: answer if doc_id == guilty else None
    given = ("--es", gateway.url, "--index", fresh_index_prefix, "--log-level", "warning")
    assert main(["replay", "--quarantined", *given]) == 1
    assert "stays in quarantine: " in capsys.readouterr().err, "and not: Elasticsearch is in trouble"
    kept = [doc_id for doc_id, source in documents(es, fresh_index_prefix).items() if "quarantine" in source]
    assert kept == [guilty]
