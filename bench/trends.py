"""What trends cost: the hours and the day of one large daily index."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bench.contenders import send_bodies
from bench.environment import BenchEnvironment, Usage
from slurp.actors.names import Actors
from slurp.config import parse
from slurp.deletions.versions import RatePause, Versions
from slurp.elastic.client import Elastic
from slurp.events.times import DAY_US
from slurp.logs import Secrets
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions
from slurp.trends.computing import Trends
from slurp.trends.intervals import DAY, HOUR_US, Interval

_CHUNK = 50_000
_BODY = 2500


@dataclass(frozen=True)
class Cost:
    """The computation of one hour or day: CPU times and duration in seconds, and rows."""

    documents: int
    node_cpu: float
    worker_cpu: float
    seconds: float

    @property
    def cpu(self) -> float:
        return self.node_cpu + self.worker_cpu


class LargeDay:
    """The daily index of yesterday, with simulated events in all of its hours."""

    def __init__(self, env: BenchEnvironment, prefix: str, documents: int) -> None:
        self._env = env
        self.documents = documents
        self.day_us = (int(time.time() * 1e6) // DAY_US - 1) * DAY_US
        options = ["--es", env.node.url, "--index", prefix, "--retention", "forever", "--appview", "off"]
        config = parse(options, {})
        self._elastic = Elastic(config, Secrets(()))
        self._fill(prefix)
        env.es.indices.refresh(index=f"{prefix}-*")
        versions = Versions(self._elastic, prefix, RatePause(1, threading.Event()))
        self._trends = Trends(self._elastic, prefix, versions, Actors(self._elastic, prefix, None))

    def _fill(self, prefix: str) -> None:
        chunks = max(1, self.documents // _CHUNK)
        span = DAY_US / 1e6 / chunks
        at = self.day_us / 1e6
        simulator = Simulator(
            seed=1, clock=lambda: at, network=NetworkOptions(accounts=200_000, odd_revs=0.0)
        )
        for _ in range(chunks):
            at += span
            frames = simulator.generate(_CHUNK, span=span * 0.99).frames[-_CHUNK:]
            bodies, days = self._env.bodies(frames, prefix, _BODY)
            self._env.create_indices(prefix, days)
            _, rejected = send_bodies(self._env, bodies)
            if rejected:
                raise RuntimeError(f"Elasticsearch rejected {rejected[0]}")

    @property
    def start(self) -> datetime:
        return datetime.fromtimestamp(self.day_us / 1e6, UTC)

    def compute(self, hour: int | None) -> Cost:
        """Compute an hour of the day, or all of it with None."""
        interval = Interval(self.day_us, DAY) if hour is None else Interval(self.day_us + hour * HOUR_US)
        node, worker = Usage(self._env.node.pid or 0), time.process_time()
        began = time.monotonic()
        self._trends.compute(interval, generation=int(time.time() * 1000))
        documents = self.documents if hour is None else self.documents // 24
        return Cost(documents, node.cpu, time.process_time() - worker, time.monotonic() - began)

    def breakers(self) -> dict[str, Any]:
        """Return how often each circuit breaker of the node has tripped, and its highest estimate."""
        stats = self._env.es.nodes.stats(metric="breaker")
        [node] = stats["nodes"].values()
        return {name: breaker["tripped"] for name, breaker in node["breakers"].items()}
