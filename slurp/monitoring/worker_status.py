"""State of a running worker, for the stats line, the health checks, the metrics and the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from slurp.actors.wanted import WantedNames
from slurp.deletions.due import Due
from slurp.deletions.engine import Deletions
from slurp.elastic.client import REQUEST_TIMEOUT
from slurp.elastic.outage_log import OutageLog
from slurp.events.times import utc
from slurp.pipeline.batches import BatchQueue
from slurp.pipeline.build import INDEXER
from slurp.pipeline.channel import Channel
from slurp.pipeline.disk_budget import DiskBudget
from slurp.pipeline.progress import Counters
from slurp.pipeline.reader_group import ReaderGroup
from slurp.watchdog import Watchdog

# Shorter pauses of a server are none.
_SILENT_US = 60_000_000
# Seconds after which a response is late. Most arrive within one second.
_LATE = 20.0


@dataclass
class WorkerStatus:
    """State of a worker. `Service`, `Startup` and the periodic tasks write it; each attribute has one writer.

    Attributes:
        started_at: start of the process, in Unix seconds; `started_monotonic` on the monotonic clock.
        starting: the current step of the start-up, '' once events are read.
        readers: None before events are read.
        saved: when the checkpoint last contained all acknowledged events (monotonic seconds).
        clock_error: how the clock of this machine differs from the stream, '' if it does not.
        disk: None before the setup of the cluster.
        wanted_names: accounts of which the page needs the names.
        deletions: None before the setup of the cluster, and with `--deletions keep`.
        is_filling: whether gaps are filled, or will be.
    """

    channel: Channel
    watchdog: Watchdog
    outage_log: OutageLog
    started_monotonic: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    starting: str = "starting"
    readers: ReaderGroup | None = None
    saved: float | None = None
    clock_error: str = ""
    disk: DiskBudget | None = None
    deletions: Deletions | None = None
    wanted_names: WantedNames = field(default_factory=WantedNames)
    is_filling: Callable[[], bool] = lambda: False

    @property
    def counters(self) -> Counters:
        """Counters of the events."""
        return self.channel.counters

    @property
    def queue(self) -> BatchQueue:
        """Queue between readers and indexers."""
        return self.channel.queue

    @property
    def stop(self) -> threading.Event:
        """Set once the worker shuts down."""
        return self.channel.shutdown.stop

    @property
    def checkpoint_age(self) -> float | None:
        """Seconds for which there may be acknowledged events that the checkpoint does not contain."""
        return None if self.saved is None else time.monotonic() - self.saved

    @property
    def late_response(self) -> float:
        """While all indexers wait for late responses: the longest wait, in seconds. Else 0."""
        waits = self._waits()
        return max(waits) if min(waits, default=0.0) > _LATE else 0.0

    @property
    def late_responses(self) -> str:
        """Text for the log about indexers that wait for late responses, '' if none does.

        A response that never arrives causes no error before the request times out.
        """
        waits = self._waits()
        late = [wait for wait in waits if wait > _LATE]
        if not late or self.outage_log.is_failing:
            return ""
        return (
            f"Elasticsearch: no response to {len(late)} of {len(waits)} indexers for {max(late):.0f} s; "
            f"a request is sent again after {REQUEST_TIMEOUT:.0f} s"
        )

    @property
    def read_until_us(self) -> int:
        """Time up to which all events of the servers are acknowledged (Unix microseconds); 0 if not known.

        It is that of the newest acknowledged events.
        """
        return min(self.counters.stream_us, int(time.time() * 1e6))

    @property
    def due(self) -> Due:
        """Which deleted accounts are to be redacted, by what the readers have read.

        While all connected servers have no events, as with `--dids`, their silence counts as time.
        """
        readers = [reader for reader in self.readers or () if reader.connected]
        # In this order: an event that arrives now is in the queue.
        silent_us = int(min((reader.silent_for for reader in readers), default=0.0) * 1e6)
        if self.queue.events or silent_us < _SILENT_US:
            silent_us = 0
        streams = [(since, until + silent_us) for since, until in self.counters.streams()]
        due = Due.of(streams, int(time.time() * 1e6))
        # A gap that is being filled may hide that an account is active again.
        return due._replace(with_gaps=utc(0)) if self.is_filling() else due

    def _waits(self) -> list[float]:
        """Return the seconds since the last beat of each indexer, which only a request delays for long."""
        return [one.seconds_since_beat for one in self.watchdog.heartbeats if one.name.startswith(INDEXER)]

    @property
    def lag(self) -> float | None:
        """Seconds between now and the time of the newest acknowledged event; None before the first one."""
        return self.counters.snapshot().lag(time.time())
