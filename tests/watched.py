"""A worker's vitals made of real parts, for what shows them; nothing runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from slurp.config import Config, parse
from slurp.elastic.client import Elastic
from slurp.elastic.outage_log import OutageLog
from slurp.events.position import LIVE, Position
from slurp.jetstream.subscription import Subscription
from slurp.logs import Secrets
from slurp.monitoring.elastic_probe import Probe
from slurp.monitoring.health import Health
from slurp.monitoring.metrics import Metrics
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.progress import BatchAck, Counters, Outcome
from slurp.pipeline.reader import Reader
from slurp.pipeline.reader_group import ReaderGroup
from slurp.watchdog import Watchdog

# Nobody listens there.
NOWHERE = "http://127.0.0.1:1"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """`es` is the address that the probe asks. `clock` is the watchdog's, the patience's and the probe's."""

    def __init__(self, es: str = NOWHERE, *hosts: str, version: str = "1.2.3") -> None:
        self.config: Config = parse(["--es", es, *(f"--jetstream={host}" for host in hosts)], {})
        self.clock = Clock()
        self.secrets = Secrets(self.config.secrets)
        counters = Counters(max(1, len(hosts)))
        buffer = BatchQueue(20_000, 64_000_000)
        self.watchdog = Watchdog(None, clock=self.clock)
        self.outage_log = OutageLog(clock=self.clock)
        self.stop = threading.Event()
        self.status = WorkerStatus(counters, buffer, self.watchdog, self.outage_log, self.stop)
        self.probe = Probe(Elastic(self.config, self.secrets), 1, self.secrets.scrub, self.clock)
        self.health = Health(self.status, self.probe, self.secrets.scrub)
        self.metrics = Metrics(self.status, self.health, self.probe, version)
        self._number = 0

    def reads(self) -> None:
        """The start-up is over: there are readers, which have not connected yet."""
        self.status.starting = ""
        self.status.readers = ReaderGroup(
            [self._reader(number, server) for number, server in enumerate(self.config.jetstream, 1)]
        )

    def _reader(self, number: int, server: str) -> Reader:
        start = Position(server, None, 0)
        return Reader(
            *(self.config, Subscription.of(self.config), [server], self.status.buffer, self.status.counters),
            *(self.stop, start),
            start=LIVE,
            number=number,
        )

    def batch(self, events: int) -> Callable[[Outcome], None]:
        """Events arrive; call what comes back with how they ended."""
        self._number += 1
        now_us = int(time.time() * 1e6)
        batch = Batch(self._number, "h", [b"x"] * events, events * 100, Position("h", self._number, now_us))
        self.status.buffer.reserve(batch, 0)
        self.status.counters.received(batch)
        self.status.buffer.put(batch)

        def answered(outcome: Outcome) -> None:
            self.status.buffer.get(0)
            position = BatchAck(batch.position, now_us, arrived_us=now_us, delays_us=(0,))
            self.status.counters.answered(batch, outcome, position)
            self.status.buffer.release(batch)

        return answered
