"""The promises of the program, on real parts: worker process, Elasticsearch node, WebSocket server."""

from __future__ import annotations

import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import orjson
import psutil
import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.data_folder import cache_dir
from slurp.embedded.node import EmbeddedNode, free_port
from slurp.events.frames import parse
from slurp.events.identity import event_id
from slurp.events.position import REWIND_EVENTS
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions, ServerOptions
from tests.fixtures_es import OwnNode, client_for
from tests.tiers import slow_except
from tests.worker import Worker, assert_each_once, checkpoint, count, documents, expected

Start = Callable[..., Worker]


@pytest.fixture
def start(es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path) -> Start:
    """Start a worker between this test's simulator and the session's node."""

    def begin(*options: str) -> Worker:
        return Worker(
            *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix),
            *("--no-kibana", "--stats-interval", "1s", "--flush", "200ms"),
            *options,
            home=tmp_path,
        )

    return begin


def test_every_recorded_event_is_indexed_once(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, corpus: list[Path]
) -> None:
    for path in corpus:
        jetstream.load(path)
    again = ["--retention", "forever", "--catch-up"]
    with start("--since", "0", *again) as worker:
        assert worker.exit_code() == 0
        assert "caught up" in worker.log
        assert worker.lines[-1].endswith("Shutdown complete")
        first = worker.counted()
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
    assert first["indexed"] == first["received"] == len(jetstream.frames) == 3152

    with start("--replay-from", "0", *again) as worker:
        assert worker.exit_code() == 0
        second = worker.counted()
    assert second["indexed"] == 0
    assert second["duplicates"] == second["received"] == 3152
    assert count(es, fresh_index_prefix) == 3152


def test_days_past_retention_are_counted_and_not_sent(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, corpus: list[Path]
) -> None:
    jetstream.load(corpus[0]).generate(500)
    with start("--since", "0", "--catch-up", "--retention", "3d") as worker:
        assert worker.exit_code() == 0
        counted = worker.counted()
    assert (counted["expired"], counted["indexed"]) == (152, 500)
    assert count(es, fresh_index_prefix) == 500


