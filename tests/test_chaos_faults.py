"""The faults of a chaos run, each by itself: they do what they claim, and the same for the same seed."""

from __future__ import annotations

import http.client
import itertools
import random
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.documents.document import build
from slurp.events import tid
from slurp.events.identity import event_id
from slurp.simulator.event_generator import EventGenerator
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions
from slurp.simulator.timestamp_imports import TimestampImports
from tests.chaos.faults import KINDS, LONG, WITHOUT_REPLAY
from tests.chaos.oracle import hash_event
from tests.chaos.run import RunOptions
from tests.chaos.schedule import random_faults
from tests.chaos.worker_runs import WorkerRuns
from tests.harness import reading, until
from tests.proxy import Proxy

DAY_US = 86_400_000_000

# Seconds that a fault lasts longer than its length, at most; 0 for the others.
EXTRA_SECONDS = {
    "node restarted": 15.0,
    "node killed": 12.0,
    "privilege revoked": 12.0,
    "password rotated": 5.0,
    "worker killed": 5.0,
    "worker stopped": 4.0,
    "worker stopped by a second signal": 4.0,
    "worker stopped by two signals within 3 ms": 4.0,
    "one of two nodes silent": 10.0,
    "Elasticsearch paused at catch-up speed": 34.0,
}


def event(frame: bytes) -> dict[str, Any]:
    return dict(orjson.loads(frame))


def contents(frames: list[bytes]) -> list[bytes]:
    return [hash_event(event(frame)) for frame in frames]


def cursors(frames: list[bytes]) -> list[int]:
    return [event(frame)["cursor"] for frame in frames]


# The schedule


def test_a_run_of_ten_minutes_includes_all_faults() -> None:
    assert EXTRA_SECONDS.keys() <= KINDS.keys()
    assert {*LONG, *WITHOUT_REPLAY} <= KINDS.keys()
    for seed in range(200):
        faults = islice(random_faults(seed, list(KINDS)), len(KINDS))
        seconds = sum(one.pause + one.length + EXTRA_SECONDS.get(one.kind, 0.0) for one in faults)
        limit = 600 * RunOptions(seconds=600, seed=seed).all_kinds_share
        assert seconds < limit, f"seed {seed}: {seconds:.0f} s"


# Close code 1001, and reused cursors


def restarted(seed: int = 5, lost: int = 300) -> tuple[list[bytes], list[bytes], Simulator]:
    """Return the frames of a server before and after a restart that lost events, and the server."""
    simulator = Simulator(seed=seed, clock=lambda: 1_700_000_000.0)
    simulator.generate(1000)
    before = simulator.frames
    original_stop = simulator.stop

    def stop(*, clean: bool = True) -> None:
        assert clean, "connections must be closed with 1001"
        original_stop(clean=clean)

    simulator.stop = stop  # type: ignore[method-assign]
    with simulator:
        threading.Timer(0.05, simulator.generate, [100]).start()
        simulator.restart(lost=lost, downtime=0.3)
        return before, simulator.frames, simulator


def test_reused_cursors_are_those_of_lost_and_later_events() -> None:
    before, after, _ = restarted()
    assert len(after) == 1100
    assert cursors(after) == list(range(1, 1101))
    assert after[:700] == before[:700]
    # The server has all events, and no others.
    assert set(contents(before)) < set(contents(after))
    assert len(set(contents(after))) == 1100
    # Resuming after the last cursor misses events; rewinding by as many as can be lost misses none.
    assert set(contents(after)) - set(contents(before)) - set(contents(after[1000:]))
    assert set(contents(after)) <= set(contents(before)) | set(contents(after[700:]))


def test_reused_cursors_keep_the_order_within_an_account() -> None:
    before, after, _ = restarted()
    for frames in (before, after):
        revs: dict[str, list[str]] = defaultdict(list)
        for one in map(event, frames):
            if one["kind"] == "commit":
                revs[one["did"]].append(one["commit"]["rev"])
        if frames is before:
            expected = dict(revs)
    for did, seen in expected.items():
        assert revs[did][: len(seen)] == seen


def test_the_same_seed_reuses_cursors_in_the_same_way() -> None:
    assert restarted()[1] == restarted()[1]


@pytest.mark.slow
def test_connections_are_closed_with_1001_before_cursors_are_reused() -> None:
    with Simulator(seed=5) as simulator:
        simulator.generate(1000)
        with reading(simulator.url, options=("--since", "0")) as run:
            until(lambda: len(run.frames) == 1000)
            simulator.restart(lost=300)
            until(lambda: len(simulator.connections) > 2 and simulator.connections[-1].frames > 0)
        ended = [one.ended for one in simulator.connections if one.frames >= 1000]
        assert ended
        assert "1001" in str(ended[0])


