"""Latency to acknowledgement and search, the cost of a slow stream, and the growth of one index."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import WorkerLog, worker
from bench.environment import BenchEnvironment, Usage

TIMED_WORKER = Path(__file__).with_name("timed_worker.py")
_WARM_UP = 5.0


@dataclass(frozen=True)
class Latency:
    """Latencies in seconds, from the generation of an event at the server."""

    events: int
    p50: float
    p99: float
    searchable: float
    """Until a search finds the newest event: the median of some attempts."""


def latency(env: BenchEnvironment, rate: float, seconds: float) -> Latency:
    """Measure the latency to acknowledgement for every event; frames are sent within 20 ms of generation."""
    with env.prefix() as prefix, env.live_jetstream(rate) as url:
        times = env.folder / f"{prefix}.times"
        process = worker(env, url, prefix, program=TIMED_WORKER, times=times)
        try:
            WorkerLog(process).time_of("connected to ")
            time.sleep(_WARM_UP)
            until = time.time() + seconds
            found = list(_until_searchable(env, prefix, until))
        finally:
            process.terminate()
            process.wait()
        # Without the events of the start. All others are acknowledged: the worker has shut down.
        found_times = [
            acknowledged - generated
            for acknowledged, generated in samples(times)
            if until - seconds <= generated <= until - _WARM_UP
        ]
        return Latency(
            len(found_times),
            percentile(found_times, 50),
            percentile(found_times, 99),
            statistics.median(found),
        )


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of values in any order."""
    return sorted(values)[len(values) * percent // 100]


def samples(path: Path) -> Iterator[tuple[float, float]]:
    for line in path.read_text(encoding="ascii").splitlines():
        acknowledged, generated = line.split()
        yield float(acknowledged), float(generated)


def _until_searchable(env: BenchEnvironment, prefix: str, until: float) -> Iterator[float]:
    """Yield the seconds until a search finds an event generated now, repeatedly until `until`."""
    while time.time() < until:
        now = int(time.time() * 1e6)
        query = {"range": {"jetstream.time_us": {"gte": now}}}
        while not env.es.search(index=f"{prefix}-*", query=query, size=0, terminate_after=1)["hits"]["total"][
            "value"
        ]:
            if time.time() > until + 30:
                raise TimeoutError("no new event is found")
            time.sleep(0.05)
        yield time.time() - now / 1e6


def quiet(env: BenchEnvironment, rate: float, seconds: float) -> float:
    """Return the share of one core that the worker uses at `rate` events per second."""
    with env.prefix() as prefix, env.live_jetstream(rate) as url:
        process = worker(env, url, prefix)
        try:
            WorkerLog(process).time_of("connected to ")
            time.sleep(_WARM_UP)
            usage = Usage(process.pid)
            began = time.monotonic()
            time.sleep(seconds)
            return usage.cpu / (time.monotonic() - began)
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True)
class GrowthMark:
    """State at a number of documents: the rate since the previous mark, memory and size."""

    documents: int
    rate: float
    peak_memory: int
    """Bytes of the worker."""
    store_size: int
    """Bytes of the index on disk."""


def growth(env: BenchEnvironment, marks: list[int]) -> Iterator[GrowthMark]:
    """Index in one long run, as fast as events are read; yield a mark at each number of documents."""
    with env.prefix() as prefix, env.live_jetstream(0) as url:
        process = worker(env, url, prefix)
        try:
            WorkerLog(process).time_of("connected to ")
            usage = Usage(process.pid)
            at, before = time.time(), env.indexed(prefix)
            for mark in marks:
                now = env.wait_for(prefix, mark, process, 3600)
                usage.sample()
                indexed = env.indexed(prefix)
                yield GrowthMark(
                    mark, (indexed - before) / (now - at), usage.peak_memory, env.store_size(prefix)
                )
                at, before = time.time(), env.indexed(prefix)
        finally:
            process.terminate()
            process.wait()
