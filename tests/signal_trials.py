"""Send two SIGTERMs within 3 ms at random times, many times, and check that every program exits.

`python -m tests.signal_trials --worker 300 --simulator 100 --embedded 30` starts each program this many
times. In one trial of three the first signal is sent during the start, in the others 0 to 3 s after the
program is ready; the second one follows 0 to 3 ms later. `--together 2` is the number of concurrent trials,
`--seed 7` repeats the same times. It prints one line for each program, and the log of each trial that hung,
printed a traceback or exited with another code than 0. A signal that arrives before the program has a handler
terminates it; these trials are counted separately. Exit code 0 when every trial passed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from slurp.embedded.data_folder import cache_dir
from slurp.embedded.node import EmbeddedNode
from slurp.simulator.jetstream import Simulator

ROOT = Path(__file__).parents[1]
# Maximum seconds between the two signals, and from the readiness of a program to the first.
MAX_GAP = 0.003
AFTER_READY = 3.0
# Share of the trials that are stopped during the start.
SHARE_DURING_START = 1 / 3
READY_TIMEOUT = 180.0


@dataclass(frozen=True)
class Program:
    """A program: its command for a given folder, and the text of the line that it prints when it is ready."""

    name: str
    command: Callable[[Path], list[str]]
    ready: str
    start_seconds: float
    """Longest delay of a signal during the start."""
    exit_timeout: float
    """Seconds in which it must exit."""


@dataclass
class Trial:
    """The result of one process."""

    program: str
    during_start: bool
    seconds: float
    """From the first signal to the exit."""
    code: int | None
    """None when it did not exit in time."""
    lines: list[str] = field(default_factory=list)

    @property
    def without_handler(self) -> bool:
        """Whether the signal came before the program had a handler."""
        return self.code == -signal.SIGTERM and not self.lines

    @property
    def failure(self) -> str:
        """The failure; an empty string when the trial passed."""
        if self.code is None:
            return "hung"
        if any("Traceback" in line for line in self.lines):
            return "traceback"
        return "" if self.code == 0 or self.without_handler else f"exit code {self.code}"


def run_trial(program: Program, folder: Path, rng: random.Random) -> Trial:
    """Start the program, stop it with two signals, and wait for its exit."""
    during_start = rng.random() < SHARE_DURING_START
    delay = rng.uniform(0, program.start_seconds if during_start else AFTER_READY)
    gap = rng.uniform(0, MAX_GAP)
    lines: list[str] = []
    ready = threading.Event()
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_dir().parent), "HOME": str(folder)}
    process = subprocess.Popen(
        program.command(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if program.ready in line:
                ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not during_start:
            ready.wait(READY_TIMEOUT)
        time.sleep(delay)
        signaled = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(gap)
        process.send_signal(signal.SIGTERM)
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(program.exit_timeout)
        seconds = time.monotonic() - signaled
    finally:
        process.kill()
        process.wait()
    reader.join(5)
    return Trial(program.name, during_start, seconds, code, lines)


def run_trials(program: Program, count: int, seed: int, together: int, home: Path) -> list[Trial]:
    """Run `count` trials of a program; each has its own folder and random numbers."""

    def one(number: int) -> Trial:
        folder = home / f"{program.name}-{number}"
        folder.mkdir()
        return run_trial(program, folder, random.Random(f"{seed} {program.name} {number}"))

    with ThreadPoolExecutor(together) as pool:
        return list(pool.map(one, range(count)))


def simulator() -> Program:
    """Return the simulator."""
    command = [sys.executable, "-m", "slurp.simulator", "--port", "0", "--rate", "500"]
    return Program(
        "simulator", lambda folder: command, "simulator ready at", start_seconds=0.5, exit_timeout=30
    )


def embedded() -> Program:
    """Return the embedded node."""

    def command(folder: Path) -> list[str]:
        return [sys.executable, "-m", "slurp.embedded", "--port", "0", "--data", str(folder / "node")]

    return Program("embedded", command, "Elasticsearch 8", start_seconds=12, exit_timeout=60)


@contextlib.contextmanager
def worker(home: Path) -> Iterator[Program]:
    """Yield the worker, with one node and one simulator for all trials."""
    with (
        EmbeddedNode(home / "shared-node", port=0) as node,
        Simulator(port=0, seed=1) as jetstream,
    ):
        jetstream.run_at(200)

        def command(folder: Path) -> list[str]:
            return [
                *(sys.executable, str(ROOT / "skeetslurper.py"), "--jetstream", jetstream.url),
                *("--es", node.url, "--index", "trials", "--worker-name", folder.name, "--no-kibana"),
                *("--http", "127.0.0.1:0", "--stats-interval", "1s", "--grace", "25s"),
            ]

        yield Program("worker", command, "connected to", start_seconds=1.5, exit_timeout=45)


def report(trials: Sequence[Trial]) -> bool:
    """Print the results; return whether all trials passed."""
    failed = [trial for trial in trials if trial.failure]
    longest = max(trial.seconds for trial in trials)
    started = sum(trial.during_start for trial in trials)
    codes = dict(Counter(trial.code for trial in trials))
    print(
        f"{trials[0].program}: {len(trials)} trials, {started} stopped during the start, "
        f"{sum(trial.code is None for trial in trials)} hung, {len(failed)} failed, "
        f"{sum(trial.without_handler for trial in trials)} without a handler; exit codes {codes}; "
        f"longest shutdown {longest:.1f} s",
        flush=True,
    )
    for trial in failed:
        print(
            f"--- {trial.program}: {trial.failure}, after {trial.seconds:.1f} s",
            *trial.lines[-25:],
            sep="\n",
            flush=True,
        )
    return not failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.signal_trials", description=__doc__)
    for name in ("worker", "simulator", "embedded"):
        parser.add_argument(
            f"--{name}", type=int, default=0, metavar="N", help="number of trials (default: 0)"
        )
    parser.add_argument("--together", type=int, default=2, metavar="N", help="concurrent trials (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    options = parser.parse_args(arguments)
    passed = True
    with tempfile.TemporaryDirectory(prefix="signal-trials-") as folder:
        home = Path(folder)
        for program in (simulator(), embedded()):
            if count := getattr(options, program.name):
                passed &= report(run_trials(program, count, options.seed, options.together, home))
        if options.worker:
            with worker(home) as program:
                passed &= report(run_trials(program, options.worker, options.seed, options.together, home))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
