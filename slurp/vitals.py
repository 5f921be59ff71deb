"""What a running worker knows of itself, for whoever shows it. The service fills it in as it starts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from slurp.elastic.client import Patience
from slurp.flow import Buffer
from slurp.heartbeat import Watchdog
from slurp.jetstream.readers import Readers
from slurp.tally import Tally


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
    def lag(self) -> float | None:
        """Seconds between now and the time of the newest acknowledged event."""
        newest = self.tally.snapshot().newest_us
        return None if newest is None else time.time() - newest / 1e6
