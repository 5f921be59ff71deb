"""What the faults of a chaos run do, each by itself: they must be what they say, and the same for a seed."""

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
from slurp.simulator.imports import Imports
from slurp.simulator.jetstream import Simulator
from slurp.simulator.network import Network
from tests.chaos.faults import GENTLE, KINDS, LONG
from tests.chaos.oracle import of_event
from tests.chaos.plan import orders
from tests.chaos.runs import Runs
from tests.harness import reading, until
from tests.proxy import Proxy

DAY_US = 86_400_000_000

# Seconds that a fault takes beyond its length, at most; of most it is nothing.
BEYOND = {
    "node restarted": 15.0,
    "node killed": 12.0,
    "a right taken away": 12.0,
    "password rotated": 5.0,
    "worker killed": 5.0,
    "worker stopped": 4.0,
    "worker stopped at once": 4.0,
    "worker stopped by two signals within 3 ms": 4.0,
    "one of two nodes silent": 10.0,
    "Elasticsearch paused at catch-up speed": 34.0,
}


def event(frame: bytes) -> dict[str, Any]:
    return dict(orjson.loads(frame))


def contents(frames: list[bytes]) -> list[bytes]:
    return [of_event(event(frame)) for frame in frames]


def cursors(frames: list[bytes]) -> list[int]:
    return [event(frame)["cursor"] for frame in frames]


# The plan


def test_a_run_of_ten_minutes_has_all_faults() -> None:
    assert BEYOND.keys() <= KINDS.keys()
    assert {*LONG, *GENTLE} <= KINDS.keys()
    for seed in range(200):
        plan = islice(orders(seed, list(KINDS)), len(KINDS))
        took = sum(order.pause + order.length + BEYOND.get(order.kind, 0.0) for order in plan)
        assert took < 0.8 * 600, f"seed {seed}: {took:.0f} s"


# 1001, and numbers that are used again


def restarted(seed: int = 5, lost: int = 300) -> tuple[list[bytes], list[bytes], Simulator]:
    """What a server had before and after a restart that lost its last events, and what came meanwhile."""
    simulator = Simulator(seed=seed, clock=lambda: 1_700_000_000.0)
    simulator.generate(1000)
    before = simulator.frames
    stopped = simulator.stop

    def stop(*, clean: bool = True) -> None:
        assert clean, "the others are told with 1001"
        stopped(clean=clean)

    simulator.stop = stop  # type: ignore[method-assign]
    with simulator:
        threading.Timer(0.05, simulator.generate, [100]).start()
        simulator.restart(lost=lost, downtime=0.3)
        return before, simulator.frames, simulator


def test_numbers_used_again_are_of_the_last_events_and_of_those_that_came_meanwhile() -> None:
    before, after, _ = restarted()
    assert len(after) == 1100
    assert cursors(after) == list(range(1, 1101))
    assert after[:700] == before[:700]
    # Nothing is lost on the server, and nothing is new.
    assert set(contents(before)) < set(contents(after))
    assert len(set(contents(after))) == 1100
    # Who goes on after the last number that it saw misses some, who rewinds by as many as can be lost none.
    assert set(contents(after)) - set(contents(before)) - set(contents(after[1000:]))
    assert set(contents(after)) <= set(contents(before)) | set(contents(after[700:]))


def test_numbers_used_again_keep_the_order_of_an_account() -> None:
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


def test_the_same_seed_uses_numbers_again_in_the_same_way() -> None:
    assert restarted()[1] == restarted()[1]


@pytest.mark.slow
def test_subscribers_are_told_with_1001_that_numbers_will_be_used_again() -> None:
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
    network = Network(9, 500, odd_revs=0.05)
    now = 1_700_000_000_000_000
    return [network.event(now + number * 1000, number + 1).frame for number in range(4000)]


def imported(frames: list[bytes], seed: int = 1, share: float = 0.3) -> tuple[list[bytes], Imports]:
    imports, dice = Imports(), random.Random(seed)
    return [imports.rewritten(frame, dice, share) for frame in frames], imports


def test_an_import_rewrites_nothing_but_the_time_of_commits_with_a_sound_rev(frames: list[bytes]) -> None:
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


def test_an_imported_event_is_the_same_event_of_the_same_day(frames: list[bytes]) -> None:
    after, _ = imported(frames)
    assert contents(after) == contents(frames)
    for old, new in zip(frames, after, strict=True):
        if old != new:
            assert event_id(event(old)) == event_id(event(new))
            before, now = (build(event(one), "host.example", 1) for one in (old, new))
            assert before.day == now.day


def test_the_same_seed_imports_the_same(frames: list[bytes]) -> None:
    assert imported(frames)[0] == imported(frames)[0]
    assert imported(frames, seed=2)[0] != imported(frames)[0]
    # What was rewritten is not rewritten once more.
    after, imports = imported(frames, share=1.0)
    assert [imports.rewritten(frame, random.Random(1), 1.0) for frame in after] == after


