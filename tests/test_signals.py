"""Requests to stop: what counts, and that every program ends, at whatever moment they come."""

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
from tests.signal_trials import embedded, run_trial, simulator
from tests.watched import Clock
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


class Counted:
    """Signals at the times of a clock, and the exit codes with which the handler left."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.left: list[int] = []
        self.signals = StopSignals(self.clock, self.left.append)

    def send(self, after: float = 0.0) -> None:
        self.clock.now += after
        self.signals.on_signal(signal.SIGTERM, None)


def test_a_second_signal_counts_after_a_second() -> None:
    counted = Counted()
    assert not counted.signals.requested
    counted.send()
    assert counted.signals.requested
    for after in (0.001, 0.5, 0.45):
        counted.send(after)
        assert not counted.signals.again, "it is the same request"
    counted.send(0.1)
    assert counted.signals.again
    assert counted.left == []


def test_a_second_signal_ends_a_process_whose_main_thread_does_not_look() -> None:
    counted = Counted()
    assert not counted.signals.is_set()
    counted.send(60)
    counted.send(0.5)
    assert counted.left == []
    counted.send(0.6)
    assert counted.left == [1]


def test_waiting_ends_with_the_time() -> None:
    counted = Counted()
    assert not counted.signals.wait(0)
    counted.send()
    assert counted.signals.wait()


@contextmanager
def started(*words: str, cwd: Path, **more: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **more,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_handler(process: subprocess.Popen[str], number: int = signal.SIGHUP) -> None:
    """Wait until the process handles the signal: SIGHUP is not one that Python takes by itself."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught, 16) >> (number - 1) & 1:
            return
        time.sleep(0.002)
    raise AssertionError("it has no handler")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.25])
def test_ctrl_c_in_the_first_moments_makes_no_traceback(program: str, delay: float, tmp_path: Path) -> None:
    with started(*PROGRAMS[program], cwd=tmp_path) as process:
        wait_for_handler(process)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    # The demo has nothing to show then, which it calls a failure.
    assert process.returncode == (1 if program == "demo" else 0), output


@pytest.mark.parametrize(("option", "code"), [("--catch-up", 1), ("--setup-only", 1), ("--no-kibana", 0)])
def test_a_stop_during_the_imports_does_not_pass_for_work_that_is_done(
    option: str, code: int, tmp_path: Path
) -> None:
    with started(str(PROGRAM), "--es", "http://127.0.0.1:1", option, cwd=tmp_path) as process:
        wait_for_handler(process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Shutdown complete" in output
    assert "Jetstream" not in output, "it does not begin"


def test_a_main_thread_that_is_blocked_ends_by_a_second_signal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "password")
    with started(str(PROGRAM), "--es-pass-file", str(tmp_path / "password"), cwd=tmp_path) as process:
        wait_for_handler(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "nobody writes the password"
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert process.poll() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_storm_of_signals_is_one_request(
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
        storm(worker.process, number)
        assert worker.exit_code() == 0
        assert worker.lines[-1].endswith("Shutdown complete")
        assert worker.counted()["in flight"] == 0


@pytest.mark.parametrize("program", ["simulator", "embedded"])
def test_a_storm_of_signals_ends_it(program: str, tmp_path: Path) -> None:
    with started(*PROGRAMS[program], cwd=tmp_path) as process:
        assert process.stdout is not None
        while line := process.stdout.readline():
            if " ready at " in line:
                break
        storm(process, signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def storm(process: subprocess.Popen[str], number: signal.Signals, seconds: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.send_signal(number)


def test_nohup_is_respected(tmp_path: Path) -> None:
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
@pytest.mark.parametrize(("kind", "count"), [(simulator, 3), (embedded, 1)])
def test_two_signals_at_random_moments(kind: Callable[[], object], count: int, tmp_path: Path) -> None:
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        trial = run_trial(kind(), folder, random.Random(f"test {number}"))  # type: ignore[arg-type]
        assert trial.failure == "", trial.lines
