"""The worker: its threads, their supervision, and the shutdown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from slurp.addresses import Address
from slurp.backfill.filler import GapFiller
from slurp.config import Config
from slurp.deletions.engine import Deletions
from slurp.elastic import setup
from slurp.elastic.client import Elastic
from slurp.elastic.outage_log import OutageLog
from slurp.errors import Exit, Fatal, Stopped
from slurp.jetstream.server_monitor import ServerMonitor
from slurp.jetstream.stream_range import newest_event
from slurp.kibana.install import Installer
from slurp.logs import Screen, Secrets
from slurp.monitoring.stats import Stats
from slurp.monitoring.stats_index import StatsIndex
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.build import INDEXER, READER, PipelineHooks
from slurp.pipeline.catch_up import CatchUp
from slurp.pipeline.channel import Channel
from slurp.pipeline.dead_letters import DeadLetterFile
from slurp.pipeline.reader_group import ReaderGroup
from slurp.process import StopSignals
from slurp.startup import Cluster, Plan, Startup
from slurp.tasks import (
    CheckpointTask,
    HousekeepingTasks,
    apply_deletions,
    fill_gaps,
    keep_to_budget,
    keep_trends,
    monitor_servers,
)
from slurp.threads import ARCHIVE, MAY_END, NOT_VITAL, limit_of
from slurp.watchdog import Heartbeat, Watchdog, notify

if TYPE_CHECKING:
    from slurp.web.web_server import WebServer

log = logging.getLogger(__name__)

_POLL = 0.1

# Of `--grace`, the seconds kept for the last checkpoint after the indexers have stopped retrying.
_RESERVED_FOR_CHECKPOINT = 3.0

# Seconds to wait for a thread that can be abandoned without losing events.
_WAIT_FOR_ABANDONED = 2.0

# --catch-up ends once the lag is below this: seconds, or multiples of --flush.
_CAUGHT_UP_WITHIN = 5.0
_CAUGHT_UP_WITHIN_FLUSHES = 5


class Service:
    """One run of the worker. `run` blocks until it is over and returns the exit code."""

    def __init__(
        self,
        config: Config,
        screen: Screen,
        secrets: Secrets,
        version: str,
        signals: StopSignals | None = None,
    ) -> None:
        self._config = config
        self._screen = screen
        self._secrets = secrets
        self._version = version
        self._signals = signals or StopSignals()
        self._channel = Channel.of(config)
        self._shutdown = self._channel.shutdown
        self._stop = self._shutdown.stop
        # Set once the indexers have ended.
        self._drained = threading.Event()
        # Set once their deletions are applied, too, or their time is over.
        self._settled = threading.Event()
        self._exit_by = self._settle_by = float("inf")
        self._failure: Exit | None = None
        self._threads: dict[str, threading.Thread] = {}
        self._watchdog = Watchdog()
        self._heartbeats: dict[str, Heartbeat] = {}
        self._status = WorkerStatus(self._channel, self._watchdog, OutageLog())
        self._elastic = Elastic(config, secrets)
        self._dead_letters = DeadLetterFile(config.dead_letter)
        self._startup = Startup(config, self._elastic, self._status, self._dead_letters, self._beat_of)
        self._stats: Stats | None = None
        self._web: WebServer | None = None
        self._reading_since: float | None = None
        self._ready = self._clean = self._caught_up = self._set_up = False

    def run(self) -> Exit:
        """Run until a signal, a failure, or the end of `--setup-only` or `--catch-up`."""
        log.info("Elastic Skeetslurper %s", self._version)
        beat = self._beat_of("MainThread")
        if not self._signals.requested:
            self._spawn("startup", self._start_up)
        while not self._stop.wait(_POLL):
            beat()
            if self._signals.requested:
                self._stop.set()
            self._check_received()
            self._check_ready()
            self._watchdog.step()
        # Feeds the watchdog for the last time: the rest ends within `--grace`.
        notify("STOPPING=1", "STATUS=stopping", *(["WATCHDOG=1"] if self._ready else []))
        if self._signals.requested:
            log.info(
                "stopping: a second signal stops immediately (one within a second of the first is ignored)"
            )
        if not self._shut_down():
            log.error("Stopped by a second signal; unacknowledged events will be read again")
            return Exit.FAILED
        if self._failure is not None:
            log.info("Shutdown complete, after a failure")
            return self._failure
        log.info("Shutdown complete")
        if self._config.setup_only and not self._set_up:
            log.error("stopped before the setup was complete")
            return Exit.FAILED
        if self._config.catch_up and not self._config.setup_only:
            if not self._caught_up:
                log.error("stopped before it had caught up")
                return Exit.FAILED
            if self._status.counters.unapplied:
                log.error("stopped before all deletions were applied; run the same command again")
                return Exit.FAILED
        return Exit.DONE

    def _check_ready(self) -> None:
        """Report to systemd that the worker is up once it is connected."""
        readers = self._status.readers
        if not self._ready and readers is not None and readers.connected:
            self._ready = True
            notify("READY=1", f"STATUS=connected to {readers.host}")

    def _check_received(self) -> None:
        """End a --catch-up that has received no event within --wait."""
        if (
            self._config.catch_up
            and self._reading_since is not None
            and time.monotonic() - self._reading_since >= self._config.wait
            and not self._status.counters.snapshot().received
            and not self._stop.is_set()
        ):
            log.error(
                "no event received within %.0f s, so it cannot be determined what to catch up with",
                self._config.wait,
            )
            self._fail(Exit.FAILED)

    # Threads

    def _heartbeat(self, name: str) -> Heartbeat:
        """Return the heartbeat of a thread, watched from its first beat."""
        if name not in self._heartbeats:
            vital = name not in NOT_VITAL
            self._heartbeats[name] = self._watchdog.heartbeat(name, limit_of(name), vital=vital)
        return self._heartbeats[name]

    def _beat_of(self, name: str) -> Callable[[], None]:
        return self._heartbeat(name).beat

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(name, work), name=name, daemon=True)
        self._threads[name] = thread
        thread.start()

    def _guard(self, name: str, work: Callable[[], None]) -> None:
        """Run `work`; a thread that fails stops the worker, as the other threads are useless without it."""
        try:
            work()
        except Fatal as error:
            self._fail(error.code)
            log.error("%s", error)
        except Stopped:
            log.debug("%s: stopped on request", name)
        except BaseException:  # also exceptions of libraries that are not derived from Exception
            self._fail(Exit.FAILED)
            log.exception("%s died, which is a bug", name)
        else:
            if name not in MAY_END and not self._stop.is_set():
                self._fail(Exit.FAILED)
                log.error("%s ended unexpectedly, which is a bug", name)
        finally:
            self._watchdog.forget(name)

    def _fail(self, code: Exit) -> None:
        self._failure = self._failure or code
        self._stop.set()

    # Start-up, on a thread of its own so that signals are handled at each step

    def _start_up(self) -> None:
        startup, config = self._startup, self._config
        if config.http is not None and not config.setup_only:
            self._start_http(config.http)
        if not config.setup_only:
            self._dead_letters.check()
        lexicons = setup.load_lexicons(config)
        self._begin("looking for Jetstream servers")
        servers = [] if config.setup_only else startup.choose_servers()
        if config.embedded:
            self._begin("starting the embedded Elasticsearch")
            startup.start_node()
        if self._stop.is_set():
            return
        self._begin("waiting for Elasticsearch")
        startup.wait_for_cluster()
        self._begin("setting up Elasticsearch")
        cluster = startup.prepare_cluster(lexicons)
        if config.setup_only:
            self._set_up = True
            log.info("setup complete (--setup-only)")
            self._stop.set()
            return
        self._start_kibana()
        plan = startup.build(cluster, servers, self._hooks())
        if not self._stop.is_set():
            self._start_threads(cluster, plan, servers)

    def _begin(self, step: str) -> None:
        """Report the current step of the start-up."""
        self._status.starting = step
        notify(f"STATUS={step}")

    def _start_http(self, address: Address) -> None:
        from slurp.web.web_server import WebServer

        try:
            self._web = WebServer(address, self._config, self._status, self._secrets, self._version)
        except Fatal as error:
            if address.explicit:
                raise
            log.warning("HTTP server disabled: %s (use --http off to silence this warning)", error)
            return
        except Exception:
            if address.explicit:
                raise
            log.exception("HTTP server disabled by an error, which is a bug (use --http off)")
            return
        self._spawn("http", partial(_contain, self._web.serve))
        self._spawn("http-probe", partial(_contain, self._web.probe))

    def _start_kibana(self) -> None:
        config = self._config
        if config.kibana is None:
            reason = "--no-kibana" if config.no_kibana else "--es is not on this machine; use --kibana URL"
            log.info("Kibana: disabled (%s)", reason)
            return
        heartbeat = self._heartbeat("kibana")
        installer = Installer(self._startup.config, self._elastic, self._secrets)
        self._spawn("kibana", partial(_contain, partial(installer.run, self._stop, heartbeat)))

    def _hooks(self) -> PipelineHooks:
        if self._web is None:
            return PipelineHooks()
        metrics = self._web.metrics
        return PipelineHooks(batch_took=metrics.batch_took, bulk_took=metrics.bulk_took)

    def _start_threads(self, cluster: Cluster, plan: Plan, servers: Sequence[str]) -> None:
        config, status, elastic = self._config, self._status, self._elastic
        readers = status.readers = plan.pipeline.readers
        stats_index = StatsIndex(
            elastic, status.outage_log, config.index, config.worker_name, status.counters.snapshot()
        )
        self._stats = Stats(
            status,
            self._screen,
            config.stats_interval,
            cluster.records.unknown_fields,
            stats_index,
            notify=lambda line: notify(f"STATUS={line}"),
        )
        for number, indexer in enumerate(plan.pipeline.indexers, start=1):
            self._spawn(f"{INDEXER}{number}", _repeat(indexer.step))
        saving = CheckpointTask(plan, status, elastic)
        housekeeping = HousekeepingTasks(
            cluster, self._startup.clock, status, elastic, lambda: self._exit_by - time.monotonic()
        )
        self._spawn(
            "checkpoint",
            lambda: saving.run(self._settled, self._heartbeat("checkpoint"), lambda: self._clean),
        )
        if cluster.deletions is not None:
            self._spawn("deletions", partial(self._apply_deletions, cluster.deletions))
        self._spawn(
            "housekeeping",
            lambda: housekeeping.run(self._stop, self._drained, self._heartbeat("housekeeping")),
        )
        self._spawn("disk", lambda: keep_to_budget(cluster, status, elastic, self._heartbeat("disk")))
        self._spawn(
            "trends",
            partial(_contain, partial(keep_trends, config, status, elastic, self._heartbeat("trends"))),
        )
        self._spawn("stats", partial(self._report, self._stats))
        self._reading_since = time.monotonic()
        for reader in readers:
            self._spawn(f"{READER}{reader.number}", _repeat(reader.step))
        filler = None
        if config.fill_gaps == "auto":
            filler = GapFiller(
                elastic,
                config,
                self._channel,
                servers,
                cluster.indices,
                cluster.disk,
                self._beat_of(ARCHIVE),
            )
            status.is_filling = lambda: filler.is_behind
            task = partial(fill_gaps, filler, status, elastic, self._heartbeat(ARCHIVE))
            self._spawn(ARCHIVE, partial(_contain, task))
        if len(servers) > 1 and not config.redundant:
            [reader] = readers
            monitor = ServerMonitor(reader.failover, servers, self._startup.probe)
            self._spawn(
                "server-monitor",
                partial(monitor_servers, monitor, self._stop, self._heartbeat("server-monitor")),
            )
        if config.catch_up:
            self._spawn("catch-up", partial(self._catch_up, readers, filler))
        status.starting = ""

    def _apply_deletions(self, deletions: Deletions) -> None:
        apply_deletions(
            deletions,
            self._status,
            self._elastic,
            self._drained,
            self._heartbeat("deletions"),
            lambda: self._settle_by - time.monotonic(),
        )

    def _report(self, stats: Stats) -> None:
        """Log statistics until the stop; write their last document after the last events and deletions."""
        stats.run(self._stop, self._heartbeat("stats"))
        self._settled.wait()
        stats.finish(self._exit_by - time.monotonic())

    def _catch_up(self, readers: ReaderGroup, filler: GapFiller | None) -> None:
        within = max(_CAUGHT_UP_WITHIN, _CAUGHT_UP_WITHIN_FLUSHES * self._config.flush)
        lookup = partial(newest_event, ca=self._config.jetstream_ca)
        catch_up = CatchUp(readers, self._channel, within, lookup)
        beat = self._beat_of("catch-up")
        while not self._stop.wait(_POLL):
            beat()
            is_done = catch_up.step() and self._status.counters.snapshot().received
            if is_done and (filler is None or filler.has_finished()):
                self._caught_up = True
                log.info("caught up")
                self._stop.set()

    # Shutdown

    def _shut_down(self) -> bool:
        """Drain, save and close within `--grace`; return False when a second signal ended it."""
        grace = self._config.grace
        deadline = self._exit_by = time.monotonic() + grace
        reserved = min(_RESERVED_FOR_CHECKPOINT, grace / 4)
        self._shutdown.retry_until = retry_until = deadline - reserved
        # The start-up first, because it may still start threads.
        ended = self._join(["startup"], retry_until)
        ended &= self._join(self._named(READER), retry_until)
        # It queues nothing after the stop; a download may take longer.
        self._join([ARCHIVE], min(retry_until, time.monotonic() + _WAIT_FOR_ABANDONED))
        self._channel.queue.close()
        ended &= self._join(self._named(INDEXER), retry_until + reserved / 2)
        in_flight = self._status.counters.snapshot().in_flight
        self._clean = ended and not in_flight and self._failure is None
        self._settle_by = retry_until + reserved / 2
        self._drained.set()
        self._join(["deletions"], self._settle_by)
        self._settled.set()
        if unapplied := self._status.counters.unapplied:
            log.warning("%s deletion(s) are not applied: the checkpoint is before them", f"{unapplied:,}")
        self._join(["checkpoint", "housekeeping", "disk", "stats"], deadline)
        self._join(["kibana", "trends"], min(deadline, time.monotonic() + _WAIT_FOR_ABANDONED))
        if self._signals.forced:
            return False
        if in_flight:
            log.warning(
                "%s events in flight will be read again: the checkpoint is before them", f"{in_flight:,}"
            )
        if self._stats is not None:
            self._stats.summary()
        self._elastic.close()
        self._dead_letters.close()
        if self._web is not None:
            self._web.stop.set()
            self._join(["http"], min(deadline, time.monotonic() + _WAIT_FOR_ABANDONED))
        if self._startup.node is not None:
            log.info("embedded Elasticsearch: stopping")
            self._startup.node.stop()
        return True

    def _named(self, prefix: str) -> list[str]:
        return [name for name in list(self._threads) if name.startswith(prefix)]

    def _join(self, names: list[str], deadline: float) -> bool:
        """Wait for threads; log and abandon those that do not stop in time (all are daemons)."""
        beat = self._beat_of("MainThread")
        ended = True
        for name in names:
            if (thread := self._threads.get(name)) is None:
                continue
            while thread.is_alive() and time.monotonic() < deadline and not self._signals.forced:
                beat()
                thread.join(_POLL)
            if thread.is_alive():
                ended = False
                if not self._signals.forced:
                    log.warning("%s did not stop in time", name)
        return ended


def _repeat(step: Callable[[], bool]) -> Callable[[], None]:
    def work() -> None:
        while step():
            pass

    return work


def _contain(work: Callable[[], None]) -> None:
    """Run `work`; log an error of a thread that indexing does not depend on."""
    try:
        work()
    except Exception:
        log.exception("%s died, which is a bug; indexing continues", threading.current_thread().name)
