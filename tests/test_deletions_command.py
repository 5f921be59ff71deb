"""`python -m slurp.deletions`: requests, verification, confirmation; and replayed dead letters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.deletions.__main__ import main
from slurp.deletions.applied import Applied
from slurp.pipeline.dead_letters import DeadLetter, DeadLetterFile
from tests.deleting_network import DID, OTHER, TOMBSTONE, Network, id_of
from tests.harness import InProcess
from tests.worker import documents

pytestmark = pytest.mark.usefixtures("restored_root_logger")

URI = f"at://{DID}/app.bsky.feed.post/one"


class Tool:
    """The command on the index of a test."""

    def __init__(self, indexer: InProcess, capfd: pytest.CaptureFixture[str]) -> None:
        self._options = ["--es", indexer.config.es[0], "--index", indexer.index]
        self._capfd = capfd
        self.log = ""

    def __call__(self, *arguments: str) -> int:
        """Return the exit code; `log` is what it logged."""
        self._capfd.readouterr()
        code = main([*arguments, *self._options])
        self.log = self._capfd.readouterr().err
        return code


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def tool(indexer: InProcess, capfd: pytest.CaptureFixture[str]) -> Tool:
    return Tool(indexer, capfd)


def test_a_request_removes_all_versions_of_a_record(
    indexer: InProcess, es: Elasticsearch, network: Network, tool: Tool
) -> None:
    frames = [network.commit("create"), network.commit("update"), network.commit("create", "two")]
    indexer.feed(frames)
    before = documents(es, indexer.index)
    assert tool("--uri", URI) == 0
    assert "2 document(s) would lose their content; add --yes to do it" in tool.log
    assert documents(es, indexer.index) == before
    assert tool("--uri", URI, "--yes") == 0
    assert "2 document(s) have lost their content" in tool.log
    found = documents(es, indexer.index)
    for frame in frames[:2]:
        assert found[id_of(frame)].keys() == TOMBSTONE
        assert found[id_of(frame)]["redacted"]["reason"] == "request"
    assert found[id_of(frames[2])] == before[id_of(frames[2])]
    assert tool("--uri", URI, "--yes") == 0
    assert "no documents with content" in tool.log
    indexer.feed(frames)
    assert documents(es, indexer.index) == found


def test_a_request_removes_all_documents_of_an_account(
    indexer: InProcess, es: Elasticsearch, network: Network, tool: Tool
) -> None:
    own = [network.commit("create"), network.identity("alice.example"), network.commit("delete", "x")]
    other = network.commit("create", did=OTHER)
    indexer.feed([*own, other])
    assert tool("--did", DID, "--yes") == 0
    found = documents(es, indexer.index)
    assert DID not in str([found[id_of(one)] for one in own])
    assert found[id_of(other)]["text"]


def test_verify_reports_and_applies_what_was_kept(
    indexer: InProcess, es: Elasticsearch, network: Network, tool: Tool
) -> None:
    """As after --deletions keep, an upgrade, or the restore of a snapshot."""
    post, kept = network.commit("create"), network.commit("create", "two")
    hidden = network.commit("create", did=OTHER)
    indexer.feed([post, kept, hidden, network.commit("delete"), network.account(False, "takendown", OTHER)])
    assert tool("--verify") == 1
    assert "2 document(s) are not as the stored deletions require" in tool.log
    assert URI in tool.log
    applied = Applied(indexer.elastic, indexer.index)
    assert not applied.is_recorded()
    assert tool("--verify", "--yes") == 0
    found = documents(es, indexer.index)
    assert found[id_of(post)]["redacted"]["reason"] == "deleted"
    assert found[id_of(hidden)]["hidden"] is True
    assert found[id_of(kept)]["text"] and "hidden" not in found[id_of(kept)]
    assert applied.is_recorded()
    assert tool("--verify") == 0
    assert "all documents are as the stored deletions require" in tool.log


def test_verify_finds_nothing_wrong_after_the_engine(
    indexer: InProcess, es: Elasticsearch, network: Network, tool: Tool
) -> None:
    post = network.commit("create")
    indexer.feed([post, network.commit("create", did=OTHER), network.account(False, "deleted", OTHER)])
    indexer.feed([network.commit("delete")])
    while indexer.deletions.step():
        pass
    assert tool("--verify") == 0


def test_the_brake_is_confirmed(indexer: InProcess, tool: Tool) -> None:
    assert tool("--confirm") == 0
    assert "no deleted accounts wait for confirmation" in tool.log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --did --uri --verify --confirm is required"),
        (["--did", "alice.example"], "--did: not a DID: 'alice.example' (use the form did:plc:…)"),
        (["--uri", "https://bsky.app/x"], "--uri: not an AT URI with a DID"),
        (["--did", DID, "--verify"], "not allowed with argument"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


def test_replayed_dead_letters_meet_the_deletions_that_are_stored(
    indexer: InProcess, es: Elasticsearch, network: Network, tmp_path: Path
) -> None:
    """A post was rejected; meanwhile it was deleted, and another account was taken down."""
    post, hidden = network.commit("create"), network.commit("create", did=OTHER)
    edit, old = (
        network.commit("update", "two"),
        network.commit("create", "two", at=network.now_us - 5_000_000),
    )
    indexer.feed([network.commit("delete"), network.account(False, "takendown", OTHER), edit])
    while indexer.deletions.step():
        pass
    letters = tmp_path / "rejected.jsonl"
    with DeadLetterFile(letters) as file:
        file.write([DeadLetter(frame, "rejected once") for frame in (post, hidden, old)], "host")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "slurp.deadletter", "replay", str(letters)),
            *("--es", indexer.config.es[0], "--index", indexer.index),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={"HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = documents(es, indexer.index)
    assert found[id_of(post)]["redacted"]["reason"] == "deleted"
    assert found[id_of(old)]["redacted"]["reason"] == "updated"
    assert found[id_of(hidden)]["hidden"] is True
    assert found[id_of(edit)]["text"]
