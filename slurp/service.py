"""Owns the threads: start-up, supervision, shutdown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from slurp.addresses import Address
from slurp.config import Config
from slurp.elastic import setup
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import Clocks, date_of
from slurp.elastic.ingest_pipeline import PipelineAttachment
from slurp.elastic.lifecycle import Retention, RetentionOptions
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.periodic_task import PeriodicTask
from slurp.elastic.readiness import retry_setup, wait_until_ready
from slurp.elastic.templates import STATE_INDEX
from slurp.elastic.unknown_fields import UnknownFields
from slurp.errors import Exit, Fatal, Stopped
from slurp.events.position import FIRST_TIME_CURSOR, LIVE, Position, resume_elsewhere
from slurp.jetstream.servers import answers, host_of, probe, table
from slurp.jetstream.stream_range import newest_event
from slurp.jetstream.subscription import Subscription
from slurp.kibana.install import Installer
from slurp.lexicons import Compiled
from slurp.logs import Screen, Secrets
from slurp.monitoring.stats import Stats
from slurp.monitoring.stats_index import StatsIndex
from slurp.monitoring.worker_status import INDEXER, WorkerStatus
from slurp.pipeline.batches import BatchQueue
from slurp.pipeline.catch_up import CatchUp
from slurp.pipeline.checkpoint import Checkpoint, Checkpoints
from slurp.pipeline.dead_letters import DeadLetterFile
from slurp.pipeline.disk_budget import DiskBudget
from slurp.pipeline.gaps import Gaps
from slurp.pipeline.indexer import Indexer, Shutdown
from slurp.pipeline.progress import Counters
from slurp.pipeline.reader import Reader
from slurp.pipeline.reader_group import ReaderGroup
from slurp.pipeline.server_monitor import ServerMonitor
from slurp.pipeline.stream_clock import StreamClock
from slurp.process import StopSignals
from slurp.proxies import proxies_of
from slurp.units import format_size
from slurp.watchdog import Watchdog, notify

if TYPE_CHECKING:
    from slurp.embedded.node import EmbeddedNode
    from slurp.web.web_server import WebServer

log = logging.getLogger(__name__)

T = TypeVar("T")

_SUPERVISE_EVERY = 0.1

# For so long a thread may be at one thing before it counts as stuck. An indexer: a bulk request has 90 s,
# and a batch may need two; a look at a day is a few requests of 30 s, and another indexer may be at it first.
# A reader: a handshake on either wire, with names to resolve. A checkpoint: one for each host, and gaps.
_INDEXER_LIMIT = 300.0
_READER_LIMIT = 180.0
# Housekeeping: several requests of 30 s; retention beats before each deletion. Stats: a request of 4 s.
# The scout: a probe, as a reader makes it. Kibana: several requests of up to a minute.
_CHECKPOINT_LIMIT = 600.0
_HOUSEKEEPING_LIMIT = 600.0
_STATS_LIMIT = 120.0
# A few requests of 30 s; it beats before each deletion.
_DISK_LIMIT = 300.0
_SCOUT_LIMIT = 180.0
_KIBANA_LIMIT = 900.0
# The main thread comes round ten times a second, whatever happens.
_MAIN_LIMIT = 30.0

_SAVE_EVERY = 1.0
_DISK_EVERY = 0.25
_DRIFT_EVERY = 60.0
_CLOCK_EVERY = 600.0
_DRIFT_TIMEOUT = 15.0
_LEAST_TIMEOUT = 0.1

# Of `--grace`, what is kept for the last checkpoint after the retries of the indexers have ended.
_RESERVED_FOR_CHECKPOINT = 3.0

# A Kibana that hangs is not worth a slow end: what it has got, it has got.
_WAIT_FOR_KIBANA = 2.0

# Threads that end when their work is done, or without harm; all others work until they are told to stop.
_MAY_END = ("startup", "kibana", "http", "http-probe")

# For the answers that are under way at the end.
_WAIT_FOR_HTTP = 2.0

# --catch-up: what the servers had so long before the end is indexed, in seconds, or in multiples of --flush.
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
        self._version = version
        self._shutdown = Shutdown()
        self._stop = self._shutdown.stop
        self._signals = signals or StopSignals()
        self._failure: Exit | None = None
        self._threads: dict[str, threading.Thread] = {}
        self._indexed = threading.Event()
        self._deadline = float("inf")
        self._clean = False
        self._watchdog = Watchdog()
        self._ready = False

        self._subscription = Subscription.of(config)
        # With --redundant all are read, whether they send or not.
        listen = not (config.redundant or self._subscription.filters)
        self._probe = partial(
            probe,
            ca=config.jetstream_ca,
            protocol=self._subscription.protocol(config.protocol),
            listen=listen,
        )
        self._queue = BatchQueue(config.buffer, config.buffer_bytes)
        self._counters = Counters(len(config.jetstream) if config.redundant else 1)
        self._secrets = secrets
        self._elastic = Elastic(config, secrets)
        self._outage_log = OutageLog()
        self._checkpoints = Checkpoints(self._elastic, self._subscription)
        self._dead_letters = DeadLetterFile(config.dead_letter)
        self._clock = StreamClock(lambda: self._counters.stream_us)
        self._days: DailyIndices | None = None
        self._retention: Retention | None = None
        self._pipeline: PipelineAttachment | None = None
        self._unknown_fields: UnknownFields | None = None
        self._typed: frozenset[str] = frozenset()
        self._readers: ReaderGroup | None = None
        self._gaps: Gaps | None = None
        self._stats: Stats | None = None
        self._status = WorkerStatus(self._counters, self._queue, self._watchdog, self._outage_log, self._stop)
        self._pulse = self._watchdog.pulse("MainThread", _MAIN_LIMIT)
        self._disk_pulse = self._watchdog.pulse("disk", _DISK_LIMIT)
        self._housekeeping = self._watchdog.pulse("housekeeping", _HOUSEKEEPING_LIMIT)
        self._front: WebServer | None = None
        self._node: EmbeddedNode | None = None
        self._reading_since: float | None = None
        self._caught_up = False
        self._set_up = False

    def run(self) -> Exit:
        log.info("Elastic Skeetslurper %s", self._version)
        if not self._signals.requested:
            self._spawn("startup", self._start_up)
        while not self._stop.wait(_SUPERVISE_EVERY):
            self._pulse.beat()
            if self._signals.requested:
                self._stop.set()
            self._check_received()
            self._check_ready()
            self._watchdog.step()
        # A sign of life as well: the rest ends within `--grace`.
        notify("STOPPING=1", "STATUS=stopping", *(["WATCHDOG=1"] if self._ready else []))
        if self._signals.requested:
            log.info("stopping: a second signal stops at once (one within a second of the first is ignored)")
        if not self._shut_down():
            log.error("Stopped by a second signal; what was not acknowledged will be read again")
            return Exit.FAILED
        if self._failure is not None:
            log.info("Shutdown complete, after a failure")
            return self._failure
        log.info("Shutdown complete")
        if self._config.setup_only and not self._set_up:
            log.error("stopped before the set-up was done")
            return Exit.FAILED
        if self._config.catch_up and not (self._caught_up or self._config.setup_only):
            log.error("stopped before it had caught up")
            return Exit.FAILED
        return Exit.DONE

    def _check_ready(self) -> None:
        """Up once a first connection stands."""
        if not self._ready and self._readers is not None and self._readers.connected:
            self._ready = True
            notify("READY=1", f"STATUS=connected to {self._readers.host}")

    # Threads

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(name, work), name=name, daemon=True)
        self._threads[name] = thread
        thread.start()

    def _guard(self, name: str, work: Callable[[], None]) -> None:
        """A thread that fails stops the service: half a worker is worse than none."""
        try:
            work()
        except Fatal as error:
            self._fail(error.code)
            log.error("%s", error)
        except Stopped:
            log.debug("%s: stopped on request", name)
        except BaseException:  # also what libraries do not derive from Exception: nobody else would see it
            self._fail(Exit.FAILED)
            log.exception("%s died, which is a bug", name)
        else:
            if name not in _MAY_END and not self._stop.is_set():
                self._fail(Exit.FAILED)
                log.error("%s ended before its time, which is a bug", name)
        finally:
            self._watchdog.forget(name)

    def _fail(self, code: Exit) -> None:
        self._failure = self._failure or code
        self._stop.set()

    # Start-up, on a thread of its own so that a signal is answered at every step

    def _start_up(self) -> None:
        config = self._config
        if config.http is not None and not config.setup_only:
            self._start_http(config.http)
        if not config.setup_only:
            self._dead_letters.check()
        compiled = setup.load_lexicons(config)
        self._begin("looking for Jetstream servers")
        servers = [] if config.setup_only else self._choose_server()
        if config.embedded:
            self._begin("starting the embedded Elasticsearch")
            self._start_embedded_node()
        if self._stop.is_set():
            return
        self._begin("waiting for Elasticsearch")
        log.info("Elasticsearch: %s", wait_until_ready(self._elastic, config, self._stop))
        self._begin("setting up Elasticsearch")
        self._prepare_cluster(compiled)
        if config.setup_only:
            self._set_up = True
            log.info("set-up done, as asked for with --setup-only")
            self._stop.set()
            return
        if config.kibana is None:
            reason = "--no-kibana" if config.no_kibana else "--es is not on this machine; use --kibana URL"
            log.info("Kibana: disabled (%s)", reason)
        else:
            self._spawn("kibana", self._prepare_kibana)
        self._start_reading(servers)

    def _begin(self, step: str) -> None:
        """A step of the start-up, for whoever asks how far it has come."""
        self._status.starting = step
        notify(f"STATUS={step}")

    def _start_http(self, address: Address) -> None:
        from slurp.web.web_server import WebServer

        try:
            self._front = WebServer(address, self._config, self._status, self._secrets, self._version)
        except Fatal as error:
            if address.asked:
                raise
            log.warning("no page and no metrics: %s; --http off does without", error)
            return
        except Exception:
            if address.asked:
                raise
            log.exception("no page and no metrics, which is a bug; --http off does without")
            return
        self._spawn("http", partial(self._show, self._front.serve))
        self._spawn("http-probe", partial(self._show, self._front.probe))

    def _show(self, work: Callable[[], None]) -> None:
        """Nobody's look at us is a reason to stop."""
        try:
            work()
        except Exception:
            log.exception("%s died, which is a bug; indexing goes on", threading.current_thread().name)

    def _choose_server(self) -> list[str]:
        for proxy in proxies_of(self._config.jetstream):
            log.info("Jetstream: connecting through proxy %s", proxy)
        probes = self._probe(self._config.jetstream)
        reachable = [one for one in probes if one.times]
        head = f"{len(reachable)} of {len(probes)} reachable"
        if reachable:
            taken = "all of them" if self._config.redundant else host_of(probes[0].url)
            log.info("Jetstream: %s, taking %s", head, taken)
        else:
            log.warning("Jetstream: no server reachable; it will be tried again and again")
        for line in table(probes):
            log.info("%s", line)
        return [one.url for one in probes]

    def _start_embedded_node(self) -> None:
        from slurp.embedded.data_folder import DEFAULT_VERSION, check_room, default_data_dir
        from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted
        from slurp.embedded.node import EmbeddedNode

        config = self._config
        url = urlsplit(config.es[0])
        if answers(url.hostname or "localhost", url.port or 9200):
            log.info("embedded Elasticsearch: not needed, something answers at %s", config.es[0])
            return
        if url.scheme != "http" or url.hostname not in ("localhost", "127.0.0.1"):
            raise Fatal(
                f"--embedded starts a node at http://localhost only, not at {config.es[0]}", Exit.USAGE
            )
        version = config.embedded_version or DEFAULT_VERSION
        data = config.embedded_data or default_data_dir(version)
        self._node = EmbeddedNode(data, port=url.port or 9200, version=version, password=config.es_pass)
        log.info("embedded Elasticsearch: starting %s, data in %s", version, data)
        try:
            check_room(data)
            self._node.start(wait=config.wait, stop=self._stop)
            self._choose_budget(self._node)
        except StartInterrupted:
            return
        except EmbeddedNodeError as error:
            raise Fatal(f"embedded Elasticsearch: {error}") from None

    def _choose_budget(self, node: EmbeddedNode) -> None:
        """The default of --max-disk is that of the node, which knows its disk."""
        chosen, room = self._config.max_disk, node.room
        if chosen is None:
            chosen = node.default_max_disk
            # A second worker, to fill a gap, must have the same one: it is in the index template.
            fill = self._config.fill.with_option("--max-disk", str(chosen))
            self._config = replace(self._config, max_disk=chosen, fill=fill)
            log.info("--max-disk: %s, chosen at the first start", format_size(chosen))
        if chosen > room:
            log.warning(
                "--max-disk %s is more than the %s that the disk of %s has for it: Elasticsearch will stop "
                "writing before a day is deleted",
                format_size(chosen),
                format_size(room),
                node.data,
            )

    def _prepare_cluster(self, compiled: Compiled) -> None:
        config, index = self._config, self._config.index
        work = setup.Setup(config, compiled)
        self._insist(lambda: work.run(self._elastic.client.options(request_timeout=30)))
        log.info("index template: %s for %s-*, state in %s", index, index, STATE_INDEX)
        clocks = Clocks(now=self._clock.probable, earliest=self._clock.earliest)
        self._days = DailyIndices(
            self._elastic,
            index,
            config.retention_days,
            work.put_templates,
            clocks,
            fill=config.fill,
        )
        self._pipeline = work.attachment
        self._unknown_fields = UnknownFields(compiled, index)
        self._typed = frozenset(compiled.record_types)
        self._retention = Retention(
            self._elastic,
            RetentionOptions.of(config, work.features),
            clocks,
            stop=self._stop,
            heartbeat=self._housekeeping.beat,
        )

        # Before the first event: a replay must not bring a deleted day back.
        self._insist(self._days.disk_state.load)
        self._status.disk = DiskBudget(
            self._elastic,
            index,
            config.max_disk,
            self._days,
            self._queue,
            self._clock.earliest,
            learn_time=self._learn_time,
            stop=self._stop,
            beat=self._disk_pulse.beat,
        )
        if lowest := self._days.disk_state.oldest_day:
            log.info("events before %s are not indexed: --max-disk has deleted these days", date_of(lowest))

    def _insist(self, step: Callable[[], T]) -> T:
        return retry_setup(self._elastic, step, self._config.wait, self._stop)

    def _start_reading(self, servers: list[str]) -> None:
        """One reader that can go to any server, or with --redundant one for each."""
        found = self._insist(self._checkpoints.load)
        for checkpoint in found:
            if not checkpoint.started:  # else its time may be that of the clock
                self._clock.saw(checkpoint.position.time_us)
        self._gaps = Gaps(self._elastic, self._subscription, servers, self._counters, fill=self._config.fill)
        readers = []
        for number, own in enumerate([[one] for one in servers] if self._config.redundant else [servers], 1):
            known, start = self._find_start(number, host_of(own[0]), found)
            readers.append(
                Reader(
                    self._config,
                    self._subscription,
                    own,
                    self._queue,
                    self._counters,
                    self._stop,
                    known,
                    start=start,
                    number=number,
                    missed=self._gaps.found,
                    beat=self._watchdog.pulse(f"reader-{number}", _READER_LIMIT).beat,
                )
            )
        if not self._stop.is_set():
            self._start_threads(ReaderGroup(readers), servers)

    def _find_start(self, reader: int, host: str, found: list[Checkpoint]) -> tuple[Position, int | None]:
        """Return the position to resume behind, and the cursor or LIVE if the user says where to start."""
        config = self._config
        if config.replay_from is not None or not found:
            start = config.since if config.replay_from is None else config.replay_from
            position = _start_position(host, start)
            if not found:
                # Before the first frame: a kill in the first second must not turn into a new start.
                begin = Checkpoint(position, started=True, clean=True)
                self._insist(lambda: self._checkpoints.save(begin))
            log.info("start: %s", "live" if start == LIVE else f"cursor {start}, as asked")
            self._counters.begin(reader, position, position.time_us)
            return position, start
        newest = found[0]
        if config.redundant:
            # Each host goes on where it was itself: it may lie behind, and have what others missed.
            newest = next((one for one in found if one.position.host == host), newest)
            if newest.position.host != host:
                before = Position(host, None, resume_elsewhere(newest.position))
                newest = Checkpoint(before, started=True, clean=True)
                self._insist(lambda: self._checkpoints.save(newest))
        self._counters.begin(reader, newest.position, whole_since_us=0)
        log.info(
            "start: where the last run %s, cursor %s of %s",
            "ended" if newest.clean else "was cut off",
            newest.position.cursor or newest.position.time_us,
            newest.position.host,
        )
        return newest.position, None

    def _start_threads(self, readers: ReaderGroup, servers: list[str]) -> None:
        config, days = self._config, self._days
        assert days is not None  # noqa: S101
        self._readers = self._status.readers = readers
        timed: dict[str, Any] = {}
        if self._front is not None:
            timed = {
                "batch_took": self._front.metrics.batch_took,
                "bulk_took": self._front.metrics.bulk_took,
            }
        documents = StatsIndex(
            self._elastic, self._outage_log, config.index, config.worker_name, self._counters.snapshot()
        )
        self._stats = Stats(
            self._counters,
            self._queue,
            readers,
            self._screen,
            config.stats_interval,
            self._unknown_fields,
            documents,
            status=lambda line: notify(f"STATUS={line}"),
            waiting=lambda: self._status.waiting,
            disk=self._status.disk,
        )
        for number in range(1, config.indexers + 1):
            name = f"{INDEXER}{number}"
            indexer = Indexer(
                self._elastic,
                days,
                self._dead_letters,
                self._queue,
                self._counters,
                self._outage_log,
                self._shutdown,
                unknown_fields=self._unknown_fields,
                typed=self._typed,
                beat=self._watchdog.pulse(name, _INDEXER_LIMIT).beat,
                **timed,
            )
            self._spawn(name, _steps(indexer.step))
        self._spawn("checkpoint", self._keep)
        self._spawn("housekeeping", self._keep_house)
        self._spawn("disk", self._keep_to_budget)
        self._spawn("stats", self._watch)
        self._reading_since = time.monotonic()
        for reader in readers:
            self._spawn(f"reader-{reader.number}", _steps(reader.step))
            if len(servers) > 1 and not config.redundant:
                scout = ServerMonitor(reader, servers, probe=self._probe)
                self._spawn(
                    "scout", partial(scout.run, self._stop, self._watchdog.pulse("scout", _SCOUT_LIMIT))
                )
        if config.catch_up:
            self._spawn("catch-up", partial(self._catch_up, readers))
        self._status.starting = ""

    # Work that belongs to no other place

    def _prepare_kibana(self) -> None:
        """Nothing that answers at Kibana's address is a reason to stop."""
        try:
            pulse = self._watchdog.pulse("kibana", _KIBANA_LIMIT, vital=False)
            Installer(self._config, self._elastic, self._secrets).run(self._stop, pulse)
        except Exception:
            log.warning("Kibana gets nothing from us, which is a bug; indexing goes on", exc_info=True)

    def _watch(self) -> None:
        """Stats until the stop, and their last document when all is drained."""
        assert self._stats is not None  # noqa: S101
        self._stats.run(self._stop, self._watchdog.pulse("stats", _STATS_LIMIT))
        self._indexed.wait()
        self._stats.finish(self._deadline - time.monotonic())

    def _keep(self) -> None:
        """Save the checkpoint every second and once more when all is drained."""
        saving = self._chore(
            lambda: self._save(clean=False),
            "the checkpoint can't be saved: {}; trying again each second",
            "the checkpoint is saved again",
            vital=True,
        )
        pulse = self._watchdog.pulse("checkpoint", _CHECKPOINT_LIMIT)
        while not self._indexed.wait(_SAVE_EVERY):
            pulse.beat()
            saving.do()
        try:
            assert self._gaps is not None  # noqa: S101
            # Before the positions are taken, so that a gap keeps none of them back.
            self._gaps.step(final=True)
            self._save(clean=self._clean)
            if self._counters.held:
                log.warning(
                    "the checkpoint stays before a possible gap: the server has not said yet how far back it "
                    "goes; the next start asks again"
                )
        except FAILURES as error:
            log.warning(
                "the last checkpoint was not saved: %s; some events will be read again", describe(error)
            )

    def _keep_house(self) -> None:
        """What may take long and must not delay the checkpoint: tomorrow, retention, drift."""
        assert self._days is not None  # noqa: S101
        assert self._retention is not None  # noqa: S101
        tomorrow = self._chore(
            self._days.ensure_tomorrow,
            "tomorrow's index can't be created: {}; trying again each second",
            "tomorrow's index is there",
        )
        retention = self._chore(
            self._retention.step,
            "can't look for days past retention: {}; trying again each minute",
            "days past retention can be looked for again",
        )
        pipeline = self._chore(
            self._look_at_pipeline,
            "can't look for changes of ingest pipelines: {}; trying again each minute",
            "changes of ingest pipelines can be looked for again",
        )
        unknown_fields = self._chore(
            self._write_drift, "drift was not written, it waits: {}", "drift is written again"
        )
        clock = OutageLog(
            _CLOCK_EVERY, failing_message="{}", recovered_message="the clock agrees with the stream again"
        )
        drift_due = time.monotonic() + _DRIFT_EVERY
        while not self._stop.wait(_SAVE_EVERY):
            with self._housekeeping:
                self._look_at_clock(clock)
                tomorrow.do()
                self._housekeeping.beat()
                retention.do()
                self._housekeeping.beat()
                pipeline.do()
                self._housekeeping.beat()
                if time.monotonic() >= drift_due:
                    drift_due = time.monotonic() + _DRIFT_EVERY
                    unknown_fields.do()
        # What the last batches brought as well.
        self._indexed.wait()
        unknown_fields.do()

    def _look_at_pipeline(self) -> bool:
        return self._pipeline is not None and self._pipeline.step(self._elastic, self._housekeeping.beat)

    def _keep_to_budget(self) -> None:
        """On a thread of its own: at full speed a disk may fill within seconds."""
        assert self._status.disk is not None  # noqa: S101
        budget = self._chore(
            self._status.disk.step,
            "can't measure the days or delete one for --max-disk: {}; trying again in 5s",
            "the days can be measured again",
        )
        while not self._stop.wait(_DISK_EVERY):
            with self._disk_pulse:
                budget.do()

    def _learn_time(self) -> bool:
        """Ask a server what time it is at least, by its newest event, where that may be later than known."""
        if self._readers is None or not self._clock.is_behind():
            return False
        newest = newest_event(next(iter(self._readers)).server, ca=self._config.jetstream_ca)
        if newest is None:
            return False
        self._clock.saw(newest.time_us)
        return True

    def _look_at_clock(self, outage_log: OutageLog) -> None:
        self._status.clock_trouble = trouble = self._clock.look()
        if trouble:
            outage_log.failing(trouble)
        else:
            outage_log.recovered()

    def _chore(
        self, work: Callable[[], object], trouble: str, over: str, *, vital: bool = False
    ) -> PeriodicTask:
        return PeriodicTask(self._elastic, self._outage_log, work, trouble, over, vital=vital)

    def _write_drift(self) -> None:
        if self._unknown_fields is not None:
            # Half, for there are two requests.
            left = max(_LEAST_TIMEOUT, (self._deadline - time.monotonic()) / 2)
            self._unknown_fields.flush(
                self._elastic.client.options(request_timeout=min(_DRIFT_TIMEOUT, left))
            )

    def _save(self, clean: bool) -> bool:
        """Whether there was anything to save."""
        assert self._readers is not None and self._gaps is not None  # noqa: S101
        # In this order: a gap found after the positions were taken is not behind any of them.
        positions = self._counters.checkpoints()
        wrote = self._gaps.step()
        for _, position, held in positions:
            # A held position is not where the reader ended.
            wrote |= self._checkpoints.save(Checkpoint(position, started=False, clean=clean and not held))
        if not any(one.held for one in positions):
            self._status.saved = time.monotonic()
        return wrote

    def _catch_up(self, readers: ReaderGroup) -> None:
        within = max(_CAUGHT_UP_WITHIN, _CAUGHT_UP_WITHIN_FLUSHES * self._config.flush)
        ask = partial(newest_event, ca=self._config.jetstream_ca)
        catch_up = CatchUp(readers, self._counters, self._queue, within, ask)
        pulse = self._watchdog.pulse("catch-up", _READER_LIMIT)
        while not self._stop.wait(_SUPERVISE_EVERY):
            pulse.beat()
            if catch_up.step() and self._counters.snapshot().received:
                self._caught_up = True
                log.info("caught up")
                self._stop.set()

    def _check_received(self) -> None:
        """End a --catch-up that has received nothing within --wait."""
        if (
            self._config.catch_up
            and self._reading_since is not None
            and time.monotonic() - self._reading_since >= self._config.wait
            and not self._counters.snapshot().received
            and not self._stop.is_set()
        ):
            log.error(
                "nothing received within %.0f s, so there is no saying what to catch up with",
                self._config.wait,
            )
            self._fail(Exit.FAILED)

    # Shutdown

    def _shut_down(self) -> bool:
        """Drain, save, close, all within `--grace`. False when a second signal cut it short."""
        deadline = self._deadline = time.monotonic() + self._config.grace
        reserved = min(_RESERVED_FOR_CHECKPOINT, self._config.grace / 4)
        self._shutdown.deadline = deadline - reserved
        # Startup first: only it makes threads, and it may have been about to.
        ended = self._join(["startup"], self._shutdown.deadline)
        workers = [name for name in list(self._threads) if name.startswith(INDEXER)]
        ended &= self._join(
            [name for name in list(self._threads) if name.startswith("reader")], self._shutdown.deadline
        )
        self._queue.close()
        ended &= self._join(workers, self._shutdown.deadline + reserved / 2)
        left = self._counters.snapshot().in_flight
        self._clean = ended and not left and self._failure is None
        self._indexed.set()
        self._join(["checkpoint", "housekeeping", "disk", "stats"], deadline)
        self._join(["kibana"], min(deadline, time.monotonic() + _WAIT_FOR_KIBANA))
        if self._signals.again:
            return False
        if left:
            log.warning(
                "%s events not flushed, will be read again: the checkpoint stands before them", f"{left:,}"
            )
        if self._stats is not None:
            self._stats.summary()
        self._elastic.close()
        self._dead_letters.close()
        if self._front is not None:
            self._front.over.set()
            self._join(["http"], min(deadline, time.monotonic() + _WAIT_FOR_HTTP))
        if self._node is not None:
            log.info("embedded Elasticsearch: stopping")
            self._node.stop()
        return True

    def _join(self, names: list[str], deadline: float) -> bool:
        """Wait for threads; whoever does not end is named and abandoned (all are daemons)."""
        ended = True
        for name in names:
            if (thread := self._threads.get(name)) is None:
                continue
            while thread.is_alive() and time.monotonic() < deadline and not self._signals.again:
                self._pulse.beat()
                thread.join(_SUPERVISE_EVERY)
            if thread.is_alive():
                ended = False
                if not self._signals.again:
                    log.warning("%s did not end in time", name)
        return ended


def _steps(step: Callable[[], bool]) -> Callable[[], None]:
    def run() -> None:
        while step():
            pass

    return run


def _start_position(host: str, start: int) -> Position:
    if start == LIVE:
        return Position(host, None, int(time.time() * 1e6))
    if start < FIRST_TIME_CURSOR:
        return Position(host, start, 0)
    return Position(host, None, start)
