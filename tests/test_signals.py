"""Stop signals: which of them count, and that every program ends whenever they arrive."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slurp.embedded.node import EmbeddedNode
from slurp.process import StopSignals
from slurp.simulator.jetstream import Simulator
from tests.idle_worker import Clock
from tests.signal_trials import embedded, run_trial, simulator
from tests.tiers import slow_except
from tests.worker import PROGRAM, Worker

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "worker": (str(PROGRAM),),
    "simulator": ("-m", "slurp.simulator", "--port", "0"),
    "embedded": ("-m", "slurp.embedded", "--port", "0", "--data", "node"),
    "demo": (
        "-m",
        "slurp.demo",
    ),
}


class SignalHarness:
    """StopSignals with a clock set by the test; `exits` has the exit codes of immediate exits."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.exits: list[int] = []
        self.signals = StopSignals(self.clock, self.exits.append)

    def send(self, after: float = 0.0) -> None:
        self.clock.now += after
        self.signals.on_signal(signal.SIGTERM, None)


def test_a_second_signal_counts_after_one_second() -> None:
    harness = SignalHarness()
    assert not harness.signals.requested
    harness.send()
    assert harness.signals.requested
    for after in (0.001, 0.5, 0.45):
        harness.send(after)
        assert not harness.signals.forced, "less than a second after the first signal"
    harness.send(0.1)
    assert harness.signals.forced
    assert harness.exits == []


def test_a_second_signal_ends_a_process_whose_main_thread_is_blocked() -> None:
    harness = SignalHarness()
    assert not harness.signals.is_set()
    harness.send(60)
    harness.send(0.5)
    assert harness.exits == []
    harness.send(0.6)
    assert harness.exits == [1]


def test_wait_returns_after_its_time_or_a_signal() -> None:
    harness = SignalHarness()
    assert not harness.signals.wait(0)
    harness.send()
    assert harness.signals.wait()


@contextmanager
def started(*words: str, cwd: Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_handler(process: subprocess.Popen[str], number: int = signal.SIGHUP) -> None:
    """Wait until the process has a handler for the signal. Python itself installs none for SIGHUP."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught, 16) >> (number - 1) & 1:
            return
        time.sleep(0.002)
    raise AssertionError("no signal handler was installed")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("delay", slow_except([0.0, 0.1, 0.25], 0.1))
def test_ctrl_c_during_startup_causes_no_traceback(program: str, delay: float, tmp_path: Path) -> None:
    with started(*PROGRAMS[program], cwd=tmp_path) as process:
        wait_for_handler(process)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    # The demo fails if it is stopped before Elasticsearch is ready.
    assert process.returncode == (1 if program == "demo" else 0), output


@pytest.mark.parametrize(("option", "code"), [("--catch-up", 1), ("--setup-only", 1), ("--no-kibana", 0)])
def test_a_stop_during_the_imports_is_not_reported_as_success(option: str, code: int, tmp_path: Path) -> None:
    with started(str(PROGRAM), "--es", "http://127.0.0.1:1", option, cwd=tmp_path) as process:
        wait_for_handler(process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Shutdown complete" in output
    assert "Jetstream" not in output, "the worker must not start"


def test_a_second_signal_ends_a_worker_blocked_in_a_system_call(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "password")
    with started(str(PROGRAM), "--es-pass-file", str(tmp_path / "password"), cwd=tmp_path) as process:
        wait_for_handler(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the worker waits for the password"
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert process.poll() == 1


@pytest.mark.parametrize("number", slow_except([signal.SIGTERM, signal.SIGHUP], signal.SIGTERM))
def test_repeated_signals_are_one_request(
    number: signal.Signals,
    es_node: EmbeddedNode,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    jetstream.run_at(500)
    options = ("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix)
    with Worker(*options, "--no-kibana", home=tmp_path) as worker:
        worker.wait_for("created index")
        send_repeatedly(worker.process, number)
        assert worker.exit_code() == 0
        assert worker.lines[-1].endswith("Shutdown complete")
        assert worker.counted()["in flight"] == 0


@pytest.mark.parametrize("program", slow_except(["simulator", "embedded"], "simulator"))
def test_repeated_signals_stop_the_program_in_order(program: str, tmp_path: Path) -> None:
    with started(*PROGRAMS[program], cwd=tmp_path) as process:
        assert process.stdout is not None
        while line := process.stdout.readline():
            if " ready at " in line:
                break
        send_repeatedly(process, signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def send_repeatedly(process: subprocess.Popen[str], number: signal.Signals, seconds: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.send_signal(number)


def test_sighup_stays_ignored_under_nohup(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started(*PROGRAMS["simulator"], cwd=tmp_path, preexec_fn=ignore) as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


# A few of the trials that `python -m tests.signal_trials` runs by the hundred.
@pytest.mark.parametrize(
    ("kind", "count"), slow_except([(simulator, 3), (embedded, 1)], (simulator, 3), unpack=True)
)
def test_two_signals_at_random_moments(kind: Callable[[], object], count: int, tmp_path: Path) -> None:
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        trial = run_trial(kind(), folder, random.Random(f"test {number}"))  # type: ignore[arg-type]
        assert trial.failure == "", trial.lines
