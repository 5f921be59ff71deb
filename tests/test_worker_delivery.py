"""A worker process with a real Elasticsearch node and a local Jetstream: no lost events, no duplicates."""

from __future__ import annotations

import random
import time
from pathlib import Path

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.node import EmbeddedNode
from slurp.events.frames import parse
from slurp.events.identity import event_id
from slurp.events.position import REWIND_EVENTS
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions, ServerOptions
from tests.fixtures_es import OwnNode, client_for
from tests.tiers import slow_except
from tests.worker import StartWorker, Worker, assert_each_once, checkpoint, count, documents, expected


def test_every_recorded_event_is_indexed_once(
    start_worker: StartWorker,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    corpus: list[Path],
) -> None:
    for path in corpus:
        jetstream.load(path)
    options = ["--retention", "forever", "--catch-up"]
    with start_worker("--since", "0", *options) as worker:
        assert worker.exit_code() == 0
        assert "caught up" in worker.log
        assert worker.lines[-1].endswith("Shutdown complete")
        first = worker.counted()
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
    assert first["indexed"] == first["received"] == len(jetstream.frames) == 3152

    with start_worker("--replay-from", "0", *options) as worker:
        assert worker.exit_code() == 0
        second = worker.counted()
    assert second["indexed"] == 0
    assert second["duplicates"] == second["received"] == 3152
    assert count(es, fresh_index_prefix) == 3152


def test_events_past_retention_are_counted_and_not_sent(
    start_worker: StartWorker,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    corpus: list[Path],
) -> None:
    jetstream.load(corpus[0]).generate(500)
    with start_worker("--since", "0", "--catch-up", "--retention", "3d") as worker:
        assert worker.exit_code() == 0
        counted = worker.counted()
    assert (counted["expired"], counted["indexed"]) == (152, 500)
    assert count(es, fresh_index_prefix) == 500


