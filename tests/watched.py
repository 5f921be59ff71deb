"""A worker's vitals made of real parts, for what shows them; nothing runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from slurp.config import Config, parse
from slurp.elastic.client import Elastic, Patience
from slurp.flow import Batch, Buffer
from slurp.heartbeat import Watchdog
from slurp.http.health import Health
from slurp.http.metrics import Metrics
from slurp.http.probe import Probe
from slurp.jetstream.reader import Reader
from slurp.jetstream.readers import Readers
from slurp.jetstream.subscription import Subscription
from slurp.logs import Secrets
from slurp.position import LIVE, Answered, Position
from slurp.tally import Outcome, Tally
from slurp.vitals import Vitals

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
        tally = Tally(max(1, len(hosts)))
        buffer = Buffer(20_000, 64_000_000)
        self.watchdog = Watchdog(None, clock=self.clock)
        self.patience = Patience(clock=self.clock)
        self.stop = threading.Event()
        self.vitals = Vitals(tally, buffer, self.watchdog, self.patience, self.stop)
        self.probe = Probe(Elastic(self.config, self.secrets), 1, self.secrets.scrub, self.clock)
        self.health = Health(self.vitals, self.probe, self.secrets.scrub)
        self.metrics = Metrics(self.vitals, self.health, self.probe, version)
        self._number = 0

    def reads(self) -> None:
        """The start-up is over: there are readers, which have not connected yet."""
        self.vitals.starting = ""
        self.vitals.readers = Readers(
            [self._reader(number, server) for number, server in enumerate(self.config.jetstream, 1)]
        )

    def _reader(self, number: int, server: str) -> Reader:
        start = Position(server, None, 0)
        return Reader(
            *(self.config, Subscription.of(self.config), [server], self.vitals.buffer, self.vitals.tally),
            *(self.stop, start),
            start=LIVE,
            number=number,
        )

    def batch(self, events: int) -> Callable[[Outcome], None]:
        """Events arrive; call what comes back with how they ended."""
        self._number += 1
        now_us = int(time.time() * 1e6)
        batch = Batch(self._number, "h", [b"x"] * events, events * 100, Position("h", self._number, now_us))
        self.vitals.buffer.reserve(batch, 0)
        self.vitals.tally.received(batch)
        self.vitals.buffer.put(batch)

        def answered(outcome: Outcome) -> None:
            self.vitals.buffer.get(0)
            position = Answered(batch.position, now_us, arrived_us=now_us, delays_us=(0,))
            self.vitals.tally.answered(batch, outcome, position)
            self.vitals.buffer.release(batch)

        return answered
