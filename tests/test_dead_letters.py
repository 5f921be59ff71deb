"""Dead letters: writing them to a file, and replaying the file or quarantined documents."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.deadletter import main
from slurp.documents.document import quarantined
from slurp.elastic.setup import Setup, load_lexicons
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Exit, Fatal
from slurp.events import tid
from slurp.events.identity import event_id
from slurp.pipeline.dead_letters import DeadLetter, DeadLetterFile
from tests.harness import InProcess, commit
from tests.worker import documents


def test_dead_letters_keep_frames_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dead.jsonl"
    with DeadLetterFile(path) as file:
        file.write([DeadLetter(b'{"half', "no JSON"), DeadLetter(b"\xff\x00", "no JSON")], "host")
        file.write([DeadLetter("ü\n".encode(), "odd")], "host")
    text, binary, line_break = (json.loads(line) for line in path.read_text().splitlines())
    assert (text["frame"], text["reason"], text["host"]) == ('{"half', "no JSON", "host")
    assert base64.b64decode(binary["frame_base64"]) == b"\xff\x00"
    assert line_break["frame"] == "ü\n"
    assert path.stat().st_mode & 0o077 == 0, "other users must not read records that authors have deleted"


def test_an_incomplete_line_after_a_crash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    path.write_bytes(b'{"at":"20')
    with DeadLetterFile(path) as file:
        file.write([DeadLetter(b"x", "r")], "host")
    first, second = path.read_bytes().splitlines()
    assert first == b'{"at":"20'
    assert json.loads(second)["frame"] == "x"


def test_a_failed_write_stops_the_service() -> None:
    with DeadLetterFile(Path("/dev/full")) as file, pytest.raises(Fatal, match="No space left") as stopped:
        file.write([DeadLetter(b"x", "r")], "host")
    assert stopped.value.code is Exit.FAILED


def test_a_frame_that_is_read_again_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    letters = [DeadLetter(b"\xff1", "r"), DeadLetter(b"2", "r")]
    with DeadLetterFile(path) as file:
        file.write([*letters, letters[0]], "host")
        file.write(letters, "host")
    with DeadLetterFile(path) as file:
        file.write([*letters, DeadLetter(b"3", "r")], "host")
    assert len(path.read_bytes().splitlines()) == 3


# Replay on a real node


def options(es_node: EmbeddedNode, index: str) -> list[str]:
    """Return the options that select the node and the indices."""
    return ["--es", es_node.url, "--index", index]


def test_replay_indexes_valid_dead_letters_and_keeps_the_rest(
    es: Elasticsearch, es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.jsonl"
    good = [commit(number, {"text": "good"}) for number in range(3)]
    with DeadLetterFile(path) as file:
        file.write([DeadLetter(frame, "rejected once") for frame in good], "host")
        file.write([DeadLetter(b"no JSON", "no JSON")], "other")
    with path.open("ab") as appended:
        appended.write(b'{"half a li')
    for _ in range(2):
        assert main(["replay", str(path), *options(es_node, fresh_index_prefix)]) == 1
        assert documents(es, fresh_index_prefix).keys() == {event_id(json.loads(frame)) for frame in good}
        remaining = [json.loads(line) for line in Path(f"{path}.remaining").read_text().splitlines()]
        assert [letter["frame"] for letter in remaining] == ["no JSON", '{"half a li']
    assert main(["replay", str(tmp_path / "nowhere"), *options(es_node, fresh_index_prefix)]) == 2


LEXICON = {
    "lexicon": 1,
    "id": "org.example.note",
    "defs": {
        "main": {"type": "record", "record": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    },
}


def test_replay_keeps_the_templates_and_maps_records_by_their_lexicons(
    es: Elasticsearch,
    es_node: EmbeddedNode,
    fresh_index_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "lexicons"
    folder.mkdir()
    (folder / "note.json").write_text(json.dumps(LEXICON))
    arguments = (*options(es_node, fresh_index_prefix), "--lexicons", str(folder))
    config = parse([*arguments, "--shards", "2"], {})
    path = tmp_path / "old.jsonl"
    with DeadLetterFile(path) as file:
        file.write([DeadLetter(commit(1, {"x": 17}, "org.example.note"), "rejected once")], "host")
    assert main(["replay", str(path), *arguments]) == 2, "a replay creates no templates"
    Setup(config, load_lexicons(config)).run(es)

    def component_templates() -> Any:
        return es.cluster.get_component_template(name=f"{fresh_index_prefix}@*").body

    before = component_templates()
    assert main(["replay", str(path), *arguments]) == 0
    assert component_templates() == before
    (found,) = documents(es, fresh_index_prefix).values()
    assert found["record"] == {"org.example.note": {"x": 17}}

    # The lexicons apply to a quarantined document as well.
    event = json.loads(commit(2, {"x": 18}, "org.example.note"))
    document = quarantined(
        event, json.dumps(event).encode(), "host", 1_700_000_000_000_000, "rejected because of a bug"
    )
    (day,) = es.indices.get(index=f"{fresh_index_prefix}-*")
    es.index(index=day, id=document.id, document=json.loads(document.body), refresh=True)
    assert main(["replay", "--quarantined", *arguments]) == 0
    assert documents(es, fresh_index_prefix)[document.id]["record"] == {"org.example.note": {"x": 18}}


def test_replay_reports_dead_letters_past_retention(
    es: Elasticsearch,
    es_node: EmbeddedNode,
    indexer: InProcess,
    fresh_index_prefix: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "old.jsonl"
    event = json.loads(commit(1, {"text": "old"}))
    old = int((time.time() - 40 * 86_400) * 1e6)
    event["time_us"], event["commit"]["rev"] = old, tid.from_micros(old)
    with DeadLetterFile(path) as file:
        file.write([DeadLetter(json.dumps(event).encode(), "rejected once")], "host")
    assert main(["replay", str(path), *options(es_node, fresh_index_prefix)]) == 1
    assert "1 have expired (--retention or --max-disk) and were not sent" in capsys.readouterr().err
    forever = ("--retention", "forever")
    assert main(["replay", str(path), *options(es_node, fresh_index_prefix), *forever]) == 0


def test_replay_indexes_quarantined_documents_that_are_accepted_now(
    es: Elasticsearch, es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str
) -> None:
    event = json.loads(commit(1, {"text": "good"}, at=indexer.began))
    bad = json.dumps(event).encode()
    document = quarantined(event, bad, "host", 1_700_000_000_000_000, "rejected because of a bug")
    indexer.feed([commit(2, {}, at=indexer.began)])
    es.index(index=indexer.today, id=document.id, document=json.loads(document.body), refresh=True)
    es.index(
        index=indexer.today,
        id="broken",
        document={"quarantine": {"error": "x", "raw": "no JSON"}},
        refresh=True,
    )
    assert main(["replay", "--quarantined", *options(es_node, fresh_index_prefix)]) == 1
    found = documents(es, fresh_index_prefix)
    assert found[document.id]["record"] == {"app.bsky.feed.post": {"text": "good"}}
    assert "quarantine" not in found[document.id]
    assert "quarantine" in found["broken"]


@pytest.mark.parametrize("mark", ["resync", "bootstrap"])
def test_replay_of_quarantined_documents_keeps_the_marks_of_repeated_records(
    es: Elasticsearch, es_node: EmbeddedNode, indexer: InProcess, fresh_index_prefix: str, mark: str
) -> None:
    frame = commit(1, {"text": "good"}, at=indexer.began)
    event = json.loads(frame)
    event["commit"][mark] = True
    document = quarantined(event, frame, "host", 1_700_000_000_000_000, "rejected because of a bug")
    indexer.feed([commit(2, {}, at=indexer.began)])
    es.index(index=indexer.today, id=document.id, document=json.loads(document.body), refresh=True)
    assert main(["replay", "--quarantined", *options(es_node, fresh_index_prefix)]) == 0
    found = documents(es, fresh_index_prefix)[document.id]
    assert "quarantine" not in found
    assert found["commit"][mark] is True
