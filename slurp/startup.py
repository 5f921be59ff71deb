"""The steps of the start-up: choose servers, prepare Elasticsearch, find the start, build the pipeline.

`Service._start_up` calls them, on a thread of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from elasticsearch import AuthorizationException

from slurp.config import Config
from slurp.deletions.applied import Applied
from slurp.deletions.engine import Deletions
from slurp.deletions.versions import MissingPrivilege
from slurp.elastic import setup
from slurp.elastic.client import Elastic, describe
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import Clocks, date_of
from slurp.elastic.expunge import Expunge
from slurp.elastic.ingest_pipeline import PipelineAttachment
from slurp.elastic.lifecycle import Retention, RetentionOptions
from slurp.elastic.readiness import retry_setup, wait_until_ready
from slurp.elastic.templates import STATE_INDEX
from slurp.elastic.unknown_fields import UnknownFields
from slurp.errors import Exit, Fatal
from slurp.events.position import FIRST_TIME_CURSOR, LIVE, Position, resume_elsewhere
from slurp.jetstream.servers import ServerProbe, format_probes, host_of, probe_servers
from slurp.jetstream.stream_range import newest_event
from slurp.jetstream.subscription import Subscription
from slurp.lexicons import Compiled, RecordShapes
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.build import Pipeline, PipelineHooks, Records, build_pipeline
from slurp.pipeline.checkpoint import Checkpoint, Checkpoints
from slurp.pipeline.dead_letters import DeadLetterFile
from slurp.pipeline.delivery import Destination
from slurp.pipeline.disk_budget import BudgetClock, DiskBudget
from slurp.pipeline.gaps import GapRecorder
from slurp.pipeline.reader import Source
from slurp.pipeline.resume import StartPoint
from slurp.pipeline.stream_clock import StreamClock
from slurp.proxies import proxies_of
from slurp.units import format_size

if TYPE_CHECKING:
    from slurp.embedded.node import EmbeddedNode

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Cluster:
    """The prepared cluster."""

    indices: DailyIndices
    retention: Retention
    attachment: PipelineAttachment | None
    records: Records
    disk: DiskBudget
    deletions: Deletions | None
    """None with `--deletions keep`, and so is `expunge`."""
    expunge: Expunge | None


@dataclass(frozen=True)
class Plan:
    """The pipeline to run, and where its gaps and positions are recorded."""

    pipeline: Pipeline
    gaps: GapRecorder
    checkpoints: Checkpoints


class Startup:
    """The steps of one start-up.

    Attributes:
        config: the configuration; its `max_disk` may be set by `start_node`.
        node: the embedded node, if this worker has started one.
        clock: the time by the stream.
        probe: probes servers as this configuration needs it.
    """

    def __init__(
        self,
        config: Config,
        elastic: Elastic,
        status: WorkerStatus,
        dead_letters: DeadLetterFile,
        beat_of: Callable[[str], Callable[[], None]],
    ) -> None:
        """`beat_of` returns the beat of a thread by its name."""
        self.config = config
        self.node: EmbeddedNode | None = None
        self.clock = StreamClock(lambda: status.counters.stream_us)
        self._elastic = elastic
        self._status = status
        self._channel = status.channel
        self._stop = status.stop
        self._dead_letters = dead_letters
        self._beat_of = beat_of
        self._subscription = Subscription.of(config)
        self.probe: Callable[..., list[ServerProbe]] = partial(
            probe_servers,
            ca=config.jetstream_ca,
            protocol=self._subscription.protocol(config.protocol),
            # With --redundant all are read, whether they send events or not.
            listen=not (config.redundant or self._subscription.filters),
        )

    def choose_servers(self) -> list[str]:
        """Probe all Jetstream servers and return them ranked, the best one first."""
        for proxy in proxies_of(self.config.jetstream):
            log.info("Jetstream: connecting through proxy %s", proxy)
        probes = self.probe(self.config.jetstream)
        reachable = [one for one in probes if one.times]
        head = f"{len(reachable)} of {len(probes)} reachable"
        if reachable:
            chosen = "all of them" if self.config.redundant else host_of(probes[0].url)
            log.info("Jetstream: %s, using %s", head, chosen)
        else:
            log.warning("Jetstream: no server reachable; trying again")
        for line in format_probes(probes):
            log.info("%s", line)
        return [one.url for one in probes]

    def start_node(self) -> None:
        """Start the embedded node, unless its address is in use. Raises Fatal when it does not start."""
        from slurp.embedded.data_folder import check_disk_space
        from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted
        from slurp.embedded.launch import plan_launch
        from slurp.embedded.node import EmbeddedNode

        config = self.config
        launch = plan_launch(config)
        if launch is None:
            log.info("embedded Elasticsearch: not needed, something answers at %s", config.es[0])
            return
        self.node = EmbeddedNode(
            launch.data, port=launch.port, version=launch.version, password=config.es_pass
        )
        log.info("embedded Elasticsearch: starting %s, data in %s", launch.version, launch.data)
        try:
            check_disk_space(launch.data)
            self.node.start(wait=config.wait, stop=self._stop)
            self._choose_budget(self.node)
        except StartInterrupted:
            return
        except EmbeddedNodeError as error:
            raise Fatal(f"embedded Elasticsearch: {error}") from None

    def _choose_budget(self, node: EmbeddedNode) -> None:
        """Set the default of --max-disk by the disk of the node."""
        chosen, room = self.config.max_disk, node.available_space
        if chosen is None:
            chosen = node.default_max_disk
            # A second worker that fills a gap must have the same one: it is part of the index template.
            command = self.config.replay_command.with_option("--max-disk", str(chosen))
            self.config = replace(self.config, max_disk=chosen, replay_command=command)
            log.info("--max-disk: %s, chosen at the first start", format_size(chosen))
        if chosen > room:
            log.warning(
                "--max-disk %s is more than the %s that the disk of %s has for it: Elasticsearch will reject "
                "documents before a day is deleted",
                format_size(chosen),
                format_size(room),
                node.data,
            )

    def wait_for_cluster(self) -> None:
        """Wait until the cluster is available. Raises Fatal after `--wait`, and Stopped."""
        log.info("Elasticsearch: %s", wait_until_ready(self._elastic, self.config, self._stop))

    def prepare_cluster(self, lexicons: Compiled) -> Cluster:
        """Create or update what the cluster needs before the first document. Raises Fatal, and Stopped."""
        config, index = self.config, self.config.index
        work = setup.Setup(config, lexicons)
        self._insist(lambda: work.run(self._elastic.client.options(request_timeout=30)))
        log.info("index template: %s for %s-*, state in %s", index, index, STATE_INDEX)
        clocks = Clocks(self.clock.probable, self.clock.earliest)
        indices = DailyIndices(
            self._elastic,
            index,
            config.retention_days,
            work.put_templates,
            clocks,
            replay_command=config.replay_command,
        )
        retention = Retention(
            self._elastic,
            RetentionOptions.of(config, work.features),
            clocks,
            stop=self._stop,
            heartbeat=self._beat_of("housekeeping"),
        )
        # Before the first event: a replay must not bring a deleted day back.
        self._insist(indices.disk_state.load)
        if lowest := indices.disk_state.oldest_day:
            log.info("events before %s expire: --max-disk has deleted these days", date_of(lowest))
        clock = BudgetClock(earliest=self.clock.earliest, update=self._update_clock)
        disk = DiskBudget(
            self._elastic, indices, config.max_disk, self._channel, clock, self._beat_of("disk")
        )
        self._status.disk = disk
        records = Records(RecordShapes(lexicons), UnknownFields(lexicons, index))
        deletions, expunge = None, None
        if config.applies_deletions:
            deletions = Deletions(self._elastic, config, self._channel, lambda: self._status.due)
            self._status.deletions = deletions
            # Before the first document: which accounts are not active.
            self._insist(partial(_load, deletions))
            expunge = Expunge(self._elastic, index, clocks)
        else:
            self._insist(Applied(self._elastic, index).forget)
        return Cluster(indices, retention, work.attachment, records, disk, deletions, expunge)

    def build(self, cluster: Cluster, servers: list[str], hooks: PipelineHooks) -> Plan:
        """Find the start of each reader and build the pipeline: one reader, or one for each server."""
        config = self.config
        checkpoints = Checkpoints(self._elastic, self._subscription)
        found = self._insist(checkpoints.load)
        for checkpoint in found:
            if not checkpoint.is_start:  # else its time may be that of the clock
                self.clock.saw(checkpoint.position.time_us)
        gaps = GapRecorder(
            self._elastic,
            self._subscription,
            servers,
            self._channel.counters,
            replay_command=config.replay_command,
            is_filled=config.fill_gaps == "auto",
        )
        groups = [[server] for server in servers] if config.redundant else [servers]
        sources = [
            Source(group, self._find_start(number, host_of(group[0]), checkpoints, found))
            for number, group in enumerate(groups, start=1)
        ]
        destination = Destination(self._elastic, cluster.indices, self._dead_letters, self._status.outage_log)
        hooks = replace(hooks, beat_of=self._beat_of, on_gap=gaps.report)
        pipeline = build_pipeline(config, self._channel, destination, cluster.records, sources, hooks)
        return Plan(pipeline, gaps, checkpoints)

    def _find_start(
        self, reader: int, host: str, checkpoints: Checkpoints, found: list[Checkpoint]
    ) -> StartPoint:
        """Return where a reader starts: at its checkpoint, or where the options say."""
        config, counters = self.config, self._channel.counters
        if config.replay_from is not None or not found:
            start = config.since if config.replay_from is None else config.replay_from
            position = _start_position(host, start)
            if not found:
                # Before the first frame: if the worker is killed, the next run must start at this position.
                self._insist(lambda: checkpoints.save(Checkpoint(position, is_start=True, clean=True)))
            log.info("starting %s", "live" if start == LIVE else f"at cursor {start}, as configured")
            counters.begin(reader, position, position.time_us)
            return StartPoint(position, start)
        newest = found[0]
        if config.redundant:
            # Each host resumes at its own checkpoint: it may be behind, and have events that others missed.
            newest = next((one for one in found if one.position.host == host), newest)
            if newest.position.host != host:
                before = Position(host, None, resume_elsewhere(newest.position))
                newest = Checkpoint(before, is_start=True, clean=True)
                self._insist(lambda: checkpoints.save(newest))
        counters.begin(reader, newest.position, complete_since_us=0)
        log.info(
            "resuming at cursor %s of %s after %s shutdown",
            newest.position.cursor or newest.position.time_us,
            newest.position.host,
            "a clean" if newest.clean else "an unclean",
        )
        return StartPoint(newest.position)

    def _insist(self, step: Callable[[], T]) -> T:
        return retry_setup(self._elastic, step, self.config.wait, self._stop)

    def _update_clock(self) -> bool:
        """Update the clock by the newest event of a server if it may be behind; return whether it was."""
        readers = self._status.readers
        if readers is None or not self.clock.is_behind():
            return False
        newest = newest_event(next(iter(readers)).server, ca=self.config.jetstream_ca)
        if newest is None:
            return False
        self.clock.saw(newest.time_us)
        return True


def _load(deletions: Deletions) -> None:
    try:
        deletions.load()
    except (AuthorizationException, MissingPrivilege) as error:
        raise Fatal(
            f"--deletions apply: {describe(error)}: grant it (docs/privileges.md) or use --deletions keep",
            Exit.USAGE,
        ) from None


def _start_position(host: str, start: int) -> Position:
    if start == LIVE:
        return Position(host, None, int(time.time() * 1e6))
    if start < FIRST_TIME_CURSOR:
        return Position(host, start, 0)
    return Position(host, None, start)
