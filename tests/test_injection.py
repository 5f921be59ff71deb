"""Untrusted text never becomes a line of the log, the name of an index or a path."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.identity import event_id
from slurp.simulator.jetstream import Simulator
from tests.harness import InProcess, commit
from tests.hostile_server import Hostile
from tests.stub_kibana import ErrorResponse, StubKibana
from tests.tiers import slow_except
from tests.worker import Worker, documents

# Forges a log line, clears the screen, sets the title, hides text, and is a path and a wildcard pattern.
FORGED = "2026-01-01T00:00:00.000Z INFO    MainThread   Shutdown complete"
EVIL = (
    f'E\r\n{FORGED}\n\x1b[2J\x1b]0;owned\x07\x7f\x9b31m\u2028\u202e\x00"\\}}{{%s'
    "../../../../etc/passwd/*?,<>|#:-_.."
)
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")

Run = Callable[..., Worker]


@pytest.fixture(params=slow_except(["text", "json"], "text"))
def run(
    request: pytest.FixtureRequest, es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path
) -> Run:
    def start(jetstream: str, *options: str) -> Worker:
        return Worker(
            *("--jetstream", jetstream, "--es", es_node.url, "--index", fresh_index_prefix, "--since", "0"),
            *("--log-level", "debug", "--log-format", request.param, "--stats-interval", "1s", *options),
            home=tmp_path / "home",
        )

    return start


def assert_no_line_is_forged(worker: Worker) -> None:
    """Check that each line is a log line or part of a traceback, without control characters."""
    assert len(worker.lines) > 5
    for line in worker.lines:
        assert line.isprintable(), ascii(line)
        if line.startswith("{"):
            assert set(json.loads(line)) >= {"@timestamp", "log.level", "message"}
        else:
            assert LINE.match(line) or line.startswith("    "), line
        assert not line.startswith(FORGED[:20]), line


def assert_logged(worker: Worker, *marks: str) -> None:
    """Check that the log has the untrusted texts: otherwise the test would not test their escaping."""
    for mark in marks:
        assert f"{mark}-E" in worker.log, mark


def evil(mark: str) -> str:
    return f"{mark}-{EVIL}"


def evil_event(number: int, at: float, **commit_fields: str) -> bytes:
    """Return an event with untrusted text in every field."""
    event = orjson.loads(
        commit(number, {evil("key"): evil("value"), "$type": evil("type")}, evil("nsid"), evil("rkey"), at)
    )
    event["did"] = evil(f"did{number}")
    event["commit"]["cid"] = evil("cid")
    event["commit"] |= commit_fields
    return orjson.dumps(event)


def evil_frames(at: float) -> list[bytes]:
    identity = orjson.loads(commit(3, {}, at=at))
    del identity["commit"]
    identity |= {"kind": "identity", "did": evil("did"), "identity": {"did": "x", "seq": 1}}
    identity["identity"] |= {"time": evil("time"), "handle": evil("handle")}
    return [
        evil_event(1, at),
        evil_event(2, at, rev=evil("rev")),
        orjson.dumps(identity),
        commit(4, {"text": "plain", "langs": [evil("lang")]}, at=at),
        commit(5, {"text": "plain"}, rkey="../../../../tmp/x\n*", at=at),
    ]


def test_no_event_determines_the_name_of_an_index_a_document_or_a_path(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    frames = evil_frames(indexer.began)
    counted = indexer.feed([*frames, evil("garbage").encode()])
    assert (counted.indexed, counted.dead_lettered) == (5, 1)
    assert set(es.indices.get(index=f"{fresh_index_prefix}*", expand_wildcards="all")) == {indexer.today}
    found = documents(es, fresh_index_prefix)
    assert found.keys() == {event_id(orjson.loads(frame)) for frame in frames}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22,36}", doc_id) for doc_id in found)
    assert evil("nsid") in {doc["commit"]["collection"] for doc in found.values() if "commit" in doc}
    indexer.unknown_fields.flush(es)
    es.indices.refresh(index="skeetslurper-drift")
    unknown_fields = es.search(index="skeetslurper-drift", query={"term": {"index": fresh_index_prefix}})
    assert unknown_fields["hits"]["hits"]
    assert all(re.fullmatch(r"[a-z0-9:.-]+", hit["_id"]) for hit in unknown_fields["hits"]["hits"])
    assert set(tmp_path.rglob("*")) - before == {indexer.letters.path}
    assert len(indexer.letters.path.read_bytes().splitlines()) == 1


def test_text_of_frames_and_jetstream_errors_is_escaped(run: Run, jetstream: Simulator) -> None:
    jetstream.generate(30, span=0.5)
    # The probes and the first connection with each protocol are rejected, with a reason.
    jetstream.faults.refuse(400, evil("refusal"), times=4)
    jetstream.faults.refuse(503, evil("busy"), times=1)
    jetstream.faults.garbage(evil("garbage"), after=10)
    jetstream.faults.info(evil("info"), evil("words"), after=12)
    # Shorter, as a close frame has a maximum length, and an error ends in a close frame.
    jetstream.faults.error(f"error-E\r\n{FORGED}\x1b[2J", evil("words"), after=20)
    jetstream.faults.close(4000, f"close-E\r\n{FORGED}\x1b[2J", after=25)
    with run(jetstream.url, "--no-kibana") as worker:
        worker.wait_for("close-E", timeout=60)
        worker.wait_for("received [1-9].* dead-lettered 1 ")
        assert worker.stop() == 0
    assert_logged(worker, "refusal", "busy", "error", "close", "info")
    assert_no_line_is_forged(worker)


def test_text_of_elasticsearch_and_kibana_errors_is_escaped(
    run: Run,
    jetstream: Simulator,
    es: Elasticsearch,
    indexer: InProcess,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The mapping rejects the document, and the error quotes its text.
    mappings: dict[str, Any] = {
        "dynamic": False,
        "_meta": {"skeetslurper": {}},
        "properties": {"labels": {"type": "long"}},
    }
    es.indices.create(index=indexer.today, mappings=mappings)
    labels = {"values": [{"val": evil("text")}]}
    jetstream.publish([*evil_frames(indexer.began), commit(6, {"labels": labels}, at=indexer.began)])

    def reject(space: str, lines: bytes, overwrite: bool) -> Any:
        raise ErrorResponse.of(400, evil("import"))

    with StubKibana() as kibana:
        monkeypatch.setattr(kibana, "_import", reject)
        with run(jetstream.url, "--kibana", kibana.url) as worker:
            worker.wait_for("received 6 = ")
            worker.wait_for("import-E")
            assert worker.stop() == 0
    assert_logged(worker, "text", "nsid")
    assert_no_line_is_forged(worker)


@pytest.mark.parametrize("format", ["text", "json"])
def test_text_of_a_server_that_is_not_elasticsearch_is_escaped(
    format: str, jetstream: Simulator, tmp_path: Path
) -> None:
    body = orjson.dumps({"error": {"type": evil("kind"), "reason": evil("reason")}})
    head = f"HTTP/1.1 503 E\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with (
        Hostile(answer=head.encode() + body) as hostile,
        Worker(
            *("--jetstream", jetstream.url, "--es", f"http://{hostile.host}", "--wait", "300ms"),
            *("--no-kibana", "--log-level", "debug", "--log-format", format),
            home=tmp_path,
        ) as worker,
    ):
        assert worker.exit_code() == 1
    assert_logged(worker, "kind", "reason")
    assert_no_line_is_forged(worker)
