"""The environment of all benchmarks: one Elasticsearch node, simulated servers, and new indices."""

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
from slurp.simulator.options import NetworkOptions

PASSWORD = "changeme"  # noqa: S105 - the documented default, on loopback
ROOT = Path(__file__).parents[1]

_POLL = 0.05
_HISTORY = "10m"


class BenchEnvironment:
    """An Elasticsearch node for benchmarks. Use it as a context manager."""

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
        """Yield an unused index prefix; delete its indices afterwards."""
        name = f"bench-{next(self._names)}"
        try:
            yield name
        finally:
            for index in self.es.indices.get(index=f"{name}-*", expand_wildcards="all"):
                self.es.indices.delete(index=index)

    def create_indices(self, prefix: str, days: set[int]) -> None:
        """Create the index template of the worker and the indices of these days."""
        config = parse_options(["--es", self.node.url, "--index", prefix, "--retention", "forever"], {})
        elastic = Elastic(config, Secrets(()))
        setup = Setup(config, committed())
        setup.run(elastic.client)
        for day in days:
            DailyIndices(elastic, prefix, None, setup.put_templates).ensure(day)
        elastic.close()

    def bodies(self, frames: list[bytes], prefix: str, size: int) -> tuple[list[bytes], set[int]]:
        """Return `_bulk` bodies with `size` documents each, as the worker sends them, and their days."""
        now = int(time.time() * 1e6)
        documents = [build(parse(frame), "127.0.0.1", now) for frame in frames]
        lines = [create(f"{prefix}-{day_of(one.day)}", one.id, one.body) + b"\n" for one in documents]
        bodies = [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]
        return bodies, {one.day for one in documents}

    def frames(self, count: int, accounts: int = NetworkOptions().accounts) -> list[bytes]:
        """Return events of a network with so many accounts, as the server sends them on the v1 protocol."""
        network = NetworkOptions(accounts=accounts)
        return Simulator(seed=self._seed, network=network).generate(count, span=600).frames

    def jetstream(self, count: int, *options: str) -> AbstractContextManager[str]:
        """Start a server process that has `count` events ready; yield its URL."""
        return self._jetstream("--rate", "0", "--count", str(count), "--history-span", _HISTORY, *options)

    def live_jetstream(self, rate: float) -> AbstractContextManager[str]:
        """Start a server process that generates `rate` events per second; with 0 as fast as they are read."""
        return self._jetstream("--rate", str(rate))

    @contextmanager
    def _jetstream(self, *options: str) -> Iterator[str]:
        port = free_port()
        command = ["-m", "slurp.simulator", "--port", str(port), "--seed", str(self._seed), *options]
        program = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, cwd=ROOT)
        try:
            assert program.stdout is not None  # noqa: S101
            if not program.stdout.readline():
                raise RuntimeError(f"the simulator exited with code {program.wait()}")
            yield f"ws://127.0.0.1:{port}"
        finally:
            program.terminate()
            program.wait()

    def wait_for(self, prefix: str, count: int, process: subprocess.Popen[str], timeout: float) -> float:
        """Wait until `count` documents are indexed; return the time in Unix seconds. Raises TimeoutError."""
        deadline = time.time() + timeout
        while time.time() < deadline:
            if (indexed := self.indexed(prefix)) >= count:
                return time.time()
            if process.poll() is not None:
                raise RuntimeError(f"the process exited with code {process.returncode}")
            # Each request costs the node CPU time, so there are few until 80% are indexed.
            time.sleep(_POLL if indexed > 0.8 * count else _POLL * 10)
        raise TimeoutError(f"{self.indexed(prefix):,} of {count:,} documents after {timeout:.0f} s")

    def node_usage(self) -> Usage:
        """Measure the Elasticsearch node from now on."""
        pid = self.node.pid
        assert pid is not None  # noqa: S101 - it was started
        return Usage(pid)

    def indexed(self, prefix: str) -> int:
        """Return the number of indexed documents."""
        response = self.es.indices.stats(
            index=f"{prefix}-*", metric="indexing", filter_path="_all.primaries.indexing.index_total"
        )
        found = response.body or {}
        return int(found.get("_all", {}).get("primaries", {}).get("indexing", {}).get("index_total", 0))

    def store_size(self, prefix: str) -> int:
        """Return the bytes on disk."""
        response = self.es.indices.stats(index=f"{prefix}-*", metric="store")
        return int(response["_all"]["primaries"]["store"]["size_in_bytes"])


class Usage:
    """CPU time of a process since the creation of this object, and its peak memory."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._cpu_at_start = self._cpu_seconds()
        self.peak_memory = 0
        """Bytes, the highest of all samples."""

    def sample(self) -> None:
        """Update the peak memory."""
        self.peak_memory = max(self.peak_memory, self._process.memory_info().rss)

    @property
    def cpu(self) -> float:
        """Seconds of CPU time."""
        return self._cpu_seconds() - self._cpu_at_start

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def read_frames(path: Path) -> list[bytes]:
    """Return the frames of a recorded corpus."""
    return [line for line in path.read_bytes().splitlines() if line and orjson.loads(line)]
