"""How soon an event is acknowledged and can be found, what a quiet stream costs, and how it grows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Log, worker
from bench.rig import Rig, Usage

_TIMED = Path(__file__).with_name("timed.py")
_SETTLE = 5.0


@dataclass(frozen=True)
class Latency:
    """Seconds from the moment that the server made an event."""

    events: int
    p50: float
    p99: float
    searchable: float
    """The median of some tries: until a search finds what is newest at the server."""


def latency(rig: Rig, rate: float, seconds: float) -> Latency:
    """To the acknowledgement, for every event; the frame comes at most 20 ms after the event is made."""
    with rig.prefix() as prefix, rig.live_jetstream(rate) as url:
        times = rig.folder / f"{prefix}.times"
        process = worker(rig, url, prefix, program=_TIMED, times=times)
        try:
            Log(process).moment_of("connected to ")
            time.sleep(_SETTLE)
            until = time.time() + seconds
            found = list(_until_searchable(rig, prefix, until))
        finally:
            process.terminate()
            process.wait()
        # Not what the start made late. All that were made then are acknowledged: the drain is over.
        samples = [
            acknowledged - made
            for acknowledged, made in _samples(times)
            if until - seconds <= made <= until - _SETTLE
        ]
        samples.sort()
        return Latency(
            len(samples),
            samples[len(samples) // 2],
            samples[len(samples) * 99 // 100],
            statistics.median(found),
        )


def _samples(path: Path) -> Iterator[tuple[float, float]]:
    for line in path.read_text(encoding="ascii").splitlines():
        acknowledged, made = line.split()
        yield float(acknowledged), float(made)


def _until_searchable(rig: Rig, prefix: str, until: float) -> Iterator[float]:
    """Seconds after which the search finds an event that is made now, again and again."""
    while time.time() < until:
        now = int(time.time() * 1e6)
        query = {"range": {"jetstream.time_us": {"gte": now}}}
        while not rig.es.search(index=f"{prefix}-*", query=query, size=0, terminate_after=1)["hits"]["total"][
            "value"
        ]:
            if time.time() > until + 30:
                raise TimeoutError("nothing new can be found")
            time.sleep(0.05)
        yield time.time() - now / 1e6


def quiet(rig: Rig, rate: float, seconds: float) -> float:
    """Share of one core that the worker takes at `rate` events a second."""
    with rig.prefix() as prefix, rig.live_jetstream(rate) as url:
        process = worker(rig, url, prefix)
        try:
            Log(process).moment_of("connected to ")
            time.sleep(_SETTLE)
            usage = Usage(process.pid)
            began = time.monotonic()
            time.sleep(seconds)
            return usage.cpu / (time.monotonic() - began)
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True)
class Mark:
    """After so many documents in the index: the rate since the mark before, and what was held then."""

    documents: int
    rate: float
    rss: int
    store: int
    """Bytes of the index on disk."""


def growth(rig: Rig, marks: list[int]) -> Iterator[Mark]:
    """One long run; events are made as fast as they are read."""
    with rig.prefix() as prefix, rig.live_jetstream(0) as url:
        process = worker(rig, url, prefix)
        try:
            Log(process).moment_of("connected to ")
            usage = Usage(process.pid)
            at, before = time.time(), rig.taken(prefix)
            for mark in marks:
                now = rig.wait_for(prefix, mark, process, 3600)
                usage.look()
                have = rig.taken(prefix)
                yield Mark(mark, (have - before) / (now - at), usage.peak, rig.store(prefix))
                at, before = time.time(), rig.taken(prefix)
        finally:
            process.terminate()
            process.wait()
