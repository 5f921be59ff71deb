"""Statistics of a run: a periodic log line, a live line on a terminal, a summary at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict

from slurp.elastic.unknown_fields import UnknownFields
from slurp.logs import Screen
from slurp.monitoring.stats_index import DeletionsState, State, StatsIndex
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.progress import Rates, Snapshot
from slurp.pipeline.reader_group import ReaderGroup
from slurp.units import format_duration, format_size
from slurp.watchdog import Heartbeat

log = logging.getLogger(__name__)

_LIVE_EVERY = 1.0
# Seconds for the document of an interval; a cluster that hangs delays the live line for that long.
_WRITE_WITHIN = 4.0
# Seconds after which a deletion that waits is part of the stats line.
_DELETIONS_LATE = 60.0


class Stats:
    """The work of the stats thread."""

    def __init__(
        self,
        status: WorkerStatus,
        screen: Screen,
        interval: float,
        unknown_fields: UnknownFields | None = None,
        index: StatsIndex | None = None,
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`status` must have readers; `interval` is in seconds; `notify` is called with each stats line."""
        assert status.readers is not None  # noqa: S101 - a mistake of the caller
        self._status = status
        self._readers: ReaderGroup = status.readers
        self._counters = status.counters
        self._queue = status.queue
        self._screen = screen
        self._interval = interval
        self._unknown_fields = unknown_fields
        self._index = index
        self._notify = notify
        # Snapshots at the start, at the last stats line and at the last live line.
        self._first = self._logged = self._shown = self._counters.snapshot()
        self._due = self._first.at + interval

    def run(self, stop: threading.Event, heartbeat: Heartbeat) -> None:
        """Report until `stop` is set."""
        while not stop.wait(self._pause()):
            with heartbeat:
                self.step()
        self._screen.show("")

    def _pause(self) -> float:
        """Return the seconds until the next live line or stats line, whichever comes first."""
        left = max(0.0, self._due - self._counters.snapshot().at)
        return min(_LIVE_EVERY, left) if self._screen.is_terminal else left

    def step(self) -> None:
        """Update the live line, and log the stats line if it is due."""
        now = self._counters.snapshot()
        if self._screen.is_terminal:
            self._screen.show(self._live_line(now, Rates.between(self._shown, now)))
            self._shown = now
        if now.at >= self._due:
            # A multiple of the interval, however long a step took.
            self._due += self._interval * ((now.at - self._due) // self._interval + 1)
            self._log(now, Rates.between(self._logged, now))
            if warning := self._status.late_responses:
                log.warning("%s", warning)
            self._logged = now
            self._write(now, _WRITE_WITHIN)

    def finish(self, within: float) -> None:
        """Write the last document, in at most `within` seconds: they then add up to the summary."""
        self._write(self._counters.snapshot(), within)

    def summary(self) -> None:
        """Log the stats line of the whole run."""
        now = self._counters.snapshot()
        seconds = now.at - self._first.at
        self._log(now, Rates.between(self._first, now), f"total, {format_duration(seconds)}: ")

    def _write(self, now: Snapshot, within: float) -> None:
        if self._index is not None:
            hosts = self._readers.hosts
            host = hosts[0] if len(hosts) == 1 else hosts
            state = State(
                host, self._readers.connected, self._queue.depth, _lag(now), self._deletions_state()
            )
            self._index.write(now, state, within)

    def _log(self, now: Snapshot, rates: Rates, prefix: str = "") -> None:
        line = (
            f"{prefix}received {now.received:,} = indexed {now.indexed:,} + duplicates {now.duplicates:,}"
            f" + quarantined {now.quarantined:,} + dead-lettered {now.dead_lettered:,}"
            f" + dropped {now.dropped:,} + expired {now.expired:,} + in flight {now.in_flight:,}"
            f" | in {rates.received:,.0f}/s, out {rates.acknowledged:,.0f}/s"
            f" | queue {self._queue.depth:,} batches"
            f" | lag {_lag_text(now)} | reconnects {now.reconnects} | gaps {now.gaps}{self._disk_text()}"
            f"{self._deletions_text()} | {self._readers.host}"
        )
        fields = {
            **asdict(now),
            "rate_in": round(rates.received, 1),
            "rate_out": round(rates.acknowledged, 1),
            "queue": self._queue.depth,
            "lag_seconds": _lag(now),
            **self._disk_fields(),
            **self._deletions_fields(),
            "host": self._readers.host,
        }
        log.info("%s", line, extra={"fields": {"skeetslurper": fields}})
        self._notify(line)
        if self._unknown_fields is not None and (news := self._unknown_fields.new_names()):
            log.info("%s", news)
        if not now.adds_up:
            log.error("the counters do not add up, which is a bug: please report this line")

    def _disk_text(self) -> str:
        fields = self._disk_fields()
        if not fields:
            return ""
        return f" | disk {format_size(fields['disk_bytes'])} of {format_size(fields['disk_limit_bytes'])}"

    def _disk_fields(self) -> dict[str, int]:
        """Return used and maximum bytes of the daily indices; empty without --max-disk or measurement."""
        disk = self._status.disk
        if disk is None or disk.limit is None or disk.used is None:
            return {}
        return {"disk_bytes": disk.used, "disk_limit_bytes": disk.limit}

    def _deletions_state(self) -> DeletionsState | None:
        """Return what was redacted and what waits; None with `--deletions keep`."""
        deletions = self._status.deletions
        if deletions is None:
            return None
        return DeletionsState(sum(deletions.redacted.values()), round(deletions.oldest, 3))

    def _deletions_text(self) -> str:
        state = self._deletions_state()
        if state is None:
            return ""
        late = state.oldest > _DELETIONS_LATE
        return f" | redacted {state.redacted:,}" + (
            f", oldest waits {format_duration(state.oldest)}" if late else ""
        )

    def _deletions_fields(self) -> dict[str, float]:
        state = self._deletions_state()
        return {} if state is None else {"redacted": state.redacted, "deletions_oldest_seconds": state.oldest}

    def _live_line(self, now: Snapshot, rates: Rates) -> str:
        host = self._readers.host
        state = host if self._readers.connected else f"not connected to {host}"
        return (
            f"▸ {rates.received:,.0f} events/s  indexed {now.indexed:,}  in flight {now.in_flight:,}"
            f"  lag {_lag_text(now)}  {state}"
        )


def _lag(now: Snapshot) -> float | None:
    """Return the lag in seconds, to the millisecond; None before the first event."""
    lag = now.lag(time.time())
    return None if lag is None else round(lag, 3)


def _lag_text(now: Snapshot) -> str:
    lag = _lag(now)
    return "unknown" if lag is None else format_duration(lag)
