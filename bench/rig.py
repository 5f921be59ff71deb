"""What every contender shares: one warm node, one Jetstream with all events ready, fresh indices."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
import psutil
from elasticsearch import Elasticsearch

from slurp.config import parse as parse_options
from slurp.documents.document import build
from slurp.elastic.bulk import create
from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.setup import Setup
from slurp.embedded.node import EmbeddedNode, NodeOptions, free_port
from slurp.events.frames import parse
from slurp.events.times import day_of
from slurp.lexicons import committed
from slurp.logs import Secrets
from slurp.simulator.jetstream import Simulator

PASSWORD = "changeme"  # noqa: S105 - the documented default, on loopback
ROOT = Path(__file__).parents[1]

_POLL = 0.05
_HISTORY = "10m"


class Rig:
    """Use as a context. `prefix()` makes a fresh set of day indices under our template."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._names = itertools.count(1)
        self._temporary = tempfile.TemporaryDirectory(prefix="skeetslurper-bench-")
        self.folder = Path(self._temporary.name)
        self.node = EmbeddedNode(
            self.folder / "node", port=0, password=PASSWORD, options=NodeOptions(heap="1g")
        )

    def __enter__(self) -> Self:
        self.node.start()
        self.es = Elasticsearch(
            self.node.url, basic_auth=("elastic", PASSWORD), max_retries=0, request_timeout=120
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.es.close()
        self.node.stop()
        self._temporary.cleanup()

    @contextmanager
    def prefix(self) -> Iterator[str]:
        """A prefix nobody has used; everything under it is deleted afterwards."""
        name = f"bench-{next(self._names)}"
        try:
            yield name
        finally:
            for index in self.es.indices.get(index=f"{name}-*", expand_wildcards="all"):
                self.es.indices.delete(index=index)

    def make_indices(self, prefix: str, days: set[int]) -> None:
        config = parse_options(["--es", self.node.url, "--index", prefix, "--retention", "forever"], {})
        elastic = Elastic(config, Secrets(()))
        work = Setup(config, committed())
        work.run(elastic.client)
        for day in days:
            DailyIndices(elastic, prefix, None, work.put_templates).ensure(day)
        elastic.close()

    def bodies(self, frames: list[bytes], prefix: str, size: int) -> tuple[list[bytes], set[int]]:
        """The `_bulk` bodies of our documents, `size` of them in each, and the days they go to."""
        now = int(time.time() * 1e6)
        documents = [build(parse(frame), "127.0.0.1", now) for frame in frames]
        lines = [create(f"{prefix}-{day_of(one.day)}", one.id, one.body) + b"\n" for one in documents]
        portions = [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]
        return portions, {one.day for one in documents}

    def frames(self, count: int) -> list[bytes]:
        """Events as the Jetstream of this rig sends them, by the v1 wire."""
        return Simulator(seed=self._seed).generate(count, span=600).frames

    def jetstream(self, count: int) -> AbstractContextManager[str]:
        """A server in a process of its own that has `count` events ready; its URL."""
        return self._jetstream("--rate", "0", "--count", str(count), "--history-span", _HISTORY)

    def live_jetstream(self, rate: float) -> AbstractContextManager[str]:
        """A server that makes `rate` events a second; 0 is as fast as they are read."""
        return self._jetstream("--rate", str(rate))

    @contextmanager
    def _jetstream(self, *options: str) -> Iterator[str]:
        port = free_port()
        command = ["-m", "slurp.simulator", "--port", str(port), "--seed", str(self._seed), *options]
        program = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, cwd=ROOT)
        try:
            assert program.stdout is not None  # noqa: S101
            if not program.stdout.readline():
                raise RuntimeError(f"the simulator ended with {program.wait()}")
            yield f"ws://127.0.0.1:{port}"
        finally:
            program.terminate()
            program.wait()

    def wait_for(self, prefix: str, count: int, process: subprocess.Popen[str], timeout: float) -> float:
        """The moment (Unix seconds) at which `count` documents were taken."""
        deadline = time.time() + timeout
        while time.time() < deadline:
            if (taken := self.taken(prefix)) >= count:
                return time.time()
            if process.poll() is not None:
                raise RuntimeError(f"it ended with {process.returncode}")
            # Each question costs the node something, so far from the end there are few.
            time.sleep(_POLL if taken > 0.8 * count else _POLL * 10)
        raise TimeoutError(f"{self.taken(prefix):,} of {count:,} documents after {timeout:.0f} s")

    def node_usage(self) -> Usage:
        """Of the Elasticsearch node, from now on."""
        pid = self.node.pid
        assert pid is not None  # noqa: S101 - it was started
        return Usage(pid)

    def taken(self, prefix: str) -> int:
        answer = self.es.indices.stats(
            index=f"{prefix}-*", metric="indexing", filter_path="_all.primaries.indexing.index_total"
        )
        found = answer.body or {}
        return int(found.get("_all", {}).get("primaries", {}).get("indexing", {}).get("index_total", 0))

    def store(self, prefix: str) -> int:
        """Bytes on disk."""
        answer = self.es.indices.stats(index=f"{prefix}-*", metric="store")
        return int(answer["_all"]["primaries"]["store"]["size_in_bytes"])


class Usage:
    """CPU and memory of a process while it works; sampled on a thread."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._begin = self._seconds()
        self.peak = 0

    def look(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)

    @property
    def cpu(self) -> float:
        """Seconds of CPU since it was made."""
        return self._seconds() - self._begin

    def _seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def jsonl(path: Path) -> list[bytes]:
    """The frames of a recorded corpus."""
    return [line for line in path.read_bytes().splitlines() if line and orjson.loads(line)]
