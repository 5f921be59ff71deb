"""Two SIGTERMs within 3 ms, at random moments, many times: does every program end?

`python -m tests.signal_trials --worker 300 --simulator 100 --embedded 30` starts each program so many times.
In one life of three the first signal comes during the start, in the others 0 to 3 s after the program is
ready; the second one follows 0 to 3 ms later. `--together 2` is how many lives run at once, `--seed 7` gives
the same moments again. It prints one line for each kind of program, and the log of each life that hung,
printed a traceback or ended with another code than 0. A signal that arrives before the program has its
handler ends it by that signal; these lives are counted apart. Exit code 0 when every life ended as asked.
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
# Between the two signals, and from a program's readiness to the first.
APART = 0.003
AFTER_READY = 3.0
# Of these lives, the share that is stopped while it starts.
DURING_START = 1 / 3
READY_WITHIN = 180.0


@dataclass(frozen=True)
class Kind:
    """A program: its command, given a folder of its own, and the line that it prints when it is ready.

    `start` is how long it starts at most, `within` how long its end may take, both in seconds.
    """

    name: str
    command: Callable[[Path], list[str]]
    ready: str
    start: float
    within: float


@dataclass
class Life:
    """What became of one process."""

    kind: str
    during_start: bool
    took: float
    code: int | None
    lines: list[str] = field(default_factory=list)

    @property
    def unborn(self) -> bool:
        """Whether the signal came before the program had a handler."""
        return self.code == -signal.SIGTERM and not self.lines

    @property
    def fault(self) -> str:
        """What is wrong with it; '' when nothing is."""
        if self.code is None:
            return "hung"
        if any("Traceback" in line for line in self.lines):
            return "traceback"
        return "" if self.code == 0 or self.unborn else f"exit code {self.code}"


def live(kind: Kind, folder: Path, chance: random.Random) -> Life:
    """Start the program, stop it by two signals, and wait for its end."""
    during_start = chance.random() < DURING_START
    delay = chance.uniform(0, kind.start if during_start else AFTER_READY)
    apart = chance.uniform(0, APART)
    lines: list[str] = []
    ready = threading.Event()
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_dir().parent), "HOME": str(folder)}
    process = subprocess.Popen(
        kind.command(folder),
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
            if kind.ready in line:
                ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not during_start:
            ready.wait(READY_WITHIN)
        time.sleep(delay)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(apart)
        process.send_signal(signal.SIGTERM)
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(kind.within)
        took = time.monotonic() - asked
    finally:
        process.kill()
        process.wait()
    reader.join(5)
    return Life(kind.name, during_start, took, code, lines)


def trials(kind: Kind, count: int, seed: int, together: int, home: Path) -> list[Life]:
    """So many lives of a program; each has a folder and a sequence of random numbers of its own."""

    def one(number: int) -> Life:
        folder = home / f"{kind.name}-{number}"
        folder.mkdir()
        return live(kind, folder, random.Random(f"{seed} {kind.name} {number}"))

    with ThreadPoolExecutor(together) as pool:
        return list(pool.map(one, range(count)))


def simulator() -> Kind:
    command = [sys.executable, "-m", "slurp.simulator", "--port", "0", "--rate", "500"]
    return Kind("simulator", lambda folder: command, "simulator ready at", start=0.5, within=30)


def embedded() -> Kind:
    def command(folder: Path) -> list[str]:
        return [sys.executable, "-m", "slurp.embedded", "--port", "0", "--data", str(folder / "node")]

    return Kind("embedded", command, "Elasticsearch 8", start=12, within=60)


@contextlib.contextmanager
def worker(home: Path) -> Iterator[Kind]:
    """The worker, on one node and one simulator for all its lives."""
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

        yield Kind("worker", command, "connected to", start=1.5, within=45)


def report(lives: Sequence[Life]) -> bool:
    """Print what came of them; whether all ended as asked."""
    faults = [life for life in lives if life.fault]
    longest = max(life.took for life in lives)
    started = sum(life.during_start for life in lives)
    codes = dict(Counter(life.code for life in lives))
    print(
        f"{lives[0].kind}: {len(lives)} lives, {started} stopped during the start, "
        f"{sum(life.code is None for life in lives)} hung, {len(faults)} not as asked, "
        f"{sum(life.unborn for life in lives)} before they had a handler; exit codes {codes}; "
        f"the longest end took {longest:.1f} s",
        flush=True,
    )
    for life in faults:
        print(
            f"--- {life.kind}: {life.fault}, after {life.took:.1f} s", *life.lines[-25:], sep="\n", flush=True
        )
    return not faults


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.signal_trials", description=__doc__)
    for name in ("worker", "simulator", "embedded"):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help="lives (default: 0)")
    parser.add_argument("--together", type=int, default=2, metavar="N", help="at once (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    options = parser.parse_args(arguments)
    fine = True
    with tempfile.TemporaryDirectory(prefix="signal-trials-") as folder:
        home = Path(folder)
        for kind in (simulator(), embedded()):
            if count := getattr(options, kind.name):
                fine &= report(trials(kind, count, options.seed, options.together, home))
        if options.worker:
            with worker(home) as kind:
                fine &= report(trials(kind, options.worker, options.seed, options.together, home))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
