"""The status of a worker made of real parts, for tests of health, metrics and page; no thread runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from slurp.config import Config, parse
from slurp.elastic.client import Elastic
from slurp.elastic.outage_log import OutageLog
from slurp.events.position import LIVE, Position
from slurp.logs import Secrets
from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.monitoring.health import Health
from slurp.monitoring.metrics import Metrics
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.ack_tracker import BatchAck
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.channel import Channel
from slurp.pipeline.progress import BatchOutcome, Counters
from slurp.pipeline.reader import Reader, Source
from slurp.pipeline.reader_group import ReaderGroup
from slurp.pipeline.resume import StartPoint
from slurp.watchdog import Watchdog

# No server listens there.
NOWHERE = "http://127.0.0.1:1"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class IdleWorker:
    """`es` is the URL that the probe checks; `clock` is that of watchdog, outage log and probe."""

    def __init__(self, es: str = NOWHERE, *hosts: str, version: str = "1.2.3") -> None:
        self.config: Config = parse(["--es", es, *(f"--jetstream={host}" for host in hosts)], {})
        self.clock = Clock()
        self.secrets = Secrets(self.config.secrets)
        self.channel = Channel(BatchQueue(20_000, 64_000_000), Counters(max(1, len(hosts))))
        self.watchdog = Watchdog(None, clock=self.clock)
        self.outage_log = OutageLog(clock=self.clock)
        self.stop = self.channel.shutdown.stop
        self.status = WorkerStatus(self.channel, self.watchdog, self.outage_log)
        self.probe = ElasticProbe(Elastic(self.config, self.secrets), 1, self.secrets.scrub, self.clock)
        self.health = Health(self.status, self.probe, self.secrets.scrub)
        self.metrics = Metrics(self.status, self.health, self.probe, version)
        self._number = 0

    def finish_startup(self) -> None:
        """Enter the state after the startup: the readers exist and have not connected yet."""
        self.status.starting = ""
        self.status.readers = ReaderGroup(
            [self._reader(number, server) for number, server in enumerate(self.config.jetstream, 1)]
        )

    def _reader(self, number: int, server: str) -> Reader:
        start = StartPoint(Position(server, None, 0), LIVE)
        return Reader(self.config, Source([server], start), self.channel, number)

    def batch(self, events: int) -> Callable[[BatchOutcome], None]:
        """Receive a batch of events. Return a function that acknowledges them with an outcome."""
        self._number += 1
        now_us = int(time.time() * 1e6)
        batch = Batch(self._number, "h", [b"x"] * events, events * 100, Position("h", self._number, now_us))
        self.status.queue.reserve(batch, 0)
        self.status.counters.received(batch)
        self.status.queue.put(batch)

        def acknowledge(outcome: BatchOutcome) -> None:
            self.status.queue.get(0)
            position = BatchAck(batch.position, now_us, arrived_us=now_us, delays_us=(0,))
            self.status.counters.acknowledged(batch, outcome, position)
            self.status.queue.release(batch)

        return acknowledge
