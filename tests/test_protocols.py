"""Both protocols of Jetstream through the worker process: the documents are equal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch, helpers

from slurp.embedded.node import EmbeddedNode
from slurp.events.identity import event_id
from slurp.kibana.objects import scope
from slurp.kibana.panels import ACTIVITY, View
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.conftest import SHARED
from tests.test_simulator_v2 import DID, publish_resync
from tests.test_zstd_dictionary import Bombs
from tests.tiers import slow_except
from tests.worker import StartWorker, Worker, checkpoint, count, documents, expected

V1 = ("--protocol", "v1")
V2 = ("--protocol", "v2", "--compress", "off")
ZSTD = ("--protocol", "v2", "--compress", "on")


@pytest.fixture
def start(
    es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path
) -> StartWorker:
    """Return a function that starts a worker; `index` is appended to the prefix of this test's indices."""

    def begin(*options: str, index: str = "", server: str = jetstream.url) -> Worker:
        return Worker(
            *("--jetstream", server, "--es", es_node.url, "--index", fresh_index_prefix + index),
            *("--no-kibana", "--stats-interval", "1s", "--flush", "200ms", "--since", "0"),
            *("--retention", "forever", "--log-level", "debug"),
            *options,
            home=tmp_path,
        )

    return begin


def comparable_documents(es: Elasticsearch, index: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return day and document by `_id`, without the fields that depend on host and time of indexing."""
    es.indices.refresh(index=f"{index}-*")
    found = {}
    for hit in helpers.scan(es, index=f"{index}-*", size=5000):
        source = hit["_source"]
        del source["jetstream"], source["event"]["ingested"], source["event"]["lag_ms"]
        found[hit["_id"]] = (hit["_index"].removeprefix(index), source)
    return found


def test_all_protocols_produce_equal_documents(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, corpus: list[Path]
) -> None:
    for path in corpus:
        jetstream.load(path)
    by_protocol = {}
    for name, options in (("v1", V1), ("v2", V2), ("zstd", ZSTD)):
        with start("--catch-up", "--deletions", "keep", *options, index=name) as worker:
            assert worker.exit_code(120) == 0
        assert worker.counted()["indexed"] == len(jetstream.frames)
        by_protocol[name] = comparable_documents(es, fresh_index_prefix + name)
    assert by_protocol["v1"].keys() == expected(jetstream.frames).keys()
    assert by_protocol["v1"] == by_protocol["v2"]
    assert by_protocol["v1"] == by_protocol["zstd"]


@pytest.mark.slow
def test_recorded_v2_frames_differ_only_in_events_that_v1_omits(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    path = SHARED / "corpus" / "jetstream-v2-simulated.jsonl"
    if not path.is_file():
        pytest.skip(f"recorded events missing: {path}")
    jetstream.load(path)
    by_protocol = {}
    for name, options in (("v1", V1), ("v2", V2), ("zstd", ZSTD)):
        with start("--catch-up", "--deletions", "keep", *options, index=name) as worker:
            assert worker.exit_code(120) == 0
        by_protocol[name] = comparable_documents(es, fresh_index_prefix + name)
    assert by_protocol["v2"] == by_protocol["zstd"]
    assert len(by_protocol["v2"]) == 2000
    hidden = {
        doc_id: doc
        for doc_id, (_, doc) in by_protocol["v2"].items()
        if doc["kind"] == "sync" or doc.get("commit", {}).get("resync")
    }
    assert len(hidden) == 9
    assert {doc["did"] for doc in hidden.values()} == {"did:plc:scdt35z37x4xluhinovufbey"}
    assert by_protocol["v1"] == {
        doc_id: doc for doc_id, doc in by_protocol["v2"].items() if doc_id not in hidden
    }


def resync_rkeys(es: Elasticsearch, index: str) -> list[str]:
    """Return the rkeys of the commits that are marked as part of a resync."""
    return sorted(
        doc["commit"]["rkey"]
        for doc in documents(es, index).values()
        if doc["kind"] == "commit" and doc["commit"].get("resync")
    )


def test_a_resync_is_indexed_but_not_shown_as_events(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    publish_resync(jetstream, rows=40)
    with start("--catch-up", "--batch", "7", *V2) as worker:
        assert worker.exit_code() == 0
    found = documents(es, fresh_index_prefix)
    assert found.keys() == expected(jetstream.frames).keys()
    (sync,) = [doc for doc in found.values() if doc["kind"] == "sync"]
    assert (sync["did"], sync["sync"]["rev"]) == (DID, "3mptbypluud2a")
    assert len(resync_rkeys(es, fresh_index_prefix)) == 40
    query = scope(View.EVENTS, ACTIVITY, fresh_index_prefix).query
    assert es.count(index=f"{fresh_index_prefix}-*", query=query)["count"] == len(found) - 40


@pytest.mark.parametrize("end", slow_except(["stop", "kill"], "kill"))
def test_a_resync_is_marked_across_a_restart(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, end: str
) -> None:
    publish_resync(jetstream, rows=300)
    jetstream.faults.stall(after=150)
    with start("--batch", "20", *V2) as worker:
        worker.wait_for("received 150")
        jetstream.wait_until(lambda _: count(es, fresh_index_prefix) == 150, timeout=20)
        time.sleep(1.5)  # the checkpoint is saved every second
        if end == "stop":
            assert worker.stop() == 0
        else:
            worker.kill()
    saved = checkpoint(es, fresh_index_prefix)
    assert saved is not None
    assert saved["cursor"] == 6, "the cursor before the #sync"
    assert len(resync_rkeys(es, fresh_index_prefix)) == 144
    jetstream.faults.clear()
    with start("--catch-up", "--batch", "20", *V2) as worker:
        assert worker.exit_code() == 0
    assert len(resync_rkeys(es, fresh_index_prefix)) == 300
    assert documents(es, fresh_index_prefix).keys() == expected(jetstream.frames).keys()


@pytest.mark.slow
def test_both_protocols_share_one_checkpoint(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    for options in (V1, V2, V1, ZSTD):
        jetstream.generate(1500, span=0.2)
        with start("--catch-up", *options) as worker:
            assert worker.exit_code() == 0
        duplicates = worker.counted()["duplicates"]
        assert duplicates == len(jetstream.frames) - 1500, (
            "all earlier events, because they are fewer than a rewind"
        )
        assert checkpoint(es, fresh_index_prefix), "the only checkpoint"
    assert documents(es, fresh_index_prefix).keys() == expected(jetstream.frames).keys()


def test_a_change_of_protocol_loses_no_events(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(6000)
    jetstream.faults.error("ConsumerTooSlow", "far behind", after=2000)
    with start("--protocol", "auto", "--compress", "on") as worker:
        worker.wait_for("ConsumerTooSlow: far behind; reconnecting")
        jetstream.faults.refuse(404)  # as a server without v2
        jetstream.faults.cut_after(1000)
        worker.wait_for("has no v2 protocol")
        jetstream.wait_until(lambda _: count(es, fresh_index_prefix) >= 6000, timeout=60)
        assert worker.stop() == 0
    assert documents(es, fresh_index_prefix).keys() == expected(jetstream.frames).keys()


@pytest.mark.slow
def test_a_retired_dictionary_and_a_decompression_bomb_do_not_stop_the_worker(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    jetstream.generate(500)
    jetstream.faults.garbage(Bombs().sized.compress(b"[" * 300_000_000), after=100)
    letters = tmp_path / "letters.jsonl"
    with start(*ZSTD, "--dead-letter", str(letters)) as worker:
        worker.wait_for("indexed 500")
        assert worker.resident() < 250_000_000
        jetstream.rotate_dictionary()
        jetstream.faults.cut_after()
        worker.wait_for("zstd dictionary 20260812, fetched again")
        jetstream.generate(500)
        jetstream.wait_until(lambda _: count(es, fresh_index_prefix) == 1000, timeout=30)
        assert worker.stop() == 0
        counted = worker.counted()
    (letter,) = map(orjson.loads, letters.read_bytes().splitlines())
    assert "more than 33,554,432 bytes when decompressed" in letter["reason"]
    kept = orjson.loads(letter["frame"])
    assert kept["decompressed"] == 300_000_000
    assert len(kept["blake2b"]) == 32
    assert counted["dead-lettered"] == 1
    assert counted["received"] == sum(counted.values()) - counted["received"]


@pytest.mark.slow
def test_a_checkpoint_older_than_the_server_is_logged_as_a_gap(
    start: StartWorker, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with Simulator(port=0, seed=1, server=ServerOptions(retain_bytes=700_000)) as jetstream:
        jetstream.generate(500)
        with start("--catch-up", *V2, server=jetstream.url) as worker:
            assert worker.exit_code() == 0
        jetstream.generate(3000)
        oldest = orjson.loads(jetstream.frames[0])["cursor"]
        assert oldest > 600
        with start("--catch-up", *V2, server=jetstream.url) as worker:
            assert worker.exit_code() == 0
        line = worker.wait_for(r"no longer has .*").string
        assert "WARNING" in line
        assert f"after cursor 500, reading from its oldest event, cursor {oldest}" in line
        still_available = {event_id(orjson.loads(frame)) for frame in jetstream.frames}
    assert still_available <= documents(es, fresh_index_prefix).keys()
    assert count(es, fresh_index_prefix) == 500 + len(still_available)


def test_a_server_without_v2_is_read_with_v1(
    start: StartWorker, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    with Simulator(port=0, seed=1, protocols="v1") as jetstream:
        jetstream.generate(500)
        with start("--catch-up", server=jetstream.url) as worker:
            assert worker.exit_code() == 0
            assert "has no v2 protocol (HTTP 404), reading v1" in worker.log
            assert "protocol v1" in worker.log
        assert documents(es, fresh_index_prefix).keys() == expected(jetstream.frames).keys()