# Timestamp imports


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    generator = EventGenerator(9, NetworkOptions(accounts=500, odd_revs=0.05))
    now = 1_700_000_000_000_000
    return [generator.event(now + number * 1000, number + 1).frame for number in range(4000)]


def imported(frames: list[bytes], seed: int = 1, share: float = 0.3) -> tuple[list[bytes], TimestampImports]:
    imports, rng = TimestampImports(), random.Random(seed)
    return [imports.rewrite(frame, rng, share) for frame in frames], imports


def test_an_import_changes_only_the_time_of_commits_with_a_valid_rev(frames: list[bytes]) -> None:
    after, _ = imported(frames)
    changed = 0
    for old, new in zip(map(event, frames), map(event, after), strict=True):
        assert {**old, "time_us": 0} == {**new, "time_us": 0}
        if old == new:
            continue
        changed += 1
        assert old["kind"] == "commit"
        assert 2 * DAY_US <= old["time_us"] - new["time_us"] < 90 * DAY_US
        micros = tid.to_micros(old["commit"]["rev"])
        assert micros is not None
        assert abs(micros - old["time_us"]) < DAY_US
    assert 0.2 * len(frames) < changed < 0.3 * len(frames)


def test_an_imported_event_keeps_its_identity_and_day(frames: list[bytes]) -> None:
    after, _ = imported(frames)
    assert contents(after) == contents(frames)
    for old, new in zip(frames, after, strict=True):
        if old != new:
            assert event_id(event(old)) == event_id(event(new))
            before, now = (build(event(one), "host.example", 1) for one in (old, new))
            assert before.day == now.day


def test_the_same_seed_imports_the_same_events(frames: list[bytes]) -> None:
    assert imported(frames)[0] == imported(frames)[0]
    assert imported(frames, seed=2)[0] != imported(frames)[0]
    # A changed event is not changed again.
    after, imports = imported(frames, share=1.0)
    assert [imports.rewrite(frame, random.Random(1), 1.0) for frame in after] == after


def test_later_updates_of_imported_records_have_an_earlier_time(frames: list[bytes]) -> None:
    _, imports = imported(frames, share=1.0)
    assert len(imports) > 1000
    made = next(one for one in map(event, frames) if one["kind"] == "commit" and _has_valid_rev(one))
    now = made["time_us"] + 5_000_000
    commit = {**made["commit"], "operation": "update", "rev": tid.from_micros(now, 7), "record": {"a": 1}}
    update = {**made, "time_us": now, "commit": commit}
    (after,) = map(event, [imports.apply(orjson.dumps(update))])
    assert 2 * DAY_US <= now - after.pop("time_us") < 90 * DAY_US
    assert after == {name: value for name, value in update.items() if name != "time_us"}
    for other in (
        {**update, "commit": {**commit, "rkey": "another"}},
        {**update, "commit": {**commit, "operation": "delete"}},
        {**update, "commit": {**commit, "rev": tid.from_micros(now - 5 * DAY_US, 7)}},
        {"did": made["did"], "time_us": now, "kind": "identity", "identity": {}},
    ):
        assert imports.apply(orjson.dumps(other)) == orjson.dumps(other)


def _has_valid_rev(one: dict[str, Any]) -> bool:
    micros = tid.to_micros(one["commit"]["rev"])
    return micros is not None and abs(micros - one["time_us"]) < 10_000_000


def test_imported_events_are_sent_on_both_protocols_at_the_same_positions() -> None:
    with Simulator(seed=5) as simulator:
        simulator.generate(1000)
        old = simulator.frames
        assert simulator.import_timestamps(400, 0.5) > 100
        assert simulator.frames[:600] == old[:600]
        assert cursors(simulator.frames) == cursors(old)
        times = [event(frame)["time_us"] for frame in simulator.frames]
        # A cursor finds an event by its arrival time.
        newest = event(old[-1])["time_us"]
        for protocol in ("v1", "v2"):
            options = ("--since", "0", "--protocol", protocol)
            with reading(simulator.url, options=options) as run:
                until(lambda: len(run.frames) == 1000)
                assert [one["time_us"] for one in map(_v1, run.frames)] == times
        assert min(times[600:]) < newest - 2 * DAY_US


def _v1(frame: bytes) -> dict[str, Any]:
    from slurp.simulator import protocol_v2

    one = event(frame)
    return protocol_v2.to_v1_event(one) if "payload" in one else one


