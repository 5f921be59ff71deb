"""`python -m slurp.deadletter replay` as a process: outages of the cluster, and signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode, free_port
from slurp.pipeline.dead_letters import DeadLetter, DeadLetterFile
from tests.harness import InProcess
from tests.proxy import Proxy
from tests.tiers import slow_except
from tests.worker import documents

Start = Callable[..., subprocess.Popen[str]]
FRAMES = 20


@pytest.fixture
def letters(indexer: InProcess, tmp_path: Path) -> Path:
    """Return a file of dead letters that can be indexed now."""
    path = tmp_path / "old-letters.jsonl"
    with DeadLetterFile(path) as file:
        file.write([DeadLetter(frame, "rejected once") for frame in indexer.posts(FRAMES)], "host")
    return path


@pytest.fixture
def start(letters: Path, fresh_index_prefix: str, tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts the command with the Elasticsearch at `127.0.0.1:port`."""
    started: list[subprocess.Popen[str]] = []

    def begin(port: int, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "slurp.deadletter", "replay", str(letters)]
        process = subprocess.Popen(
            [*command, "--es", f"http://127.0.0.1:{port}", "--index", fresh_index_prefix, *options],
            stderr=subprocess.PIPE,
            text=True,
            env={"HOME": str(tmp_path)},
            cwd=Path(__file__).parents[1],
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_replay_stops_without_responses_and_the_next_run_completes(
    es_node: EmbeddedNode, es: Elasticsearch, start: Start, letters: Path, fresh_index_prefix: str
) -> None:
    before = letters.read_bytes()
    with Proxy(es_node.port) as proxy:
        proxy.hold_answers(b"/_bulk")
        process = start(proxy.port, "--wait", "2s")
        _, log = process.communicate(timeout=120)
        assert process.returncode == 1, log
        assert "stopped after 10 s without progress (--wait)" in log
        assert f"{FRAMES} letters = indexed 0 + " in log
        assert f"in flight {FRAMES}" in log
        assert "Traceback" not in log
        assert letters.read_bytes() == before
        assert not Path(f"{letters}.remaining").read_bytes(), "unsent dead letters stay in FILE only"
    process = start(es_node.port)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert len(documents(es, fresh_index_prefix)) == FRAMES
    assert letters.read_bytes() == before


def test_replay_waits_for_the_cluster_then_exits_with_1(start: Start) -> None:
    process = start(free_port(), "--wait", "1s")
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1, log
    assert "is not ready after 1 s" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "number", slow_except([signal.SIGINT, signal.SIGTERM], signal.SIGTERM), ids=lambda number: number.name
)
def test_a_signal_during_a_request_is_one_log_line(
    es_node: EmbeddedNode, start: Start, number: signal.Signals
) -> None:
    with Proxy(es_node.port) as proxy:
        proxy.hold_answers(b"/_bulk")
        process = start(proxy.port)
        deadline = time.monotonic() + 60
        while not proxy.count(b"/_bulk"):
            assert time.monotonic() < deadline, "no bulk request"
            time.sleep(0.05)
        process.send_signal(number)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 1, log
    assert log.count("stopped by a signal") == 1
    assert "Traceback" not in log


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6])
def test_a_signal_during_the_imports_is_one_log_line(start: Start, delay: float) -> None:
    process = start(free_port())
    deadline = time.monotonic() + 60
    while not has_handlers(process.pid, signal.SIGINT, signal.SIGTERM):
        assert time.monotonic() < deadline and process.poll() is None, "no signal handlers installed"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1, log
    assert log.count("stopped by a signal") == 1
    assert "Traceback" not in log


def has_handlers(pid: int, *numbers: signal.Signals) -> bool:
    """Return whether a process has handlers for these signals, from /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return all(caught & 1 << number - 1 for number in numbers)
