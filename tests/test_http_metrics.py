"""`/metrics` as Prometheus reads it, and the reasons of `/readyz` and `/healthz`, from real counters."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from slurp.deletions.due import EVERYTHING
from slurp.deletions.engine import Deletions
from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.pipeline.disk_budget import DiskBudget
from slurp.pipeline.progress import OUTCOMES, BatchOutcome
from tests.idle_worker import IdleWorker

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool here (Debian: the package prometheus)"
)

Samples = dict[str, float]


def samples(worker: IdleWorker) -> Samples:
    """Return all samples: `name{label="value"}` to value."""
    text = worker.metrics.render("")[0].decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_the_counters_of_the_stats_line_are_there_and_add_up() -> None:
    worker = IdleWorker()
    worker.batch(10)(BatchOutcome(indexed=4, duplicates=3, quarantined=2, dead_lettered=1))
    worker.batch(5)(BatchOutcome(dropped=2, expired=3))
    worker.batch(7)
    worker.status.counters.gap()
    worker.status.counters.reconnected()
    found = samples(worker)
    answered = {name: found[f'skeetslurper_events_answered_total{{outcome="{name}"}}'] for name in OUTCOMES}
    assert answered == {
        "indexed": 4,
        "duplicates": 3,
        "quarantined": 2,
        "dead_lettered": 1,
        "dropped": 2,
        "expired": 3,
    }
    assert found["skeetslurper_events_received_total"] == 22
    assert found["skeetslurper_in_flight_events"] == 7
    assert found["skeetslurper_events_received_total"] == sum(answered.values()) + 7
    assert found["skeetslurper_gaps_total"] == 1
    assert found["skeetslurper_stream_reconnects_total"] == 1
    assert 0 <= found["skeetslurper_lag_seconds"] < 5


def test_the_queue_is_exported_in_batches_events_and_bytes() -> None:
    worker = IdleWorker()
    for events in (10, 20):
        worker.batch(events)
    found = samples(worker)
    assert found["skeetslurper_queue_batches"] == 2
    assert found["skeetslurper_queue_events"] == 30
    assert found["skeetslurper_buffer_events"] == 30
    assert found["skeetslurper_buffer_bytes"] == 3000
    assert found["skeetslurper_buffer_limit_events"] == 20_000
    assert found["skeetslurper_buffer_limit_bytes"] == 64_000_000


def test_unknown_values_are_not_exported() -> None:
    found = samples(IdleWorker())
    for name in ("lag_seconds", "checkpoint_age_seconds", "elasticsearch_up"):
        assert f"skeetslurper_{name}" not in found
    assert not any(name.startswith("skeetslurper_stream_connected") for name in found)
    assert found["skeetslurper_ready"] == 0


def test_histograms_exist_before_the_first_request() -> None:
    worker = IdleWorker()
    assert samples(worker)['skeetslurper_bulk_request_seconds_count{result="failed"}'] == 0
    worker.metrics.batch_took(0.3)
    worker.metrics.bulk_took(0.02, True)
    worker.metrics.bulk_took(95, False)
    found = samples(worker)
    assert found["skeetslurper_batch_seconds_count"] == 1
    assert found['skeetslurper_batch_seconds_bucket{le="0.25"}'] == 0
    assert found['skeetslurper_batch_seconds_bucket{le="0.5"}'] == 1
    assert found['skeetslurper_bulk_request_seconds_bucket{le="0.025",result="answered"}'] == 1
    assert found['skeetslurper_bulk_request_seconds_bucket{le="90.0",result="failed"}'] == 0
    assert found['skeetslurper_bulk_request_seconds_bucket{le="+Inf",result="failed"}'] == 1


def test_each_reader_is_exported_with_its_host() -> None:
    worker = IdleWorker("http://127.0.0.1:1", "ws://one:1", "ws://two:2")
    worker.finish_startup()
    found = samples(worker)
    assert found['skeetslurper_stream_connected{host="one:1",reader="1"}'] == 0
    assert found['skeetslurper_stream_connected{host="two:2",reader="2"}'] == 0


def test_threads_are_exported_with_their_limits() -> None:
    worker = IdleWorker()
    worker.watchdog.heartbeat("indexer-1", 300).beat()
    worker.clock.now += 12
    found = samples(worker)
    assert found['skeetslurper_thread_still_seconds{thread="indexer-1"}'] == 12
    assert found['skeetslurper_thread_still_limit_seconds{thread="indexer-1"}'] == 300


def test_deletions_are_exported_by_reason_with_what_waits() -> None:
    worker = IdleWorker()
    assert not any(
        name.startswith(("skeetslurper_redactions", "skeetslurper_deletions")) for name in samples(worker)
    )
    elastic = Elastic(worker.config, worker.secrets)
    worker.status.deletions = deletions = Deletions(
        elastic, worker.config, worker.channel, lambda: EVERYTHING
    )
    deletions.redacted["updated"] = 3
    found = samples(worker)
    assert found['skeetslurper_redactions_total{reason="deleted"}'] == 0
    assert found['skeetslurper_redactions_total{reason="updated"}'] == 3
    assert found['skeetslurper_redactions_total{reason="account"}'] == 0
    for name in ("waiting", "postponed", "oldest_seconds", "brake"):
        assert found[f"skeetslurper_deletions_{name}"] == 0
    deletions.postponed = 2
    deletions.pending_since = time.time() - 1000
    found = samples(worker)
    assert found["skeetslurper_deletions_postponed"] == 2
    assert 1000 <= found["skeetslurper_deletions_oldest_seconds"] < 1010


def test_program_process_and_platform_are_exported() -> None:
    found = samples(IdleWorker(version="9.8.7"))
    assert found['skeetslurper_build_info{version="9.8.7"}'] == 1
    assert found["skeetslurper_start_time_seconds"] > 1.7e9
    assert found["process_resident_memory_bytes"] > 1e6
    assert any(name.startswith("python_info{") for name in found)


def full() -> IdleWorker:
    """Return a worker that exports every metric."""
    worker = IdleWorker("http://127.0.0.1:1", "ws://one:1")
    worker.finish_startup()
    worker.batch(3)(BatchOutcome(indexed=3))
    worker.metrics.batch_took(0.3)
    worker.metrics.bulk_took(0.1, True)
    worker.probe.step()
    worker.status.saved = 0.0
    worker.watchdog.heartbeat("indexer-1", 300).beat()
    elastic = Elastic(worker.config, worker.secrets)
    days = DailyIndices(elastic, "events", None, lambda client: None)
    days.disk_state.oldest_day = 20_000
    worker.status.disk = DiskBudget(elastic, days, 10**9, worker.status.channel)
    worker.status.disk.used = 5 * 10**8
    worker.status.deletions = Deletions(elastic, worker.config, worker.channel, lambda: EVERYTHING)
    return worker


@needs_promtool
def test_promtool_reports_no_problems() -> None:
    text = full().metrics.render("text/plain")[0]
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_openmetrics_is_supported() -> None:
    text, kind = full().metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    families = parse_openmetrics(text.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"skeetslurper_events_answered", "skeetslurper_build", "skeetslurper_batch_seconds"} <= names


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=zzz", "text/html\udcff", "a" * 5000])
def test_any_other_accept_header_gets_the_text_format(accept: str) -> None:
    text, kind = full().metrics.render(accept)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert b"skeetslurper_ready" in text


# Health


def test_no_thread_is_stuck_during_startup() -> None:
    assert IdleWorker().health.stuck() == []


def test_a_stuck_thread_is_reported_with_its_name() -> None:
    worker = IdleWorker()
    for name in ("reader-1", "indexer-1"):
        worker.watchdog.heartbeat(name, 15).beat()
    worker.clock.now += 15
    assert worker.health.stuck() == []
    worker.watchdog.heartbeats[0].beat()
    worker.clock.now += 1
    assert worker.health.stuck() == ["indexer-1 has been stuck for 16s"]
    assert "indexer-1 has been stuck for 16s" in worker.health.unready()


def test_the_step_of_the_startup_is_reported() -> None:
    worker = IdleWorker()
    worker.status.starting = "waiting for Elasticsearch"
    assert worker.health.unready() == ["waiting for Elasticsearch, for 0.0s"]


def test_a_stream_that_never_connected_is_reported() -> None:
    worker = IdleWorker("http://127.0.0.1:1", "ws://one:1")
    worker.finish_startup()
    assert worker.health.unready() == ["stream: no connection yet after 0.0s"]


def test_an_outage_of_elasticsearch_is_reported_with_the_reason() -> None:
    worker = IdleWorker()
    worker.status.starting = ""
    worker.probe.step()
    worker.clock.now += 20
    worker.probe.step()
    (line,) = worker.health.unready()
    assert line.startswith("Elasticsearch: down for 20s: ")
    assert "Connection refused" in line
    assert samples(worker)["skeetslurper_elasticsearch_up"] == 0


def test_a_failed_check_is_no_outage_while_bulk_requests_are_answered() -> None:
    worker = IdleWorker()
    worker.status.starting = ""
    worker.probe.step()
    worker.metrics.bulk_took(0.1, False)
    assert worker.health.unready() != [], "a failed bulk request is no evidence"
    worker.metrics.bulk_took(0.1, True)
    assert worker.health.unready() == []
    assert samples(worker)["skeetslurper_elasticsearch_up"] == 1
    worker.clock.now += 11
    assert worker.health.unready() != []


def test_a_probe_that_stopped_is_reported_and_the_state_is_unknown() -> None:
    worker = IdleWorker()
    worker.status.starting = ""
    assert worker.health.unready() == [], "no check was made yet"
    worker.probe.step()
    worker.metrics.bulk_took(0.1, True)
    worker.clock.now += 61
    worker.metrics.bulk_took(0.1, True)
    assert worker.health.unready() == [
        "Elasticsearch: down for 1m1s: the periodic check has stopped, which is a bug"
    ]
    assert "skeetslurper_elasticsearch_up" not in samples(worker)


def test_texts_of_servers_are_sanitized() -> None:
    worker = IdleWorker()
    worker.status.starting = ""
    worker.outage_log.failing("bye\nready\x1b[2J" + 1000 * "!")
    worker.clock.now += 5
    (line,) = worker.health.unready()
    assert "bye ready\ufffd[2J!!" in line
    assert len(line) == 500


def test_rejected_documents_are_reported_without_secrets() -> None:
    worker = IdleWorker()
    worker.status.starting = ""
    worker.outage_log.failing("flood stage, says changeme (403 cluster_block_exception)")
    assert worker.health.unready() == [], "a short rejection is not reported"
    worker.clock.now += 5
    assert worker.health.unready() == [
        "Elasticsearch: accepts no documents for 5.0s: flood stage, says *** (403 cluster_block_exception)"
    ]
    worker.outage_log.recovered()
    assert worker.health.unready() == []


def test_missing_answers_to_bulk_requests_are_reported() -> None:
    worker = IdleWorker()
    worker.status.starting = ""
    for number in (1, 2):
        worker.watchdog.heartbeat(f"indexer-{number}", 300).beat()
    worker.clock.now += 20
    assert (worker.status.late_responses, worker.health.unready()) == ("", [])
    worker.clock.now += 5
    worker.watchdog.heartbeats[0].beat()
    assert worker.health.unready() == [], "the other indexer gets answers"
    assert worker.status.late_responses.startswith("Elasticsearch: no response to 1 of 2 indexers for 25 s;")
    worker.clock.now += 21
    assert worker.health.unready() == ["Elasticsearch: no response for 46s"]
    worker.outage_log.failing("no response in time")
    assert worker.status.late_responses == "", "the outage log reports it instead"


def test_the_shutdown_is_reported() -> None:
    worker = IdleWorker()
    worker.stop.set()
    assert worker.health.unready() == ["shutting down"]
