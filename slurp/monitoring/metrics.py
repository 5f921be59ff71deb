"""The metrics for Prometheus: read from the counters of the worker at each scrape, and two histograms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.monitoring.health import Health
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.progress import OUTCOMES

# Upper bounds of the histogram buckets, in seconds.
_BATCH = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_BULK = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 90)

_RESULTS = {True: "answered", False: "failed"}
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics in a registry of their own, not in the global one of prometheus_client."""

    def __init__(self, status: WorkerStatus, health: Health, probe: ElasticProbe, version: str) -> None:
        self._probe = probe
        self._registry = CollectorRegistry()
        self._batches = Histogram(
            "skeetslurper_batch_seconds",
            "From the arrival of a batch until all its events are acknowledged",
            buckets=_BATCH,
            registry=self._registry,
        )
        self._bulks = Histogram(
            "skeetslurper_bulk_request_seconds",
            "Bulk requests to Elasticsearch: answered, or failed as a whole",
            labelnames=["result"],
            buckets=_BULK,
            registry=self._registry,
        )
        # Both labels exist from the start, so that increase() counts the first failure.
        self._took = {answered: self._bulks.labels(name) for answered, name in _RESULTS.items()}
        self._registry.register(_WorkerCollector(status, health, probe, version))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def batch_took(self, seconds: float) -> None:
        """Record the time from the arrival of a batch to its acknowledgement."""
        self._batches.observe(seconds)

    def bulk_took(self, seconds: float, answered: bool) -> None:
        """Record the duration of a bulk request, and whether Elasticsearch answered it."""
        self._took[answered].observe(seconds)
        if answered:
            self._probe.record_bulk_answer()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, as OpenMetrics if the Accept header names it."""
        if "application/openmetrics-text" in accept:
            text: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), _TEXT


class _WorkerCollector(Collector):
    """Reads the state of the worker at each scrape."""

    def __init__(self, status: WorkerStatus, health: Health, probe: ElasticProbe, version: str) -> None:
        self._status = status
        self._health = health
        self._probe = probe
        self._version = version

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("skeetslurper_build", "The program", value={"version": self._version})
        yield _gauge(
            "start_time_seconds", "When the worker was started, in Unix time", self._status.started_at
        )
        yield from self._events()
        yield from self._buffer()
        yield from self._disk()
        yield from self._deletions()
        yield from self._stream()
        yield from self._state()

    def _events(self) -> Iterator[Metric]:
        now = self._status.counters.snapshot()
        yield _counter("events_received", "Events received from Jetstream", now.received)
        answered = CounterMetricFamily(
            "skeetslurper_events_answered",
            "Events no longer in flight, by outcome",
            labels=["outcome"],
        )
        for name in OUTCOMES:
            answered.add_metric([name], getattr(now, name))
        yield answered
        yield _gauge("in_flight_events", "Events received and not yet acknowledged", now.in_flight)
        yield _counter("stream_reconnects", "Connections to Jetstream after the first", now.reconnects)
        yield _counter("gaps", "Periods for which no host delivered events", now.gaps)
        yield _counter(
            "future_revs",
            "Events indexed by the time of the server because their rev is more than a day ahead",
            now.future_revs,
        )
        if (lag := self._status.lag) is not None:
            yield _gauge("lag_seconds", "Now minus the time of the newest acknowledged event", lag)

    def _buffer(self) -> Iterator[Metric]:
        buffer = self._status.queue
        yield _gauge("queue_batches", "Batches in the queue between readers and indexers", buffer.depth)
        yield _gauge("queue_events", "Events in the queue between readers and indexers", buffer.queued_events)
        yield _gauge("buffer_events", "Events in memory that are not yet acknowledged", buffer.events)
        yield _gauge("buffer_bytes", "Bytes in memory that are not yet acknowledged", buffer.bytes)
        yield _gauge("buffer_limit_events", "Maximum of buffer_events (--buffer)", buffer.max_events)
        yield _gauge("buffer_limit_bytes", "Maximum of buffer_bytes (--buffer-bytes)", buffer.max_bytes)

    def _disk(self) -> Iterator[Metric]:
        disk = self._status.disk
        if disk is None:
            return
        if disk.limit is not None:
            yield _gauge("disk_limit_bytes", "Maximum of disk_bytes (--max-disk)", disk.limit)
            yield _gauge("reading_paused", "Whether reading is paused for --max-disk", bool(disk.error))
            if disk.used is not None:
                yield _gauge("disk_bytes", "Disk space used by the daily indices", disk.used)
        if disk.lowest_day is not None:
            yield _gauge(
                "lowest_day_seconds",
                "Unix time at which the oldest day begins that --max-disk keeps",
                disk.lowest_day * 86_400,
            )

    def _deletions(self) -> Iterator[Metric]:
        deletions = self._status.deletions
        if deletions is None:
            return
        redactions = CounterMetricFamily(
            "skeetslurper_redactions", "Documents whose content was removed, by reason", labels=["reason"]
        )
        for reason, count in deletions.redacted.items():
            redactions.add_metric([reason], count)
        yield redactions
        yield _gauge(
            "deletions_waiting",
            "Deletions, updates and account events that are acknowledged and not applied",
            deletions.waiting,
        )
        yield _gauge(
            "deletions_postponed",
            "Documents in the state index with deletions that could not be applied",
            deletions.postponed,
        )
        yield _gauge(
            "deletions_oldest_seconds",
            "Time that the oldest deletion has waited to be applied; 0 if none waits",
            deletions.oldest,
        )
        yield _gauge(
            "deletions_brake",
            "Whether deleted accounts wait for the confirmation of the operator (--deletions-brake)",
            deletions.is_braked,
        )

    def _stream(self) -> Iterator[Metric]:
        connected = GaugeMetricFamily(
            "skeetslurper_stream_connected",
            "Whether the reader is connected to the host",
            labels=["reader", "host"],
        )
        for reader in self._status.readers or ():
            connected.add_metric([str(reader.number), reader.host], float(reader.connected))
        yield connected

    def _state(self) -> Iterator[Metric]:
        yield _gauge("ready", "Whether /readyz returns 200", not self._health.unready())
        if (answers := self._probe.answers) is not None:
            yield _gauge("elasticsearch_up", "Whether Elasticsearch answers", answers)
        if (age := self._status.checkpoint_age) is not None:
            yield _gauge(
                "checkpoint_age_seconds",
                "Time since the checkpoint last covered all acknowledged events",
                age,
            )
        still = GaugeMetricFamily(
            "skeetslurper_thread_still_seconds",
            "Time since the last heartbeat of the thread",
            labels=["thread"],
        )
        limit = GaugeMetricFamily(
            "skeetslurper_thread_still_limit_seconds",
            "Time without a heartbeat after which the thread counts as stuck",
            labels=["thread"],
        )
        for heartbeat in self._status.watchdog.heartbeats:
            still.add_metric([heartbeat.name], heartbeat.seconds_since_beat)
            limit.add_metric([heartbeat.name], heartbeat.limit)
        yield still
        yield limit


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"skeetslurper_{name}", help_text, value=float(value))


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(f"skeetslurper_{name}", help_text, value=float(value))
