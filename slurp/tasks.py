"""Periodic tasks of a worker: the checkpoint, housekeeping, the disk budget, the check of servers.

Each group has a scheduler, and so a thread, of its own: a request of housekeeping may take 30 s and must not
delay the checkpoint, and at full speed a disk may fill within seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from slurp.backfill.filler import GapFiller
from slurp.config import Config
from slurp.deletions.engine import Deletions
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.periodic_task import LOG_EVERY, PeriodicTask
from slurp.jetstream.server_monitor import ServerMonitor
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.checkpoint import Checkpoint
from slurp.pipeline.stream_clock import StreamClock
from slurp.scheduler import Scheduler
from slurp.startup import Cluster, Plan
from slurp.trends.keeping import TrendKeeper
from slurp.watchdog import Heartbeat

log = logging.getLogger(__name__)

# Intervals in seconds.
_CHECKPOINT_EVERY = 1.0
_HOUSEKEEPING_EVERY = 1.0
_DISK_EVERY = 0.25
_UNKNOWN_FIELDS_EVERY = 60.0
_SERVERS_EVERY = 1.0
_DELETIONS_EVERY = 0.5
_TRENDS_EVERY = 1.0
_ARCHIVE_EVERY = 1.0
# At the end, between two attempts.
_LAST_DELETIONS_EVERY = 0.2

# Seconds between two log lines about a clock that is wrong.
_CLOCK_LOG_EVERY = 600.0

_UNKNOWN_FIELDS_TIMEOUT = 15.0
_MIN_TIMEOUT = 0.1


class CheckpointTask:
    """Records gaps and saves the checkpoint every second, and once more when all events are acknowledged."""

    def __init__(self, plan: Plan, status: WorkerStatus, elastic: Elastic) -> None:
        self._plan = plan
        self._status = status
        self._elastic = elastic

    def run(self, done: threading.Event, heartbeat: Heartbeat, is_clean: Callable[[], bool]) -> None:
        """Save until no event or deletion is in flight any more (`done`), then save the last checkpoint,
        marked as clean if `is_clean` then."""
        task = PeriodicTask(
            self._elastic,
            lambda: self._save(clean=False),
            _outage_log(
                "the checkpoint cannot be saved: {}; trying again every second",
                "the checkpoint is saved again",
            ),
            self._status.outage_log,
            vital=True,
        )
        scheduler = Scheduler(heartbeat)
        scheduler.every(_CHECKPOINT_EVERY, task.run)
        scheduler.run(done)
        try:
            # Before the positions are read, so that no gap limits any of them.
            self._plan.gaps.write(final=True)
            self._save(clean=is_clean())
            if self._status.counters.held:
                log.warning(
                    "the checkpoint stays before a possible gap: the server has not sent its oldest event "
                    "yet; the next start checks again"
                )
        except FAILURES as error:
            log.warning(
                "the last checkpoint was not saved: %s; some events will be read again", describe(error)
            )

    def _save(self, clean: bool) -> bool:
        """Return whether there was anything to save."""
        # In this order: a gap that is found after the positions were read is after all of them.
        positions = self._status.counters.checkpoints()
        wrote = self._plan.gaps.write()
        for _, position, _, is_end in positions:
            wrote |= self._plan.checkpoints.save(Checkpoint(position, is_start=False, clean=clean and is_end))
        if not any(one.held for one in positions):
            self._status.saved = time.monotonic()
        return wrote


class HousekeepingTasks:
    """Checks the clock, creates tomorrow's index, deletes expired days, removes deleted documents from the
    segments of past days, follows changes of ingest pipelines, writes unknown fields."""

    def __init__(
        self,
        cluster: Cluster,
        clock: StreamClock,
        status: WorkerStatus,
        elastic: Elastic,
        seconds_left: Callable[[], float],
    ) -> None:
        """`seconds_left` until the end of a shutdown bounds the last request."""
        self._cluster = cluster
        self._clock = clock
        self._status = status
        self._elastic = elastic
        self._seconds_left = seconds_left
        self._clock_log = OutageLog(
            _CLOCK_LOG_EVERY, failing_message="{}", recovered_message="the clock agrees with the stream again"
        )

    def run(self, stop: threading.Event, drained: threading.Event, heartbeat: Heartbeat) -> None:
        """Run the tasks until `stop`; write the last unknown fields once `drained`."""
        cluster = self._cluster
        scheduler = Scheduler(heartbeat)
        unknown_fields = self._task(
            self._write_unknown_fields,
            "unknown fields cannot be written: {}; trying again every minute",
            "unknown fields are written again",
        )
        scheduler.every(_HOUSEKEEPING_EVERY, self._check_clock)
        for work, failing, recovered in (
            (
                cluster.indices.ensure_tomorrow,
                "tomorrow's index cannot be created: {}; trying again every second",
                "tomorrow's index is created",
            ),
            (
                cluster.retention.step,
                "cannot check for days past retention: {}; trying again every minute",
                "days past retention are checked again",
            ),
            (
                lambda: (
                    cluster.attachment is not None and cluster.attachment.step(self._elastic, heartbeat.beat)
                ),
                "cannot check for changes of ingest pipelines: {}; trying again every minute",
                "changes of ingest pipelines are checked again",
            ),
            (
                lambda: cluster.expunge is not None and cluster.expunge.step(),
                "cannot remove deleted documents of past days from disk: {}; trying again every minute",
                "deleted documents of past days are removed from disk again",
            ),
        ):
            scheduler.every(_HOUSEKEEPING_EVERY, self._task(work, failing, recovered))
        scheduler.every(_UNKNOWN_FIELDS_EVERY, unknown_fields)
        scheduler.run(stop)
        # With those of the last batches.
        drained.wait()
        unknown_fields()

    def _task(self, work: Callable[[], object], failing: str, recovered: str) -> Callable[[], None]:
        return PeriodicTask(self._elastic, work, _outage_log(failing, recovered), self._status.outage_log).run

    def _write_unknown_fields(self) -> None:
        if self._cluster.records.unknown_fields is not None:
            # Half, as there are two requests.
            left = max(_MIN_TIMEOUT, self._seconds_left() / 2)
            client = self._elastic.client.options(request_timeout=min(_UNKNOWN_FIELDS_TIMEOUT, left))
            self._cluster.records.unknown_fields.flush(client)

    def _check_clock(self) -> None:
        self._status.clock_error = error = self._clock.check()
        if error:
            self._clock_log.failing(error)
        else:
            self._clock_log.recovered()


def keep_to_budget(cluster: Cluster, status: WorkerStatus, elastic: Elastic, heartbeat: Heartbeat) -> None:
    """Enforce `--max-disk` until the stop."""
    task = PeriodicTask(
        elastic,
        cluster.disk.step,
        _outage_log(
            "cannot measure the daily indices or delete one for --max-disk: {}; trying again every 5s",
            "the daily indices are measured again",
        ),
        status.outage_log,
    )
    scheduler = Scheduler(heartbeat)
    scheduler.every(_DISK_EVERY, task.run)
    scheduler.run(status.stop)


def apply_deletions(
    deletions: Deletions,
    status: WorkerStatus,
    elastic: Elastic,
    drained: threading.Event,
    heartbeat: Heartbeat,
    seconds_left: Callable[[], float],
) -> None:
    """Apply deletions until the stop, and those of the last batches until `drained`, while time is left.

    Those behind a batch that is not acknowledged cannot be applied.
    """

    def work() -> bool:
        if not deletions.is_due:
            return False
        while deletions.step(heartbeat.beat) and not status.stop.is_set():
            pass
        return True

    task = PeriodicTask(
        elastic,
        work,
        _outage_log("deletions cannot be applied: {}; trying again", "deletions are applied again"),
        status.outage_log,
    )
    scheduler = Scheduler(heartbeat)
    scheduler.every(_DELETIONS_EVERY, task.run)
    scheduler.run(status.stop)
    while True:
        failure, is_last = "", drained.is_set()
        try:
            deletions.step(heartbeat.beat)
        except FAILURES as error:
            failure = describe(error)
        is_done = is_last and not status.counters.unapplied_sets()
        if is_done or seconds_left() < _LAST_DELETIONS_EVERY:
            if failure:
                log.warning("deletions cannot be applied: %s", failure)
            return
        time.sleep(_LAST_DELETIONS_EVERY)


def fill_gaps(filler: GapFiller, status: WorkerStatus, elastic: Elastic, heartbeat: Heartbeat) -> None:
    """Fill gaps until the stop."""

    def work() -> bool:
        try:
            return filler.step()
        except OSError as error:
            log.error(
                "gaps are not filled, as the folder of --archive-spool cannot be written: %s: %s",
                error.filename,
                error.strerror,
            )
            return False

    failing, recovered = "gaps cannot be filled: {}; trying again in 5 minutes", "gaps are filled again"
    task = PeriodicTask(elastic, work, _outage_log(failing, recovered), status.outage_log)
    scheduler = Scheduler(heartbeat)
    scheduler.every(_ARCHIVE_EVERY, task.run)
    try:
        scheduler.run(status.stop)
    finally:
        filler.close()


def keep_trends(config: Config, status: WorkerStatus, elastic: Elastic, heartbeat: Heartbeat) -> None:
    """Keep trends and names current until the stop."""
    keeper = TrendKeeper(
        elastic, config, lambda: status.read_until_us, status.stop, heartbeat.beat, status.wanted_names
    )
    scheduler = Scheduler(heartbeat)
    for work, failing, recovered in (
        (
            keeper.trends.step,
            "trends cannot be computed: {}; trying again every 5m",
            "trends are computed again",
        ),
        (
            keeper.changes.step,
            "changes of names cannot be read: {}; trying again every minute",
            "changes of names are read again",
        ),
        (
            keeper.wanted.step,
            "names for the page cannot be looked up: {}; trying again",
            "names for the page are looked up again",
        ),
    ):
        task = PeriodicTask(elastic, work, _outage_log(failing, recovered), status.outage_log)
        scheduler.every(_TRENDS_EVERY, task.run)
    scheduler.run(status.stop)


def monitor_servers(monitor: ServerMonitor, stop: threading.Event, heartbeat: Heartbeat) -> None:
    """Check for better servers until `stop`."""
    scheduler = Scheduler(heartbeat)
    scheduler.every(_SERVERS_EVERY, monitor.step)
    scheduler.run(stop)


def _outage_log(failing: str, recovered: str) -> OutageLog:
    return OutageLog(LOG_EVERY, failing_message=failing, recovered_message=recovered)
