"""`python -m tests.disk_week`: index a simulated week at full speed with `--max-disk`, then replay it.

The worker is killed with SIGKILL several times. The size of the node's data folder is measured continuously;
afterwards each event of the kept days must be stored once, and none of the deleted days.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.identity import identify
from slurp.events.times import day_of
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions, ServerOptions
from slurp.units import format_size, parse_size
from tests.fixtures_es import PASSWORD, client_for
from tests.worker import Worker, checkpoint, documents

INDEX = "week"
_DAY = 86_400
# Seconds until the last requests of a killed worker are executed; otherwise the next worker would find a
# checkpoint that is written later.
_LAST_WRITE = 5.0
_WHOLE_WEEK = ServerOptions(lookback=30 * _DAY, retain_bytes=10**10)


@dataclass
class Report:
    """The results. `failures` is empty when the test passed."""

    budget: int
    largest: int = 0
    days_published: int = 0
    days_kept: int = 0
    kept_events: int = 0
    received: int = 0
    expired: int = 0
    kills: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [
            f"--max-disk {format_size(self.budget)}, data folder at most {format_size(self.largest)} "
            f"({self.largest / self.budget:.0%})",
            f"{self.days_kept} of {self.days_published} days kept, with {self.kept_events:,} events",
            f"received {self.received:,} in {self.seconds:.0f} s; the replay: {self.expired:,} expired",
            f"worker killed {self.kills} time(s)",
            *(f"FAILED: {failure}" for failure in self.failures),
        ]


class FolderSize:
    """Measures a folder every 0.1 s; `largest` is the highest size on disk, in bytes."""

    def __init__(self, path: Path) -> None:
        self.largest = 0
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.largest = max(self.largest, self.size())

    def size(self) -> int:
        """Return the current size on disk in bytes."""
        size = 0
        # Files and folders may be deleted meanwhile; `os.walk` passes over folders that are gone.
        for folder, _, files in os.walk(self._path):
            for name in files:
                with suppress(FileNotFoundError):
                    size += Path(folder, name).lstat().st_blocks * 512
        return size

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measure inside the context."""
        self._thread.start()
        yield
        self._stop.set()
        self._thread.join()


def run(folder: Path, *, budget: int, events: int, kills: int = 0, days: int = 7) -> Report:
    """Index a simulated week of `events`, and kill the worker `kills` times meanwhile."""
    report = Report(budget, kills=kills)
    node = EmbeddedNode(folder / "node", port=0, password=PASSWORD)
    disk = FolderSize(node.data)
    with (
        Simulator(seed=7, network=NetworkOptions(odd_revs=0.0), server=_WHOLE_WEEK) as jetstream,
        node,
        client_for(node) as es,
        disk.watched(),
    ):
        jetstream.generate(events, span=(days - 0.5) * _DAY)
        # Live events: their times mark the earlier days as complete.
        jetstream.run_at(20)
        options = (
            *("--jetstream", jetstream.url, "--es", node.url, "--index", INDEX, "--no-kibana"),
            *("--max-disk", str(budget), "--retention", "forever", "--stats-interval", "1s", "--since", "0"),
        )
        began = time.monotonic()
        for _ in range(kills):
            _read_until_killed(folder, options, random.Random(7))
        _read(es, jetstream, folder, options, report)
        report.seconds = time.monotonic() - began
        _check(es, jetstream, report, "after the week")
        before = set(es.indices.get(index=f"{INDEX}-*"))
        with Worker(*options, "--replay-from", "0", "--catch-up", home=folder) as worker:
            if worker.exit_code(600):
                report.failures.append(f"the replay exited with code {worker.process.returncode}")
            counted = worker.counted()
        report.expired = counted["expired"]
        if recreated := set(es.indices.get(index=f"{INDEX}-*")) - before:
            report.failures.append(f"the replay recreated {sorted(recreated)}")
        if counted["indexed"]:
            report.failures.append(f"the replay indexed {counted['indexed']:,} events")
        _check(es, jetstream, report, "after the replay")
    report.largest = disk.largest
    if report.largest > budget * 1.1:
        report.failures.append(f"the data folder had {format_size(report.largest)}")
    return report


def _read_until_killed(folder: Path, options: tuple[str, ...], rng: random.Random) -> None:
    with Worker(*options, home=folder) as worker:
        worker.wait_for(r"deleted week-", timeout=600)
        time.sleep(rng.random())
        worker.kill()
    time.sleep(_LAST_WRITE)


def _read(
    es: Elasticsearch, jetstream: Simulator, folder: Path, options: tuple[str, ...], report: Report
) -> None:
    """Read up to now, stop the live events, and read the rest."""
    with Worker(*options, home=folder) as worker:
        worker.wait_for(r"lag (\d+\.\d|[1-5]\d|\d)s ", timeout=1200)
        jetstream.pause()
        last = orjson.loads(jetstream.frames[-1])["cursor"]
        deadline = time.monotonic() + 60
        while (checkpoint(es, INDEX) or {})["cursor"] != last and time.monotonic() < deadline:
            time.sleep(0.5)
        if worker.stop():
            report.failures.append(f"the worker exited with code {worker.process.returncode}")
        counted = worker.counted()
        report.received = counted.pop("received")
        if report.received != sum(counted.values()):
            report.failures.append(f"the counters do not add up: {report.received}, {counted}")


def _check(es: Elasticsearch, jetstream: Simulator, report: Report, when: str) -> None:
    indices = sorted(es.indices.get(index=f"{INDEX}-*"))
    lowest = indices[0]
    expected: set[str] = set()
    days: set[str] = set()
    for frame in jetstream.frames:
        identity = identify(orjson.loads(frame))
        day = f"{INDEX}-{day_of(identity.instant_us // 86_400_000_000)}"
        days.add(day)
        if day >= lowest:
            expected.add(identity.id)
    found = documents(es, INDEX).keys()
    report.days_published, report.days_kept = len(days), len(indices)
    report.kept_events = len(expected)
    if missing := expected - found:
        report.failures.append(f"{when} {len(missing):,} events of the kept days are missing")
    if extra := found - expected:
        report.failures.append(f"{when} {len(extra):,} unexpected events are stored")


def main() -> int:
    """Return 0 when the folder stayed below 110% of the budget and the expected events are indexed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.disk_week", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--max-disk", type=parse_size, default=300 * 10**6, help="disk space for the days (default: 300MB)"
    )
    parser.add_argument(
        "--events", type=int, default=1_500_000, help="events of the week (default: %(default)s)"
    )
    parser.add_argument("--kills", type=int, default=2, help="kills of the worker (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skeetslurper-week-") as folder:
        report = run(Path(folder), budget=options.max_disk, events=options.events, kills=options.kills)
    print("\n".join(report.lines()))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
