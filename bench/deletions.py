"""What deletions cost, on daily indices that are full already: rate, latencies and CPU time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import orjson

from bench.contenders import WorkerLog, send_bodies, worker
from bench.environment import BenchEnvironment, Usage
from bench.latency import TIMED_WORKER, percentile, samples
from slurp.events import tid
from slurp.events.times import isoformat, parse_time
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions

Json = dict[str, Any]

DAYS = 31
RATE = 1000
"""Ordinary events per second."""
DELETIONS = 300
"""Deletions per second."""
TURNS = 2
"""How often each phase is measured."""
_WARM_UP = 10.0
_BODY = 2500
_CHUNK = 50_000
_TICK = 0.1
_SETTLE = 60.0
_BIG = "did:plc:" + "z" * 24
"""The account with many records."""


@dataclass(frozen=True)
class Record:
    """A stored record that can be deleted."""

    did: str
    collection: str
    rkey: str


@dataclass(frozen=True)
class Phase:
    """One minute of live events. Times in seconds; CPU times in seconds per second."""

    p50: float
    p99: float
    worker_cpu: float
    node_cpu: float
    applied_p50: float = 0.0
    applied_p99: float = 0.0
    """From the publication of a deletion until the tombstone is written."""

    @property
    def cpu(self) -> float:
        return self.worker_cpu + self.node_cpu

    @classmethod
    def mean(cls, phases: Sequence[Phase]) -> Phase:
        """Return the mean of each figure."""
        return cls(*(sum(values) / len(phases) for values in zip(*map(astuple, phases), strict=True)))


class FullIndices:
    """Daily indices of a month, filled with simulated events, and some of their records."""

    def __init__(self, env: BenchEnvironment, prefix: str, documents: int, account_records: int) -> None:
        self._env = env
        self._prefix = prefix
        self._rng = random.Random(1)
        self.records: list[Record] = []
        self.ordinary: list[Json] = []
        for ago in range(DAYS - 1, -1, -1):
            self._fill(ago, documents // DAYS, account_records // DAYS)
        self._rng.shuffle(self.records)

    def _fill(self, ago: int, documents: int, account_records: int) -> None:
        def clock() -> float:
            return time.time() - ago * 86_400

        simulator = Simulator(seed=ago, clock=clock, network=NetworkOptions(odd_revs=0))
        left = documents
        while left > 0:
            count = min(left, _CHUNK)
            left -= count
            frames = simulator.generate(count, span=60).frames[-count:]
            self._send(frames)
            events = [event for event in map(orjson.loads, frames) if _is_create(event)]
            self.records += [_record(event) for event in self._rng.sample(events, min(4000, len(events)))]
        self.ordinary = [*events][:10_000]
        at = int(clock() * 1e6)
        self._send([_like(at + number) for number in range(account_records)])

    def _send(self, frames: list[bytes]) -> None:
        bodies, days = self._env.bodies(frames, self._prefix, _BODY)
        self._env.create_indices(self._prefix, days)
        _, rejected = send_bodies(self._env, bodies)
        if rejected:
            raise RuntimeError(f"Elasticsearch rejected {rejected[0]}")


class LiveStream:
    """A simulated server that publishes ordinary events, and deletions of stored records."""

    def __init__(self, full: FullIndices) -> None:
        self._full = full
        self._next = 0
        self.published: dict[str, float] = {}

    @contextmanager
    def running(self, deletions: int) -> Iterator[str]:
        """Publish RATE ordinary events and `deletions` per second; yield the URL."""
        stop = threading.Event()
        with Simulator(port=0) as simulator:
            thread = threading.Thread(target=self._publish, args=(simulator, deletions, stop), daemon=True)
            thread.start()
            try:
                yield simulator.url
            finally:
                stop.set()
                thread.join()

    def _publish(self, simulator: Simulator, deletions: int, stop: threading.Event) -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due += _TICK
            now = time.time()
            events = [self._ordinary(number, now) for number in range(int(RATE * _TICK))]
            events += [self._deletion(number, now) for number in range(int(deletions * _TICK))]
            simulator.publish(events)

    def _ordinary(self, number: int, now: float) -> Json:
        event = self._full.ordinary[random.randrange(len(self._full.ordinary))]
        rev = tid.from_micros(int(now * 1e6) + number, random.randrange(1024))
        return {
            "did": event["did"],
            "kind": "commit",
            "commit": event["commit"] | {"rev": rev, "rkey": rev},
        }

    def _deletion(self, number: int, now: float) -> Json:
        record = self._full.records[self._next]
        self._next += 1
        rev = tid.from_micros(int(now * 1e6) + number)
        uri = f"at://{record.did}/{record.collection}/{record.rkey}"
        self.published[uri] = now
        commit = {"operation": "delete", "rev": rev, "collection": record.collection, "rkey": record.rkey}
        return {"did": record.did, "kind": "commit", "commit": commit}


def phase(
    env: BenchEnvironment, prefix: str, live: LiveStream, seconds: float, deletions: int, *options: str
) -> Phase:
    """Run a worker for `seconds` after a warm-up, and until its deletions are applied."""
    live.published.clear()
    times = env.folder / f"{prefix}.times"
    with live.running(deletions) as url:
        process = worker(env, url, prefix, "--since", "live", *options, program=TIMED_WORKER, times=times)
        try:
            WorkerLog(process).time_of("connected to ")
            time.sleep(_WARM_UP)
            usage, node, began = Usage(process.pid), env.node_usage(), time.time()
            time.sleep(seconds)
            until = time.time()
            worker_cpu, node_cpu = usage.cpu / (until - began), node.cpu / (until - began)
            deleted = {uri: at for uri, at in live.published.items() if began <= at <= until}
            applied = _until_applied(env, prefix, deleted) if deleted and not options else [0.0]
        finally:
            process.terminate()
            process.wait()
    found = [acked - made for acked, made in samples(times) if began <= made <= until - 5]
    return Phase(
        percentile(found, 50),
        percentile(found, 99),
        worker_cpu,
        node_cpu,
        percentile(applied, 50),
        percentile(applied, 99),
    )


def _until_applied(env: BenchEnvironment, prefix: str, deleted: dict[str, float]) -> list[float]:
    """Return the seconds from the publication of each deletion to the tombstone."""
    deadline = time.monotonic() + _SETTLE
    while True:
        found = dict(_tombstones(env, prefix, list(deleted)))
        if len(found) >= len(deleted):
            return [found[uri] - at for uri, at in deleted.items()]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(deleted) - len(found)} of {len(deleted)} deletions are not applied")
        time.sleep(1)


def _tombstones(env: BenchEnvironment, prefix: str, uris: list[str]) -> Iterator[tuple[str, float]]:
    env.es.indices.refresh(index=f"{prefix}-*")
    for first in range(0, len(uris), 1000):
        query = {
            "bool": {
                "filter": [
                    {"terms": {"uri": uris[first : first + 1000]}},
                    {"exists": {"field": "redacted.at"}},
                ]
            }
        }
        found = env.es.search(
            index=f"{prefix}-*", query=query, source_includes=["uri", "redacted.at"], size=10_000
        )
        for hit in found["hits"]["hits"]:
            at = parse_time(hit["_source"]["redacted"]["at"])
            yield hit["_source"]["uri"], (at or 0) / 1e6


def hide_account(env: BenchEnvironment, prefix: str) -> tuple[int, float]:
    """Delete the account with many records; return their number and the seconds until all are hidden."""
    query: Json = {"bool": {"filter": [{"term": {"did": _BIG}}, {"term": {"kind": "commit"}}]}}
    total = int(env.es.count(index=f"{prefix}-*", query=query)["count"])
    with Simulator(port=0) as simulator:
        process = worker(env, simulator.url, prefix, "--since", "live")
        try:
            WorkerLog(process).time_of("connected to ")
            began = time.time()
            time_text = isoformat(int(began * 1e6))
            account = {"active": False, "did": _BIG, "seq": 1, "status": "deleted", "time": time_text}
            simulator.publish([{"did": _BIG, "kind": "account", "account": account}])
            hidden = {"bool": {"filter": [{"term": {"did": _BIG}}, {"term": {"hidden": True}}]}}
            while True:
                time.sleep(1)
                env.es.indices.refresh(index=f"{prefix}-*")
                if env.es.count(index=f"{prefix}-*", query=hidden)["count"] >= total:
                    return total, time.time() - began
                if time.time() - began > 600:
                    raise TimeoutError("the account is not hidden")
        finally:
            process.terminate()
            process.wait()


def _is_create(event: Json) -> bool:
    return event["kind"] == "commit" and bool(event["commit"]["operation"] == "create")


def _record(event: Json) -> Record:
    commit = event["commit"]
    return Record(event["did"], commit["collection"], commit["rkey"])


def _like(at: int) -> bytes:
    rkey = tid.from_micros(at)
    record = {
        "$type": "app.bsky.feed.like",
        "createdAt": isoformat(at),
        "subject": {"cid": "bafyrei", "uri": f"at://did:plc:{'y' * 24}/app.bsky.feed.post/{rkey}"},
    }
    commit = {
        "rev": rkey,
        "operation": "create",
        "collection": "app.bsky.feed.like",
        "rkey": rkey,
        "record": record,
        "cid": "bafyrei",
    }
    return orjson.dumps({"did": _BIG, "time_us": at, "cursor": at, "kind": "commit", "commit": commit})
