"""What a running worker knows of itself, for whoever shows it. The service fills it in as it starts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from slurp.elastic.client import REQUEST_TIMEOUT, Patience
from slurp.flow import Buffer
from slurp.heartbeat import Watchdog
from slurp.jetstream.readers import Readers
from slurp.tally import Tally

INDEXER = "indexer-"

# Seconds. Most answers take less than one.
_SLOW = 20.0


@dataclass
class Vitals:
    """Times are of the monotonic clock. Only the service writes."""

    tally: Tally
    buffer: Buffer
    watchdog: Watchdog
    patience: Patience
    stop: threading.Event
    began: float = field(default_factory=time.monotonic)
    began_at: float = field(default_factory=time.time)
    # The step of the start-up that is under way, '' once events are read.
    starting: str = "starting"
    readers: Readers | None = None
    # When the checkpoint last held all that was answered for.
    saved: float | None = None

    @property
    def checkpoint_age(self) -> float | None:
        """Seconds for which there may have been answers that the checkpoint does not know of."""
        return None if self.saved is None else time.monotonic() - self.saved

    @property
    def unanswered(self) -> float:
        """Seconds for which no indexer has had an answer from Elasticsearch; 0 while that is usual."""
        return max(self._waits) if self._waits and min(self._waits) > _SLOW else 0.0

    @property
    def waiting(self) -> str:
        """What is to be said of indexers that wait for an answer, '' if nothing: one that never comes
        makes no error until its request is given up."""
        long = [wait for wait in self._waits if wait > _SLOW]
        if not long or self.patience.troubled:
            return ""
        return (
            f"Elasticsearch: no answer to {len(long)} of {len(self._waits)} indexers, for "
            f"{max(long):.0f} s now; after {REQUEST_TIMEOUT:.0f} s a request is given up and sent again"
        )

    @property
    def _waits(self) -> list[float]:
        return [one.still_for for one in self.watchdog.pulses if one.name.startswith(INDEXER)]

    @property
    def lag(self) -> float | None:
        """Seconds between now and the time of the newest acknowledged event."""
        newest = self.tally.snapshot().newest_us
        return None if newest is None else time.time() - newest / 1e6