# Elasticsearch behind a gateway, and a node that does not answer


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    """Start an HTTP/1.1 server that answers "here"; yield its port and the requested paths."""
    requested: list[str] = []

    class Here(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            requested.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"here")

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as one:
        one.daemon_threads = True
        threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
        yield one.server_port, requested
        one.shutdown()


def request(
    client: http.client.HTTPConnection, path: str, body: bytes | None = None
) -> tuple[int, str | None, bytes]:
    client.request("POST" if body else "GET", path, body)
    answer = client.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read()


def test_a_gateway_answers_every_path_with_html(server: tuple[int, list[str]]) -> None:
    port, requested = server
    with Proxy(port) as proxy:
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        assert request(client, "/_bulk", b"x" * 1_000_000)[2] == b"here"
        proxy.act_as_gateway(itertools.cycle((200, 401)))
        # On the open connection, on new ones, and with a body that needs many reads.
        for number, path in enumerate(("/_bulk", "/_cluster/health", "/_bulk", "/")):
            status, kind, page = request(client, path, b"x" * 1_000_000 if path == "/_bulk" else None)
            assert status == (200, 401)[number % 2]
            assert kind == "text/html; charset=utf-8"
            assert page.startswith(b"<!DOCTYPE html>")
        proxy.pass_on()
        assert request(client, "/_bulk", b"x")[2] == b"here"
        client.close()
    assert requested == ["/_bulk", "/_bulk"]


def test_a_proxy_rejects_some_requests_as_elasticsearch_does(server: tuple[int, list[str]]) -> None:
    port, requested = server
    with Proxy(port) as proxy:
        proxy.reject((b"/_search", b"/_pit"), itertools.cycle((429, 503)))
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        for number, path in enumerate(("/i/_search", "/_bulk", "/i/_pit?keep_alive=1m", "/_bulk")):
            status, kind, body = request(client, path, b"x" * 1_000_000)
            if path == "/_bulk":
                assert (status, body) == (200, b"here")
                continue
            assert (status, kind) == ((429, 503)[number // 2], "application/json")
            error = orjson.loads(body)
            assert error["status"] == status
            assert error["error"]["type"] in ("es_rejected_execution_exception", "cluster_block_exception")
        proxy.pass_on()
        assert request(client, "/i/_search", b"x")[2] == b"here"
        client.close()
    assert requested == ["/_bulk", "/_bulk", "/i/_search"]


def test_a_silent_node_accepts_connections_and_answers_none(server: tuple[int, list[str]]) -> None:
    port, requested = server
    with Proxy(port) as proxy:
        connected = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.3)
        assert request(connected, "/a")[0] == 200
        proxy.silence()
        for client in (connected, http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.3)):
            with pytest.raises(socket.timeout):
                request(client, "/b")
            client.close()
        proxy.recover()
        again = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        assert request(again, "/c")[0] == 200
        again.close()
    assert requested == ["/a", "/c"]


# Exits of the worker

COUNTS = """
import signal, sys, time
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append(time.monotonic()))
print("ready", file=sys.stderr, flush=True)
while not seen:
    time.sleep(0.01)
time.sleep(0.5)
print(len(seen), file=sys.stderr, flush=True)
sys.exit(CODE)
"""


def counting_worker(tmp_path: Path, code: int) -> tuple[WorkerRuns, Path]:
    program = tmp_path / f"counts{code}.py"
    program.write_text(COUNTS.replace("CODE", str(code)))
    return WorkerRuns([], tmp_path, program), program


@pytest.mark.parametrize("code", [0, 1])
def test_a_doubled_signal_is_two_signals_and_requires_exit_code_0(tmp_path: Path, code: int) -> None:
    runs, _ = counting_worker(tmp_path, code)
    runs._start()
    runs._current().wait_for("ready")
    # Long enough that the kernel delivers two signals.
    runs.stop_doubled(0.1)
    runs.close()
    (end,) = runs.exits
    assert end.last_line == "2"
    assert (end.code, end.requested, end.expected) == (code, True, code == 0)


def test_exit_code_2_is_expected_only_while_credentials_are_revoked(tmp_path: Path) -> None:
    for denied in (False, True):
        runs, _ = counting_worker(tmp_path, 2)
        if denied:
            with runs.denied():
                pass
        runs._start()
        runs._current().wait_for("ready")
        runs._current().process.terminate()
        assert runs._current().exit_code() == 2
        with runs._lock:
            runs._record_exit(None)
        runs.close()
        (end,) = runs.exits
        assert (end.requested, end.expected) == (False, denied)