# The slow one has more events, and more of them at a time.
@pytest.mark.parametrize(("seed", "rate"), slow_except([(1, 1000), (2, 3000)], (1, 1000), unpack=True))
def test_kill_9_loses_and_doubles_nothing(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, seed: int, rate: int
) -> None:
    chance = random.Random(seed)
    jetstream.generate(7 * rate).run_at(rate, limit=10 * rate)
    for delay in (0.0, 0.3, *(chance.uniform(0.1, 2.5) for _ in range(2))):
        with start("--since", "0") as worker:
            worker.wait_for("connected to")
            time.sleep(delay)
            worker.kill()
    jetstream.wait_until(lambda simulator: not simulator.producing)
    with start("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_a_live_start_survives_a_kill_before_the_first_event(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    with start() as worker:
        worker.wait_for("connected to")
        worker.kill()
    jetstream.generate(100, span=0.001)
    with start("--catch-up") as worker:
        worker.wait_for("resuming at cursor")
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_sigterm_under_load_ends_in_order(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.run_at(5000)
    with start("--since", "0") as worker:
        worker.wait_for(r"received \d\d,")
        asked = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - asked < 25, "the default of --grace"
        assert worker.lines[-1].endswith("Shutdown complete")
        counted = worker.counted()
    jetstream.pause()
    assert counted["in flight"] == 0
    assert count(es, fresh_index_prefix) == counted["indexed"]
    saved = checkpoint(es, fresh_index_prefix)
    assert saved is not None
    assert saved["clean"]
    events = map(orjson.loads, jetstream.frames)
    upto = expected(orjson.dumps(event) for event in events if event["cursor"] <= saved["cursor"])
    assert upto.keys() <= documents(es, fresh_index_prefix).keys()
    assert len(upto) == counted["indexed"]


def test_a_clean_end_is_resumed_with_a_rewind(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(9000)
    with start("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    jetstream.generate(2000)
    with start("--catch-up") as worker:
        assert worker.exit_code() == 0
        counted = worker.counted()
    assert (counted["indexed"], counted["duplicates"]) == (2000, REWIND_EVENTS)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_an_upgrade_from_legacy_hosts_loses_nothing(
    es_node: EmbeddedNode, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    """0.1.0 read legacy hosts by default: its checkpoint belongs to a host that comes last now, and has no
    sequence number."""

    def start(*servers: Simulator) -> Worker:
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
    bare = [{name: value for name, value in orjson.loads(one).items() if name != "cursor"} for one in network]
    host = jetstream.url.removeprefix("ws://")
    jetstream.faults.delay(0.2, times=None)
    with Simulator(port=0, protocols="v1", network=NetworkOptions(cursors=False)) as legacy:
        legacy.publish(bare[:2500])
        with start(legacy) as worker:
            assert worker.exit_code() == 0
        # What both hosts have, has other numbers on the new one.
        jetstream.publish(bare[500:])
        legacy.publish(bare[2500:])
        with start(legacy, jetstream) as worker:
            worker.wait_for(f"Jetstream: 2 of 2 reachable, taking {host}")
            worker.wait_for(rf"connected to {host}, reading from cursor \d{{16}}, v2 wire")
            assert worker.exit_code() == 0
            assert worker.counted()["duplicates"] > 0
            assert "gap" not in worker.log.replace("gaps", "")
    assert_each_once(es, fresh_index_prefix, network)


def test_a_live_replay_leaves_out_what_came_before(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(100)
    with start("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
    jetstream.generate(10_000)
    with start("--replay-from", "live") as worker:
        worker.wait_for("connected to .*, reading live")
        jetstream.generate(20)
        worker.wait_for("received 20 = indexed 20")
        assert worker.stop() == 0
    assert count(es, fresh_index_prefix) == 120
    with start("--catch-up") as worker:
        worker.wait_for("resuming at cursor 10120 of .* after a clean shutdown")
        assert worker.exit_code() == 0
    # The rewind of a start reads some of what was left out, and no more.
    assert count(es, fresh_index_prefix) == 100 + REWIND_EVENTS


@pytest.mark.slow
def test_elasticsearch_away_for_20_seconds(
    own_node: OwnNode, fresh_index_prefix: str, tmp_path: Path
) -> None:
    node = own_node()
    node.start()
    with (
        # Little room anywhere, so that the server soon notices that nobody reads.
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
        gone, most = time.monotonic(), 0
        # From its side: the worker tells it only once it has room and reads on.
        jetstream.wait_until(lambda j: "write timeout" in [one.ended for one in j.connections], timeout=60)
        jetstream.pause()
        while time.monotonic() - gone < 20:
            time.sleep(1)
            most = max(most, worker.resident())
        node.start()
        worker.wait_for("accepts documents again", timeout=60)
        deadline = time.monotonic() + 150
        while count(es, fresh_index_prefix) < len(jetstream.frames) and time.monotonic() < deadline:
            time.sleep(0.5)
            most = max(most, worker.resident())
        assert worker.stop() == 0
        assert_each_once(es, fresh_index_prefix, jetstream.frames)
    assert most < 200_000_000
    assert "closed the connection while the queue was full" in worker.log
    assert "WARNING" in worker.log, "an outage is told"
    assert not [line for line in worker.lines if "WARNING" in line and "reader-1" in line], (
        "no host is blamed"
    )


def test_a_document_that_is_refused_goes_to_quarantine(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    today = time.strftime("%Y.%m.%d", time.gmtime())
    mappings = {"dynamic": False, "_meta": {"skeetslurper": {}}, "properties": {"text": {"type": "long"}}}
    es.indices.create(index=f"{fresh_index_prefix}-{today}", mappings=mappings)
    jetstream.generate(500, span=0.001)
    with start("--since", "0", "--catch-up") as worker:
        assert worker.exit_code() == 0
        counted = worker.counted()
    found = documents(es, fresh_index_prefix)
    assert found.keys() == expected(jetstream.frames).keys()
    kept = {doc_id: source for doc_id, source in found.items() if "quarantine" in source}
    assert 0 < len(kept) == counted["quarantined"] < 500
    for doc_id, source in kept.items():
        assert "document_parsing_exception" in source["quarantine"]["error"]
        assert event_id(parse(source["quarantine"]["raw"].encode())) == doc_id


def test_frames_that_are_no_events_go_to_the_dead_letter_file(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    jetstream.generate(1000)
    jetstream.faults.garbage(after=500)
    letters = tmp_path / "letters.jsonl"
    with start("--since", "0", "--catch-up", "--dead-letter", str(letters)) as worker:
        assert worker.exit_code() == 0
        counted = worker.counted()
    assert counted["dead-lettered"] == len(jetstream.faults.injected) > 0
    assert len(letters.read_bytes().splitlines()) == counted["dead-lettered"]
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_the_dead_letter_file_must_be_writable(start: Start, jetstream: Simulator) -> None:
    jetstream.generate(10)
    jetstream.faults.garbage()
    with start("--since", "0", "--dead-letter", "/dev/full") as worker:
        assert worker.exit_code() == 2
        assert "can't write the dead-letter file /dev/full" in worker.log


def test_filters_reach_the_server(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(2000)
    with start("--since", "0", "--catch-up", "--collections", "app.bsky.feed.post") as worker:
        assert worker.exit_code() == 0
    wanted = [
        frame
        for frame in jetstream.frames
        if orjson.loads(frame).get("commit", {}).get("collection", "app.bsky.feed.post")
        == "app.bsky.feed.post"
    ]
    assert_each_once(es, fresh_index_prefix, wanted)


def test_a_long_list_of_dids_travels_after_the_handshake(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    jetstream.generate(2000)
    seen = {orjson.loads(frame)["did"] for frame in jetstream.frames}
    dids = [*sorted(seen)[:5], *(f"did:plc:{'a' * 19}{number:05}" for number in range(5000))]
    conf = tmp_path / "slurp.conf"
    conf.write_text(f"dids = {','.join(dids)}\n")
    with start("--since", "0", "--catch-up", "-c", str(conf)) as worker:
        assert worker.exit_code() == 0
    assert_each_once(
        es, fresh_index_prefix, [f for f in jetstream.frames if orjson.loads(f)["did"] in dids[:5]]
    )


def test_catching_up_with_nothing_is_a_failure(start: Start) -> None:
    with start("--catch-up", "--wait", "2s") as worker:
        assert worker.exit_code() == 1
        assert "nothing received" in worker.log


@pytest.mark.slow
def test_catching_up_waits_for_a_server_that_is_stalled(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(800)
    jetstream.faults.stall(after=400, pongs=False)
    with start("--since", "0", "--catch-up") as worker:
        worker.wait_for("received 400 = indexed 400")
        time.sleep(7)
        assert worker.process.poll() is None
        jetstream.faults.clear()
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_catching_up_that_is_interrupted_is_a_failure(start: Start, jetstream: Simulator) -> None:
    jetstream.run_at(100)
    with start("--catch-up", "--flush", "10ms", "--since", "0") as worker:
        worker.wait_for("connected")
        assert worker.stop() == 1


def test_a_second_signal_stops_at_once(own_node: OwnNode, jetstream: Simulator, tmp_path: Path) -> None:
    node = own_node()
    node.start()
    jetstream.run_at(1000)
    options = ("--jetstream", jetstream.url, "--es", node.url, "--no-kibana", "--grace", "60s")
    with Worker(*options, home=tmp_path) as worker:
        worker.wait_for("created index")
        node.kill()
        worker.wait_for("holding the events in flight")
        worker.process.send_signal(signal.SIGINT)
        time.sleep(2)  # within a second it would be the same request
        assert worker.process.poll() is None, "it is still trying within its grace"
        worker.process.send_signal(signal.SIGINT)
        assert worker.exit_code(timeout=20) == 1


@pytest.mark.slow
def test_what_can_not_be_flushed_is_said(own_node: OwnNode, jetstream: Simulator, tmp_path: Path) -> None:
    node = own_node()
    node.start()
    jetstream.run_at(1000)
    options = ("--jetstream", jetstream.url, "--es", node.url, "--no-kibana", "--grace", "5s")
    with Worker(*options, home=tmp_path) as worker:
        worker.wait_for("created index")
        node.kill()
        worker.wait_for("holding the events in flight")
        asked = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - asked < 12
        assert "events in flight will be read again" in worker.log


def test_two_workers_on_one_checkpoint_is_an_error(start: Start, jetstream: Simulator) -> None:
    jetstream.run_at(500)
    with start("--since", "0") as first:
        first.wait_for("indexed [1-9]")
        with start("--since", "0") as second:
            deadline = time.monotonic() + 30
            while first.process.poll() is None and second.process.poll() is None:
                assert time.monotonic() < deadline, "neither has noticed the other"
                time.sleep(0.1)
            loser, winner = (first, second) if second.process.poll() is None else (second, first)
            assert loser.exit_code() == 1
            assert "another worker writes the checkpoint" in loser.log
            assert "--worker-name" in loser.log
            assert winner.stop() == 0


# The embedded node


@pytest.mark.slow
def test_the_embedded_node_keeps_its_data_and_ends_with_the_worker(
    jetstream: Simulator, tmp_path: Path
) -> None:
    jetstream.generate(500)
    options = (
        *("--embedded", "--es", f"http://localhost:{free_port()}", "--jetstream", jetstream.url),
        *("--embedded-data", str(tmp_path / "node"), "--no-kibana", "--since", "0", "--stats-interval", "1s"),
    )
    # Fetched once for all tests, not again into this one's home.
    env = {"XDG_CACHE_HOME": str(cache_dir().parent)}
    with Worker(*options, home=tmp_path, env=env) as worker:
        worker.wait_for(r"--max-disk: [\d.]+ [MG]B, chosen at the first start", timeout=90)
        worker.wait_for("indexed 500 .* disk .* of ", timeout=90)
        assert worker.stop() == 0
    with Worker(*options, "--max-disk", "500TB", home=tmp_path, env=env) as worker:
        worker.wait_for("resuming at cursor .* after a clean shutdown", timeout=90)
        assert re.search(r"WARNING .*--max-disk 500,000.0 GB is more than the [\d.]+ GB", worker.log)
        node = psutil.Process(worker.process.pid).children(recursive=True)
        assert any("org.elasticsearch" in " ".join(process.cmdline()) for process in node)
        worker.kill()
    _, alive = psutil.wait_procs(node, timeout=20)
    assert not alive, "a JVM without an owner"


# Bad input


def test_elasticsearch_that_does_not_come_is_waited_for(jetstream: Simulator, tmp_path: Path) -> None:
    with Worker(
        *("--jetstream", jetstream.url, "--es", "http://127.0.0.1:1", "--no-kibana", "--wait", "3s"),
        home=tmp_path,
    ) as worker:
        assert worker.exit_code(timeout=15) == 1
        assert "waiting for Elasticsearch at http://127.0.0.1:1" in worker.log
        assert "is not ready after 3 s" in worker.log
        assert "Traceback" not in worker.log


@pytest.mark.parametrize("silent", [False, True])
def test_a_wrong_password_ends_soon_and_is_not_shown(
    start: Start, jetstream: Simulator, silent: bool
) -> None:
    if silent:
        jetstream.faults.delay(float("inf"), times=None)
    asked = time.monotonic()
    with start("--es-pass", "geheim-und-falsch") as worker:
        assert worker.exit_code(timeout=20) == 2
        assert time.monotonic() - asked < 15
        assert "rejects the password of user 'elastic'" in worker.log
        assert "geheim" not in worker.log


@pytest.mark.parametrize("status", [200, 403, 404])
def test_a_port_that_is_no_elasticsearch(jetstream: Simulator, tmp_path: Path, status: int) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>It works!</h1>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with Worker(
            *("--jetstream", jetstream.url, "--es", url, "--no-kibana", "--wait", "3s"), home=tmp_path
        ) as worker:
            assert worker.exit_code(timeout=20) == 1
            assert f"the server at {url} is not Elasticsearch" in worker.log
        server.shutdown()


def test_a_port_that_speaks_no_http(jetstream: Simulator, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Worker(
            "--jetstream", jetstream.url, "--es", url, "--no-kibana", "--wait", "5s", home=tmp_path
        ) as worker:
            assert worker.exit_code(timeout=20) == 1
            assert "is not Elasticsearch" in worker.log
        server.shutdown(socket.SHUT_RDWR)


def test_a_jetstream_that_comes_later(
    es_node: EmbeddedNode, es: Elasticsearch, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path
) -> None:
    jetstream.generate(100)
    url = jetstream.url
    jetstream.stop()
    with Worker(
        *("--jetstream", url, "--es", es_node.url, "--index", fresh_index_prefix, "--since", "0"),
        *("--no-kibana", "--catch-up"),
        home=tmp_path,
    ) as worker:
        worker.wait_for("no server reachable")
        worker.wait_for("unreachable: Connection refused")
        worker.wait_for("can't connect: Connection refused; reconnecting in")
        jetstream.start()
        assert worker.exit_code() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
