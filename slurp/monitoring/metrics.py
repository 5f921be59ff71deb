"""What Prometheus gets: read from the counters that are there, and two histograms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from slurp.monitoring.elastic_probe import Probe
from slurp.monitoring.health import Health
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.progress import OUTCOMES

_BATCH = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_BULK = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 90)


_RESULTS = {True: "answered", False: "failed"}
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """A registry of our own. `batch_took` and `bulk_took` are for the indexers."""

    def __init__(self, status: WorkerStatus, health: Health, probe: Probe, version: str) -> None:
        self._probe = probe
        self._registry = CollectorRegistry()
        # Their beginning is that of the process.
        self._batches = Histogram(
            "skeetslurper_batch_seconds",
            "From the arrival of a batch to the moment when all its events were answered for",
            buckets=_BATCH,
            registry=self._registry,
        )
        self._bulks = Histogram(
            "skeetslurper_bulk_request_seconds",
            "Bulk requests to Elasticsearch, by whether an answer came that was no refusal as a whole",
            labelnames=["result"],
            buckets=_BULK,
            registry=self._registry,
        )
        # From the beginning, so that a first failure is an increase.
        self._took = {answered: self._bulks.labels(name) for answered, name in _RESULTS.items()}
        self._registry.register(_Worker(status, health, probe, version))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def batch_took(self, seconds: float) -> None:
        self._batches.observe(seconds)

    def bulk_took(self, seconds: float, answered: bool) -> None:
        self._took[answered].observe(seconds)
        if answered:
            self._probe.heard()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format that the Accept header prefers."""
        if "application/openmetrics-text" in accept:
            text: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), _TEXT


class _Worker(Collector):
    def __init__(self, status: WorkerStatus, health: Health, probe: Probe, version: str) -> None:
        self._status = status
        self._health = health
        self._probe = probe
        self._version = version

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("skeetslurper_build", "The program", value={"version": self._version})
        yield _gauge("start_time_seconds", "When the worker was started, in Unix time", self._status.began_at)
        yield from self._events()
        yield from self._held()
        yield from self._disk()
        yield from self._stream()
        yield from self._state()

    def _events(self) -> Iterator[Metric]:
        now = self._status.counters.snapshot()
        yield _counter("events_received", "Events handed over by the reader", now.received)
        answered = CounterMetricFamily(
            "skeetslurper_events_answered", "Events that are answered for, by how", labels=["outcome"]
        )
        for name in OUTCOMES:
            answered.add_metric([name], getattr(now, name))
        yield answered
        yield _gauge("in_flight_events", "Events received and not yet answered for", now.in_flight)
        yield _counter("stream_reconnects", "Connections to Jetstream after the first", now.reconnects)
        yield _counter("gaps", "Times that no server we read from could send", now.gaps)
        yield _counter(
            "future_revs",
            "Events filed by the server's time, as their rev is over a day ahead",
            now.future_revs,
        )
        if (lag := self._status.lag) is not None:
            yield _gauge("lag_seconds", "Now minus the time of the newest acknowledged event", lag)

    def _held(self) -> Iterator[Metric]:
        buffer = self._status.queue
        yield _gauge("queue_batches", "Batches that no indexer has taken yet", buffer.depth)
        yield _gauge("queue_events", "Events in these batches", buffer.queued_events)
        yield _gauge("buffer_events", "Events held until acknowledged, of buffer_limit_events", buffer.events)
        yield _gauge("buffer_bytes", "Bytes held until acknowledged, of buffer_limit_bytes", buffer.bytes)
        yield _gauge("buffer_limit_events", "--buffer", buffer.max_events)
        yield _gauge("buffer_limit_bytes", "--buffer-bytes", buffer.max_bytes)

    def _disk(self) -> Iterator[Metric]:
        disk = self._status.disk
        if disk is None:
            return
        if disk.limit is not None:
            yield _gauge("disk_limit_bytes", "--max-disk", disk.limit)
            yield _gauge("reading_paused", "Whether reading pauses for --max-disk", bool(disk.error))
            if disk.used is not None:
                yield _gauge("disk_bytes", "What the day indices take, of disk_limit_bytes", disk.used)
        if disk.lowest_day is not None:
            yield _gauge(
                "lowest_day_seconds",
                "Unix time at which the lowest day begins that --max-disk keeps",
                disk.lowest_day * 86_400,
            )

    def _stream(self) -> Iterator[Metric]:
        connected = GaugeMetricFamily(
            "skeetslurper_stream_connected",
            "Whether the reader has a connection to the host that it is to read from",
            labels=["reader", "host"],
        )
        for reader in self._status.readers or ():
            connected.add_metric([str(reader.number), reader.host], float(reader.connected))
        yield connected

    def _state(self) -> Iterator[Metric]:
        yield _gauge("ready", "Whether /readyz says so", not self._health.unready())
        if (answers := self._probe.answers) is not None:
            yield _gauge("elasticsearch_up", "Whether Elasticsearch answers", answers)
        if (age := self._status.checkpoint_age) is not None:
            yield _gauge(
                "checkpoint_age_seconds", "Since the checkpoint last held all that was answered for", age
            )
        still = GaugeMetricFamily(
            "skeetslurper_thread_still_seconds", "Since the thread last came round", labels=["thread"]
        )
        limit = GaugeMetricFamily(
            "skeetslurper_thread_still_limit_seconds",
            "For how long the thread may be at one thing before it counts as stuck",
            labels=["thread"],
        )
        for pulse in self._status.watchdog.pulses:
            still.add_metric([pulse.name], pulse.still_for)
            limit.add_metric([pulse.name], pulse.limit)
        yield still
        yield limit


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"skeetslurper_{name}", meaning, value=float(value))


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(f"skeetslurper_{name}", meaning, value=float(value))
