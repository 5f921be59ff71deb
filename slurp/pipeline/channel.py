"""Objects that reader and indexer threads share, and the request to stop them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from slurp.config import Config
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.inactive_accounts import InactiveAccounts
from slurp.pipeline.progress import Counters

_POLL = 0.25


class Shutdown:
    """Request to stop, and the time until which threads may retry what is in flight.

    Attributes:
        stop: set once to stop all threads.
        retry_until: monotonic seconds; None before the shutdown.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.stop = threading.Event()
        self.retry_until: float | None = None
        self._monotonic = monotonic
        self._sleep = sleep

    def is_over(self) -> bool:
        """Return whether the time for retries has passed."""
        return self.retry_until is not None and self._monotonic() >= self.retry_until

    def wait(self, seconds: float) -> None:
        """Sleep between two attempts, at most until `retry_until`, and one poll during the shutdown."""
        until = self._monotonic() + seconds
        while (left := until - self._monotonic()) > 0 and not self.is_over():
            if self.stop.wait(min(left, _POLL)):
                # `stop` is set, so `wait` returns immediately: sleep instead, one poll at most.
                self._sleep(min(left, _POLL))
                return


@dataclass(frozen=True)
class Channel:
    """What readers and indexers share: their queue, counters and request to stop, and the inactive
    accounts."""

    queue: BatchQueue
    counters: Counters
    shutdown: Shutdown = field(default_factory=Shutdown)
    inactive: InactiveAccounts = field(default_factory=InactiveAccounts)

    def put(self, batch: Batch) -> None:
        """Count a batch for which space is reserved as received, and queue it."""
        self.counters.received(batch)
        self.queue.put(batch)

    @classmethod
    def of(cls, config: Config) -> Channel:
        """Return a channel with the bounds of `config` and a counter for each of its readers."""
        readers = len(config.jetstream) if config.redundant else 1
        return cls(
            BatchQueue(config.buffer, config.buffer_bytes),
            Counters(readers, applies_removals=config.applies_deletions),
        )