# The slow case has more events, at a higher rate.
@pytest.mark.parametrize(("seed", "rate"), slow_except([(1, 1000), (2, 3000)], (1, 1000), unpack=True))
def test_kill_9_causes_no_loss_and_no_duplicates(
    start_worker: StartWorker,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    seed: int,
    rate: int,
) -> None:
    generator = random.Random(seed)
    jetstream.generate(7 * rate).run_at(rate, limit=10 * rate)
    for delay in (0.0, 0.3, *(generator.uniform(0.1, 2.5) for _ in range(2))):
        with start_worker("--since", "0") as worker:
            worker.wait_for("connected to")
            time.sleep(delay)
            worker.kill()
    jetstream.wait_until(lambda simulator: not simulator.producing)
    with start_worker("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_a_kill_before_the_first_event_keeps_the_live_start_position(
    start_worker: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with start_worker() as worker:
        worker.wait_for("connected to")
        worker.kill()
    jetstream.generate(100, span=0.001)
    with start_worker("--catch-up") as worker:
        worker.wait_for("resuming at cursor")
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_sigterm_under_load_shuts_down_cleanly(
    start_worker: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.run_at(5000)
    with start_worker("--since", "0") as worker:
        worker.wait_for(r"received \d\d,")
        signaled = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - signaled < 25, "the default of --grace"
        assert worker.lines[-1].endswith("Shutdown complete")
        counted = worker.counted()
    jetstream.pause()
    assert counted["in flight"] == 0
    assert count(es, fresh_index_prefix) == counted["indexed"]
    saved = checkpoint(es, fresh_index_prefix)
    assert saved is not None
    assert saved["clean"]
    events = map(orjson.loads, jetstream.frames)
    up_to_checkpoint = expected(orjson.dumps(event) for event in events if event["cursor"] <= saved["cursor"])
    assert up_to_checkpoint.keys() <= documents(es, fresh_index_prefix).keys()
    assert len(up_to_checkpoint) == counted["indexed"]


def test_a_start_after_a_clean_shutdown_resumes_with_a_rewind(
    start_worker: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(9000)
    with start_worker("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    jetstream.generate(2000)
    with start_worker("--catch-up") as worker:
        assert worker.exit_code() == 0
        counted = worker.counted()
    assert (counted["indexed"], counted["duplicates"]) == (2000, REWIND_EVENTS)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_an_upgrade_from_legacy_hosts_loses_no_events(
    es_node: EmbeddedNode, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    """Resume from a checkpoint of release 0.1.0.

    That release read legacy hosts by default. Its checkpoint belongs to a host that is now the last in the
    default order, and has no sequence number.
    """

    def start_worker_on(*servers: Simulator) -> Worker:
        return Worker(
            *(word for server in servers for word in ("--jetstream", server.url)),
            *(
                "--es",
                es_node.url,
                "--index",
                fresh_index_prefix,
                "--no-kibana",
                "--since",
                "0",
                "--catch-up",
            ),
            home=tmp_path,
        )

    network = Simulator(seed=7).generate(3000, span=600).frames
    without_cursor = [
        {name: value for name, value in orjson.loads(frame).items() if name != "cursor"} for frame in network
    ]
    host = jetstream.url.removeprefix("ws://")
    jetstream.faults.delay(0.2, times=None)
    with Simulator(port=0, protocols="v1", network=NetworkOptions(cursors=False)) as legacy:
        legacy.publish(without_cursor[:2500])
        with start_worker_on(legacy) as worker:
            assert worker.exit_code() == 0
        # Events that both hosts have are numbered differently on the new host.
        jetstream.publish(without_cursor[500:])
        legacy.publish(without_cursor[2500:])
        with start_worker_on(legacy, jetstream) as worker:
            worker.wait_for(f"Jetstream: 2 of 2 reachable, using {host}")
            worker.wait_for(rf"connected to {host}, reading from cursor \d{{16}}, protocol v2")
            assert worker.exit_code() == 0
            assert worker.counted()["duplicates"] > 0
            assert "gap" not in worker.log.replace("gaps", "")
    assert_each_once(es, fresh_index_prefix, network)


@pytest.mark.slow
def test_a_replay_from_live_skips_earlier_events(
    start_worker: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(100)
    with start_worker("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    jetstream.generate(10_000)
    with start_worker("--replay-from", "live") as worker:
        worker.wait_for("connected to .*, reading live")
        jetstream.generate(20)
        worker.wait_for("received 20 = indexed 20")
        assert worker.stop() == 0
    assert count(es, fresh_index_prefix) == 120
    with start_worker("--catch-up") as worker:
        worker.wait_for("resuming at cursor 10120 of .* after a clean shutdown")
        assert worker.exit_code() == 0
    # The rewind at the start reads REWIND_EVENTS of the skipped events, and no more.
    assert count(es, fresh_index_prefix) == 100 + REWIND_EVENTS


@pytest.mark.slow
def test_an_elasticsearch_outage_of_20_seconds_loses_no_events(
    own_node: OwnNode, fresh_index_prefix: str, tmp_path: Path
) -> None:
    node = own_node()
    node.start()
    with (
        # Small buffers, so that the server soon notices that the worker has stopped reading.
        Simulator(port=0, seed=1, server=ServerOptions(send_buffer=65_536)) as jetstream,
        client_for(node) as es,
        Worker(
            *("--jetstream", jetstream.url, "--es", node.url, "--index", fresh_index_prefix, "--since", "0"),
            *("--no-kibana", "--stats-interval", "1s", "--buffer", "2000"),
            home=tmp_path,
        ) as worker,
    ):
        jetstream.run_at(3000)
        worker.wait_for(r"indexed \d,")
        node.stop()
        stopped, most_resident = time.monotonic(), 0
        # Checked on the server: the worker logs the closed connection only once it reads again.
        jetstream.wait_until(
            lambda j: "write timeout" in [connection.ended for connection in j.connections], timeout=60
        )
        jetstream.pause()
        while time.monotonic() - stopped < 20:
            time.sleep(1)
            most_resident = max(most_resident, worker.resident())
        node.start()
        worker.wait_for("accepts documents again", timeout=60)
        deadline = time.monotonic() + 150
        while count(es, fresh_index_prefix) < len(jetstream.frames) and time.monotonic() < deadline:
            time.sleep(0.5)
            most_resident = max(most_resident, worker.resident())
        assert worker.stop() == 0
        assert_each_once(es, fresh_index_prefix, jetstream.frames)
    assert most_resident < 200_000_000
    assert "closed the connection while the queue was full" in worker.log
    assert "WARNING" in worker.log, "an outage is logged"
    assert not [line for line in worker.lines if "WARNING" in line and "reader-1" in line], (
        "the log does not blame a Jetstream host"
    )


def test_a_rejected_document_is_quarantined(
    start_worker: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    today = time.strftime("%Y.%m.%d", time.gmtime())
    mappings = {"dynamic": False, "_meta": {"skeetslurper": {}}, "properties": {"text": {"type": "long"}}}
    es.indices.create(index=f"{fresh_index_prefix}-{today}", mappings=mappings)
    jetstream.generate(500, span=0.001)
    with start_worker("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
        counted = worker.counted()
    found = documents(es, fresh_index_prefix)
    assert found.keys() == expected(jetstream.frames).keys()
    quarantined = {doc_id: source for doc_id, source in found.items() if "quarantine" in source}
    assert 0 < len(quarantined) == counted["quarantined"] < 500
    for doc_id, source in quarantined.items():
        assert "document_parsing_exception" in source["quarantine"]["error"]
        assert event_id(parse(source["quarantine"]["raw"].encode())) == doc_id


def test_invalid_frames_are_written_to_the_dead_letter_file(
    start_worker: StartWorker,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    jetstream.generate(1000)
    jetstream.faults.garbage(after=500)
    letters = tmp_path / "letters.jsonl"
    with start_worker("--since", "0", "--catch-up", "--dead-letter", str(letters)) as worker:
        assert worker.exit_code() == 0
        counted = worker.counted()
    assert counted["dead-lettered"] == len(jetstream.faults.injected) > 0
    assert len(letters.read_bytes().splitlines()) == counted["dead-lettered"]
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_an_unwritable_dead_letter_file_is_a_usage_error(
    start_worker: StartWorker, jetstream: Simulator
) -> None:
    jetstream.generate(10)
    jetstream.faults.garbage()
    with start_worker("--since", "0", "--dead-letter", "/dev/full") as worker:
        assert worker.exit_code() == 2
        assert "cannot write the dead-letter file /dev/full" in worker.log


def test_filters_are_sent_to_the_server(
    start_worker: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(2000)
    with start_worker("--since", "0", "--catch-up", "--collections", "app.bsky.feed.post") as worker:
        assert worker.exit_code() == 0
    matching = [
        frame
        for frame in jetstream.frames
        if orjson.loads(frame).get("commit", {}).get("collection", "app.bsky.feed.post")
        == "app.bsky.feed.post"
    ]
    assert_each_once(es, fresh_index_prefix, matching)


def test_a_long_list_of_dids_is_sent_after_the_handshake(
    start_worker: StartWorker,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    jetstream.generate(2000)
    published = {orjson.loads(frame)["did"] for frame in jetstream.frames}
    dids = [*sorted(published)[:5], *(f"did:plc:{'a' * 19}{number:05}" for number in range(5000))]
    conf = tmp_path / "slurp.conf"
    conf.write_text(f"dids = {','.join(dids)}\n")
    with start_worker("--since", "0", "--catch-up", "-c", str(conf)) as worker:
        assert worker.exit_code() == 0
    assert_each_once(
        es,
        fresh_index_prefix,
        [frame for frame in jetstream.frames if orjson.loads(frame)["did"] in dids[:5]],
    )
