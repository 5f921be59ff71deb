"""What strangers write never becomes a line of the log, a name of an index or a path."""

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
from tests.hostile import Hostile
from tests.stub_kibana import Answer, StubKibana
from tests.tiers import slow_except
from tests.worker import Worker, documents

# Forges a line, clears the screen, sets the title, hides text, and is a path and a pattern besides.
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
    def begin(jetstream: str, *options: str) -> Worker:
        return Worker(
            *("--jetstream", jetstream, "--es", es_node.url, "--index", fresh_index_prefix, "--since", "0"),
            *("--log-level", "debug", "--log-format", request.param, "--stats-interval", "1s", *options),
            home=tmp_path / "home",
        )

    return begin


def assert_every_line_is_ours(worker: Worker) -> None:
    """A line begins as ours do, or belongs to a traceback, and nothing in it moves a cursor."""
    assert len(worker.lines) > 5
    for line in worker.lines:
        assert line.isprintable(), ascii(line)
        if line.startswith("{"):
            assert set(json.loads(line)) >= {"@timestamp", "log.level", "message"}
        else:
            assert LINE.match(line) or line.startswith("    "), line
        assert not line.startswith(FORGED[:20]), line


def told(worker: Worker, *marks: str) -> None:
    """The strangers were heard: it is not for silence that nothing was forged."""
    for mark in marks:
        assert f"{mark}-E" in worker.log, mark


def evil(mark: str) -> str:
    return f"{mark}-{EVIL}"


def strange(number: int, at: float, **more: str) -> bytes:
    """An event of somebody who has a name for everything."""
    event = orjson.loads(
        commit(number, {evil("key"): evil("value"), "$type": evil("type")}, evil("nsid"), evil("rkey"), at)
    )
    event["did"] = evil(f"did{number}")
    event["commit"]["cid"] = evil("cid")
    event["commit"] |= more
    return orjson.dumps(event)


def strange_frames(at: float) -> list[bytes]:
    identity = orjson.loads(commit(3, {}, at=at))
    del identity["commit"]
    identity |= {"kind": "identity", "did": evil("did"), "identity": {"did": "x", "seq": 1}}
    identity["identity"] |= {"time": evil("time"), "handle": evil("handle")}
    return [
        strange(1, at),
        strange(2, at, rev=evil("rev")),
        orjson.dumps(identity),
        commit(4, {"text": "plain", "langs": [evil("lang")]}, at=at),
        commit(5, {"text": "plain"}, rkey="../../../../tmp/x\n*", at=at),
    ]


def test_no_event_chooses_a_name_of_an_index_or_a_document_or_a_path(
    es: Elasticsearch, indexer: InProcess, fresh_index_prefix: str, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    frames = strange_frames(indexer.began)
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


def test_frames_and_what_a_jetstream_says_of_itself(run: Run, jetstream: Simulator) -> None:
    jetstream.generate(30, span=0.5)
    # Each probe and each first try of a wire is refused, with a reason.
    jetstream.faults.refuse(400, evil("refusal"), times=4)
    jetstream.faults.refuse(503, evil("busy"), times=1)
    jetstream.faults.garbage(evil("garbage"), after=10)
    jetstream.faults.info(evil("info"), evil("words"), after=12)
    # A close frame has room for little, and an error ends in one.
    jetstream.faults.error(f"error-E\r\n{FORGED}\x1b[2J", evil("words"), after=20)
    jetstream.faults.close(4000, f"close-E\r\n{FORGED}\x1b[2J", after=25)
    with run(jetstream.url, "--no-kibana") as worker:
        worker.wait_for("close-E", timeout=60)
        worker.wait_for("received [1-9].* dead-lettered 1 ")
        assert worker.stop() == 0
    told(worker, "refusal", "busy", "error", "close", "info")
    assert_every_line_is_ours(worker)


def test_what_elasticsearch_and_kibana_say(
    run: Run,
    jetstream: Simulator,
    es: Elasticsearch,
    indexer: InProcess,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Refused for what is in it, and the refusal quotes it.
    mappings: dict[str, Any] = {
        "dynamic": False,
        "_meta": {"skeetslurper": {}},
        "properties": {"text": {"type": "long"}},
    }
    es.indices.create(index=indexer.today, mappings=mappings)
    jetstream.publish([*strange_frames(indexer.began), commit(6, {"text": evil("text")}, at=indexer.began)])

    def refuse(space: str, lines: bytes, overwrite: bool) -> Any:
        raise Answer.error(400, evil("import"))

    with StubKibana() as kibana:
        monkeypatch.setattr(kibana, "_import", refuse)
        with run(jetstream.url, "--kibana", kibana.url) as worker:
            worker.wait_for("received 6 = ")
            worker.wait_for("import-E")
            assert worker.stop() == 0
    told(worker, "text", "nsid")
    assert_every_line_is_ours(worker)


@pytest.mark.parametrize("format", ["text", "json"])
def test_what_answers_in_place_of_elasticsearch(format: str, jetstream: Simulator, tmp_path: Path) -> None:
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
    told(worker, "kind", "reason")
    assert_every_line_is_ours(worker)
