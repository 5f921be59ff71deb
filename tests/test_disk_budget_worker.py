"""`--max-disk`: events of deleted days, and the real program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.times import day_of
from slurp.pipeline.dead_letters import DeadLetter, DeadLetterFile
from slurp.simulator.jetstream import Simulator
from tests import disk_week
from tests.harness import InProcess
from tests.test_disk_budget import MB, Trial, fill, trial  # noqa: F401 - fixture
from tests.test_http_worker import HttpClient
from tests.test_retention import remaining
from tests.worker import Worker, count, wait_for_documents

# Events of deleted days


def test_events_of_deleted_days_expire_and_do_not_create_the_index_again(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    indexer.days.disk_state.save(indexer.day)
    counted = indexer.feed([*indexer.posts(20, days_ago=1), *indexer.posts(10, first=50)])
    assert (counted.expired, counted.indexed) == (20, 10)
    assert counted.adds_up
    assert remaining(es, fresh_index_prefix) == {indexer.today}


def test_events_in_flight_expire_when_their_day_is_deleted(
    indexer: InProcess, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    yesterday = indexer.days.name(indexer.day - 1)
    indexer.feed(indexer.posts(1, days_ago=1))
    es.indices.close(index=yesterday)

    def delete_day() -> None:
        indexer.days.disk_state.save(indexer.day)
        es.indices.delete(index=yesterday)

    counted = indexer.feed_through_outage(indexer.posts(20, first=1, days_ago=1), delete_day)
    assert (counted.expired, counted.indexed, counted.in_flight) == (20, 1, 0)
    assert not remaining(es, fresh_index_prefix)


def test_a_replay_of_dead_letters_does_not_create_a_deleted_day_again(
    indexer: InProcess, es: Elasticsearch, es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.jsonl"
    with DeadLetterFile(path) as file:
        file.write([DeadLetter(frame, "once") for frame in indexer.posts(5, days_ago=1)], "host")
    indexer.days.disk_state.save(indexer.day)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "slurp.deadletter", "replay", str(path)),
            *("--es", es_node.url, "--index", fresh_index_prefix),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        timeout=60,
    )
    assert done.returncode == 1
    assert "expired 5" in done.stderr
    assert "5 have expired (--retention or --max-disk) and were not sent" in done.stderr
    assert not remaining(es, fresh_index_prefix)


# The real program


def test_a_worker_pauses_while_today_is_too_large_and_resumes_with_a_larger_budget(
    trial: Trial,  # noqa: F811
    es_node: EmbeddedNode,
    es: Elasticsearch,
    jetstream: Simulator,
    tmp_path: Path,
) -> None:
    [today] = fill(es, trial.index, trial.today, megabytes=98)
    already_stored = count(es, trial.index)
    jetstream.generate(60_000, span=10)
    options = (
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", trial.index, "--no-kibana"),
        *("--stats-interval", "1s", "--flush", "100ms", "--http", "127.0.0.1:0", "--since", "0"),
        # Documents take up disk from the refresh on, so a long interval would let all events pass.
        *("--batch", "100", "--buffer", "400", "--buffer-bytes", "200KB", "--refresh", "500ms"),
    )
    with Worker(*options, "--max-disk", "100MB", home=tmp_path) as worker:
        # In the last hour of a day the index of the next one exists as well.
        uses = f"{today} (uses|and later days use) "
        worker.wait_for(f"ERROR +disk .*{uses}.* more than --max-disk 100 MB; reading is paused")
        text = HttpClient(worker).wait("/readyz", 503, "reading is paused")
        assert re.search(uses, text)
        worker.wait_for(r"in flight 0 \| .* \| disk \d+ MB of 100 MB")
        assert worker.counted()["received"] < 60_000
        assert worker.stop() == 0
    with Worker(*options, "--max-disk", "300MB", home=tmp_path) as worker:
        wait_for_documents(es, trial.index, already_stored + 60_000)
        assert worker.stop() == 0
    # In the last hour of a day the worker creates the index of the next one.
    assert remaining(es, trial.index) - {f"{trial.index}-{day_of(trial.today + 1)}"} == {today}


@pytest.mark.slow
def test_a_simulated_week_stays_below_its_budget_and_a_replay_creates_no_deleted_day_again(
    tmp_path: Path,
) -> None:
    report = disk_week.run(tmp_path, budget=100 * MB, events=300_000, kills=1)
    print("\n".join(report.lines()))
    assert not report.failures
    assert report.days_kept < report.days_published
    assert report.expired
