"""What a running worker knows of itself, for whoever shows it. The service fills it in as it starts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from slurp.elastic.client import REQUEST_TIMEOUT
from slurp.elastic.outage_log import OutageLog
from slurp.pipeline.batches import BatchQueue
from slurp.pipeline.disk_budget import DiskBudget
from slurp.pipeline.progress import Counters
from slurp.pipeline.reader_group import ReaderGroup
from slurp.watchdog import Watchdog

# How the names of indexers begin, of the threads and of their pulses.
INDEXER = "indexer-"

# Seconds. Most answers take less than one.
_SLOW = 20.0


@dataclass
class WorkerStatus:
    """Times are of the monotonic clock. Only the service writes."""

    counters: Counters
    buffer: BatchQueue
    watchdog: Watchdog
    outage_log: OutageLog
    stop: threading.Event
    began: float = field(default_factory=time.monotonic)
    began_at: float = field(default_factory=time.time)
    # The step of the start-up that is under way, '' once events are read.
    starting: str = "starting"
    readers: ReaderGroup | None = None
    # When the checkpoint last held all that was answered for.
    saved: float | None = None
    # What is wrong with the clock of this machine, '' if nothing.
    clock_trouble: str = ""
    # None before the set-up.
    disk: DiskBudget | None = None

    @property
    def checkpoint_age(self) -> float | None:
        """Seconds for which there may have been answers that the checkpoint does not know of."""
        return None if self.saved is None else time.monotonic() - self.saved

    @property
    def unanswered(self) -> float:
        """While all indexers wait long for Elasticsearch: the longest wait, in seconds. Else 0."""
        waits = self._waits()
        return max(waits) if min(waits, default=0.0) > _SLOW else 0.0

    @property
    def waiting(self) -> str:
        """What is to be said of indexers that wait for an answer, '' if nothing: one that never comes
        makes no error until its request is given up."""
        waits = self._waits()
        long = [wait for wait in waits if wait > _SLOW]
        if not long or self.outage_log.is_failing:
            return ""
        return (
            f"Elasticsearch: no answer to {len(long)} of {len(waits)} indexers, for "
            f"{max(long):.0f} s now; after {REQUEST_TIMEOUT:.0f} s a request is given up and sent again"
        )

    def _waits(self) -> list[float]:
        """Seconds since each indexer last came round, which only a request keeps it from for long."""
        return [one.still_for for one in self.watchdog.pulses if one.name.startswith(INDEXER)]

    @property
    def lag(self) -> float | None:
        """Seconds between now and the time of the newest acknowledged event, robust against odd ones."""
        newest = self.counters.snapshot().newest_us
        return None if newest is None else time.time() - newest / 1e6
