"""`/metrics` as Prometheus reads it, and what health says, from real counters."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.pipeline.disk_budget import DiskBudget
from slurp.pipeline.progress import OUTCOMES, Outcome
from tests.watched import Watched

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool here (Debian: the package prometheus)"
)

Samples = dict[str, float]


def samples(watched: Watched) -> Samples:
    """`name{label="value"}` to its value."""
    text = watched.metrics.render("")[0].decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_the_counters_of_the_stats_line_are_there_and_add_up() -> None:
    watched = Watched()
    watched.batch(10)(Outcome(indexed=4, duplicates=3, quarantined=2, dead_lettered=1))
    watched.batch(5)(Outcome(dropped=2, expired=3))
    watched.batch(7)
    watched.status.counters.gap()
    watched.status.counters.reconnected()
    found = samples(watched)
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


def test_what_waits_is_told_in_batches_events_and_bytes() -> None:
    watched = Watched()
    for events in (10, 20):
        watched.batch(events)
    found = samples(watched)
    assert found["skeetslurper_queue_batches"] == 2
    assert found["skeetslurper_queue_events"] == 30
    assert found["skeetslurper_buffer_events"] == 30
    assert found["skeetslurper_buffer_bytes"] == 3000
    assert found["skeetslurper_buffer_limit_events"] == 20_000
    assert found["skeetslurper_buffer_limit_bytes"] == 64_000_000


def test_what_is_not_known_yet_is_not_there() -> None:
    found = samples(Watched())
    for name in ("lag_seconds", "checkpoint_age_seconds", "elasticsearch_up"):
        assert f"skeetslurper_{name}" not in found
    assert not any(name.startswith("skeetslurper_stream_connected") for name in found)
    assert found["skeetslurper_ready"] == 0


def test_histograms_are_there_before_the_first_request() -> None:
    watched = Watched()
    assert samples(watched)['skeetslurper_bulk_request_seconds_count{result="failed"}'] == 0
    watched.metrics.batch_took(0.3)
    watched.metrics.bulk_took(0.02, True)
    watched.metrics.bulk_took(95, False)
    found = samples(watched)
    assert found["skeetslurper_batch_seconds_count"] == 1
    assert found['skeetslurper_batch_seconds_bucket{le="0.25"}'] == 0
    assert found['skeetslurper_batch_seconds_bucket{le="0.5"}'] == 1
    assert found['skeetslurper_bulk_request_seconds_bucket{le="0.025",result="answered"}'] == 1
    assert found['skeetslurper_bulk_request_seconds_bucket{le="90.0",result="failed"}'] == 0
    assert found['skeetslurper_bulk_request_seconds_bucket{le="+Inf",result="failed"}'] == 1


def test_each_reader_is_told_with_its_host() -> None:
    watched = Watched("http://127.0.0.1:1", "ws://one:1", "ws://two:2")
    watched.reads()
    found = samples(watched)
    assert found['skeetslurper_stream_connected{host="one:1",reader="1"}'] == 0
    assert found['skeetslurper_stream_connected{host="two:2",reader="2"}'] == 0


def test_threads_are_told_with_how_long_they_may_be_still() -> None:
    watched = Watched()
    watched.watchdog.pulse("indexer-1", 300).beat()
    watched.clock.now += 12
    found = samples(watched)
    assert found['skeetslurper_thread_still_seconds{thread="indexer-1"}'] == 12
    assert found['skeetslurper_thread_still_limit_seconds{thread="indexer-1"}'] == 300


def test_program_process_and_platform_are_told() -> None:
    found = samples(Watched(version="9.8.7"))
    assert found['skeetslurper_build_info{version="9.8.7"}'] == 1
    assert found["skeetslurper_start_time_seconds"] > 1.7e9
    assert found["process_resident_memory_bytes"] > 1e6
    assert any(name.startswith("python_info{") for name in found)


def full() -> Watched:
    """One that has all there is to tell."""
    watched = Watched("http://127.0.0.1:1", "ws://one:1")
    watched.reads()
    watched.batch(3)(Outcome(indexed=3))
    watched.metrics.batch_took(0.3)
    watched.metrics.bulk_took(0.1, True)
    watched.probe.step()
    watched.status.saved = 0.0
    watched.watchdog.pulse("indexer-1", 300).beat()
    elastic = Elastic(watched.config, watched.secrets)
    days = DailyIndices(elastic, "events", None, lambda client: None)
    days.disk_state.oldest_day = 20_000
    watched.status.disk = DiskBudget(elastic, "events", 10**9, days, watched.status.buffer)
    watched.status.disk.used = 5 * 10**8
    return watched


@needs_promtool
def test_promtool_finds_nothing_to_say() -> None:
    text = full().metrics.render("text/plain")[0]
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_openmetrics_is_to_be_had() -> None:
    text, kind = full().metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    families = parse_openmetrics(text.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"skeetslurper_events_answered", "skeetslurper_build", "skeetslurper_batch_seconds"} <= names


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=zzz", "text/html\udcff", "a" * 5000])
def test_any_other_wish_gets_the_plain_format(accept: str) -> None:
    text, kind = full().metrics.render(accept)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert b"skeetslurper_ready" in text


# Health


def test_nothing_hangs_while_it_starts() -> None:
    assert Watched().health.stuck() == []


def test_whoever_hangs_is_named() -> None:
    watched = Watched()
    for name in ("reader-1", "indexer-1"):
        watched.watchdog.pulse(name, 15).beat()
    watched.clock.now += 15
    assert watched.health.stuck() == []
    watched.watchdog.pulses[0].beat()
    watched.clock.now += 1
    assert watched.health.stuck() == ["indexer-1 hangs for 16s"]
    assert "indexer-1 hangs for 16s" in watched.health.unready()


def test_the_step_of_the_start_is_told() -> None:
    watched = Watched()
    watched.status.starting = "waiting for Elasticsearch"
    assert watched.health.unready() == ["waiting for Elasticsearch, for 0.0s"]


def test_a_stream_that_never_came_is_told() -> None:
    watched = Watched("http://127.0.0.1:1", "ws://one:1")
    watched.reads()
    assert watched.health.unready() == ["stream: no connection yet after 0.0s"]


def test_an_elasticsearch_that_does_not_answer_is_told_with_the_reason() -> None:
    watched = Watched()
    watched.status.starting = ""
    watched.probe.step()
    watched.clock.now += 20
    watched.probe.step()
    (line,) = watched.health.unready()
    assert line.startswith("Elasticsearch: down for 20s: ")
    assert "Connection refused" in line
    assert samples(watched)["skeetslurper_elasticsearch_up"] == 0


def test_a_slow_answer_is_no_outage_while_documents_are_taken() -> None:
    watched = Watched()
    watched.status.starting = ""
    watched.probe.step()
    watched.metrics.bulk_took(0.1, False)
    assert watched.health.unready() != [], "a request that failed says nothing good"
    watched.metrics.bulk_took(0.1, True)
    assert watched.health.unready() == []
    assert samples(watched)["skeetslurper_elasticsearch_up"] == 1
    watched.clock.now += 11
    assert watched.health.unready() != []


def test_what_is_not_asked_any_more_is_not_known() -> None:
    watched = Watched()
    watched.status.starting = ""
    assert watched.health.unready() == [], "nothing was asked yet"
    watched.probe.step()
    watched.metrics.bulk_took(0.1, True)
    watched.clock.now += 61
    watched.metrics.bulk_took(0.1, True)
    assert watched.health.unready() == [
        "Elasticsearch: down for 1m1s: it is not asked any more, which is a bug"
    ]
    assert "skeetslurper_elasticsearch_up" not in samples(watched)


def test_what_servers_say_is_made_fit_to_be_shown() -> None:
    watched = Watched()
    watched.status.starting = ""
    watched.outage_log.failing("bye\nready\x1b[2J" + 1000 * "!")
    watched.clock.now += 5
    (line,) = watched.health.unready()
    assert "bye ready\ufffd[2J!!" in line
    assert len(line) == 500


def test_documents_that_are_not_taken_are_told_and_secrets_are_not() -> None:
    watched = Watched()
    watched.status.starting = ""
    watched.outage_log.failing("flood stage, says changeme (403 cluster_block_exception)")
    assert watched.health.unready() == [], "rejections come and go"
    watched.clock.now += 5
    assert watched.health.unready() == [
        "Elasticsearch: takes no documents for 5.0s: flood stage, says *** (403 cluster_block_exception)"
    ]
    watched.outage_log.recovered()
    assert watched.health.unready() == []


def test_answers_that_do_not_come_are_told() -> None:
    watched = Watched()
    watched.status.starting = ""
    for number in (1, 2):
        watched.watchdog.pulse(f"indexer-{number}", 300).beat()
    watched.clock.now += 20
    assert (watched.status.waiting, watched.health.unready()) == ("", [])
    watched.clock.now += 5
    watched.watchdog.pulses[0].beat()
    assert watched.health.unready() == [], "the other one has answers"
    assert watched.status.waiting.startswith("Elasticsearch: no answer to 1 of 2 indexers, for 25 s now;")
    watched.clock.now += 21
    assert watched.health.unready() == ["Elasticsearch: no answer for 46s"]
    watched.outage_log.failing("no answer in time")
    assert watched.status.waiting == "", "that is told as trouble"


def test_the_end_is_told() -> None:
    watched = Watched()
    watched.stop.set()
    assert watched.health.unready() == ["shutting down"]