def test_later_updates_of_what_was_imported_have_an_earlier_time_as_well(frames: list[bytes]) -> None:
    _, imports = imported(frames, share=1.0)
    assert len(imports) > 1000
    made = next(one for one in map(event, frames) if one["kind"] == "commit" and _is_sound(one))
    now = made["time_us"] + 5_000_000
    commit = {**made["commit"], "operation": "update", "rev": tid.from_micros(now, 7), "record": {"a": 1}}
    update = {**made, "time_us": now, "commit": commit}
    (after,) = map(event, [imports.applied(orjson.dumps(update))])
    assert 2 * DAY_US <= now - after.pop("time_us") < 90 * DAY_US
    assert after == {name: value for name, value in update.items() if name != "time_us"}
    for other in (
        {**update, "commit": {**commit, "rkey": "another"}},
        {**update, "commit": {**commit, "operation": "delete"}},
        {**update, "commit": {**commit, "rev": tid.from_micros(now - 5 * DAY_US, 7)}},
        {"did": made["did"], "time_us": now, "kind": "identity", "identity": {}},
    ):
        assert imports.applied(orjson.dumps(other)) == orjson.dumps(other)


def _is_sound(one: dict[str, Any]) -> bool:
    micros = tid.to_micros(one["commit"]["rev"])
    return micros is not None and abs(micros - one["time_us"]) < 10_000_000


def test_a_server_sends_what_it_imported_by_both_wires_and_at_the_same_places() -> None:
    with Simulator(seed=5) as simulator:
        simulator.generate(1000)
        old = simulator.frames
        assert simulator.import_timestamps(400, 0.5) > 100
        assert simulator.frames[:600] == old[:600]
        assert cursors(simulator.frames) == cursors(old)
        times = [event(frame)["time_us"] for frame in simulator.frames]
        # A cursor finds an event by the time at which it came.
        newest = event(old[-1])["time_us"]
        for wire in ("v1", "v2"):
            options = ("--since", "0", "--protocol", wire)
            with reading(simulator.url, options=options) as run:
                until(lambda: len(run.frames) == 1000)
                assert [one["time_us"] for one in map(_v1, run.frames)] == times
        assert min(times[600:]) < newest - 2 * DAY_US


def _v1(frame: bytes) -> dict[str, Any]:
    from slurp.simulator import wire2

    one = event(frame)
    return wire2.event_of(one) if "payload" in one else one


# Elasticsearch behind a gateway, and a node that is silent


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    """A server of HTTP/1.1 that says "here", and what it was asked."""
    asked: list[str] = []

    class Here(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked.append(self.path)
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
        yield one.server_port, asked
        one.shutdown()


def ask(
    client: http.client.HTTPConnection, path: str, body: bytes | None = None
) -> tuple[int, str | None, bytes]:
    client.request("POST" if body else "GET", path, body)
    answer = client.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read()


def test_a_gateway_answers_every_path_with_html(server: tuple[int, list[str]]) -> None:
    port, asked = server
    with Proxy(port) as proxy:
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        assert ask(client, "/_bulk", b"x" * 1_000_000)[2] == b"here"
        proxy.be_a_gateway(itertools.cycle((200, 401)))
        # On the connection that stands, on new ones, and with a body that takes many reads.
        for number, path in enumerate(("/_bulk", "/_cluster/health", "/_bulk", "/")):
            status, kind, page = ask(client, path, b"x" * 1_000_000 if path == "/_bulk" else None)
            assert status == (200, 401)[number % 2]
            assert kind == "text/html; charset=utf-8"
            assert page.startswith(b"<!DOCTYPE html>")
        proxy.pass_on()
        assert ask(client, "/_bulk", b"x")[2] == b"here"
        client.close()
    assert asked == ["/_bulk", "/_bulk"]


def test_a_silent_node_takes_connections_and_answers_none(server: tuple[int, list[str]]) -> None:
    port, asked = server
    with Proxy(port) as proxy:
        standing = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.3)
        assert ask(standing, "/a")[0] == 200
        proxy.silence()
        for client in (standing, http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.3)):
            with pytest.raises(socket.timeout):
                ask(client, "/b")
            client.close()
        proxy.recover()
        again = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        assert ask(again, "/c")[0] == 200
        again.close()
    assert asked == ["/a", "/c"]


# The worker's ends

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


def ended(tmp_path: Path, code: int) -> tuple[Runs, Path]:
    program = tmp_path / f"counts{code}.py"
    program.write_text(COUNTS.replace("CODE", str(code)))
    return Runs([], tmp_path, program), program


@pytest.mark.parametrize("code", [0, 1])
def test_two_signals_are_sent_and_must_end_it_in_order(tmp_path: Path, code: int) -> None:
    runs, _ = ended(tmp_path, code)
    runs._start()
    runs._living().wait_for("ready")
    # As long as the two are not one for the kernel.
    runs.stop_doubled(0.1)
    runs.close()
    (life,) = runs.ended
    assert life.said == "2"
    assert (life.code, life.asked, life.as_it_should) == (code, True, code == 0)


def test_a_worker_may_end_for_its_credentials_only_while_they_are_taken_away(tmp_path: Path) -> None:
    for denied in (False, True):
        runs, _ = ended(tmp_path, 2)
        if denied:
            with runs.denied():
                pass
        runs._start()
        runs._living().wait_for("ready")
        runs._living().process.terminate()
        assert runs._living().exit_code() == 2
        with runs._lock:
            runs._bury(None)
        runs.close()
        (life,) = runs.ended
        assert (life.asked, life.as_it_should) == (False, denied)
