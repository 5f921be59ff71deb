"""Servers that fail in every way we could think of, each beside one that is well."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from slurp.backoff import Backoff
from slurp.jetstream import dialer
from slurp.jetstream import failover as failover_module
from slurp.jetstream.failover import Failover
from slurp.jetstream.server_monitor import ServerMonitor
from slurp.jetstream.servers import Probe
from slurp.pipeline import reader as reader_module
from slurp.simulator.jetstream import Simulator
from tests.harness import reading, until
from tests.proxy import Proxy, self_signed
from tests.tiers import slow_except

STALL = ("--stall-timeout", "500ms")
ERROR_FRAME = '{"$type":"error","payload":{"error":"ConsumerTooSlow","message":"too far behind"}}'

Host = Callable[[Path], AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, so that three failures take no seconds."""
    monkeypatch.setattr(reader_module, "Backoff", lambda: Backoff(first=0.02, cap=0.1))


def simulated(order: Callable[[Simulator], object]) -> Host:
    """A simulator with a fault that stays."""

    @contextmanager
    def host(folder: Path) -> Iterator[str]:
        with Simulator(port=0, seed=9) as bad:
            bad.generate(50)
            order(bad)
            yield bad.url

    return host


@contextmanager
def untrusted(folder: Path) -> Iterator[str]:
    _, context = self_signed(folder)
    with Simulator(port=0, seed=9) as behind, Proxy(behind.port, context) as proxy:
        yield proxy.url


@contextmanager
def no_tls_at_all(folder: Path) -> Iterator[str]:
    with Simulator(port=0, seed=9) as plain:
        yield plain.url.replace("ws://", "wss://")


@contextmanager
def unknown(folder: Path) -> Iterator[str]:
    yield "ws://jetstream.invalid"


@contextmanager
def no_http(folder: Path) -> Iterator[str]:
    """Something else listens there, and says what it is in bytes that are no UTF-8."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"\xff\xfe HELLO \x00\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield f"ws://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def endless_garbage(folder: Path) -> Iterator[str]:
    with Simulator(port=0, seed=9) as bad:
        over = threading.Event()

        def babble() -> None:
            while not over.wait(0.05):
                bad.faults.garbage("no event", times=1)

        threading.Thread(target=babble, daemon=True).start()
        yield bad.url
        over.set()


def error_frame(bad: Simulator) -> None:
    bad.faults.garbage(ERROR_FRAME, times=None)
    bad.faults.close(1008, "ConsumerTooSlow", times=None)


BAD: dict[str, tuple[Host, str]] = {
    "sends nothing": (simulated(lambda bad: bad.faults.stall(pongs=False, times=None)), "no data for"),
    "sends pongs": (simulated(lambda bad: bad.faults.stall(pongs=True, times=None)), "no data for"),
    "no handshake": (simulated(lambda bad: bad.faults.delay(float("inf"), times=None)), "no answer in time"),
    "closes": (simulated(lambda bad: bad.faults.close(1001, "bye", times=None)), "closed with 1001 bye"),
    "cuts": (simulated(lambda bad: bad.faults.cut_after(times=None)), "Connection to remote host was lost"),
    "resets": (simulated(lambda bad: bad.faults.cut_after(reset=True, times=None)), "reset by peer"),
    "error frame": (simulated(error_frame), "closed with 1008 ConsumerTooSlow"),
    "garbage": (endless_garbage, "no frame could be decoded for"),
    "400": (simulated(lambda bad: bad.faults.refuse(400, "no such NSID", times=None)), "HTTP 400 no such"),
    "403": (simulated(lambda bad: bad.faults.refuse(403, times=None)), "HTTP 403"),
    "500": (simulated(lambda bad: bad.faults.refuse(500, times=None)), "HTTP 500"),
    "503": (simulated(lambda bad: bad.faults.refuse(503, "booting", times=None)), "HTTP 503 booting"),
    "untrusted": (untrusted, "certificate verify failed: self-signed certificate"),
    "no TLS": (no_tls_at_all, "can't connect"),
    "no DNS": (unknown, "Name or service not known|name resolution"),
    "no HTTP": (no_http, "Invalid header line"),
    "nobody": (simulated(lambda bad: bad.stop()), "Connection refused"),
}


@pytest.mark.parametrize(
    "kind", slow_except(BAD, "sends nothing", "closes", "cuts", "garbage", "503", "untrusted")
)
def test_a_bad_host_is_left_for_the_next_one(
    jetstream: Simulator,
    kind: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(dialer, "_HANDSHAKE_TIMEOUT", 1.0)
    for name in ("NO_PROXY", "no_proxy"):
        # A proxy would look the name up itself.
        monkeypatch.setenv(name, "jetstream.invalid")
    host, reason = BAD[kind]
    jetstream.generate(300)
    with host(tmp_path) as bad, reading(bad, jetstream, options=STALL) as run:
        until(lambda: set(jetstream.frames) <= set(run.frames))
        assert run.reader.server == jetstream.url
        assert run.reader.failover.in_cooldown(bad)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 3, "three failures in a row"
    assert all(re.search(reason, line) for line in told), told
    assert f"; failing over to {jetstream.url.removeprefix('ws://')} in " in told[-1]


def test_a_long_stall_is_no_good_service(jetstream: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stall time-out of a minute or more, each handshake used to wipe the slate."""
    monkeypatch.setattr(reader_module, "_RESET_AFTER", 0.3)
    with Simulator(port=0, seed=9) as bad:
        bad.faults.stall(times=None)
        jetstream.generate(100)
        with reading(bad, jetstream, options=STALL) as run:
            until(lambda: len(run.frames) == 100)


def test_good_service_wipes_the_slate(jetstream: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_RESET_AFTER", 0.2)
    with Simulator(port=0, seed=9) as other, reading(jetstream, other) as run:
        jetstream.run_at(200)
        for number in range(1, 6):
            until(lambda number=number: len(jetstream.connections) == number and run.reader.connected)  # type: ignore[misc]
            time.sleep(0.4)
            jetstream.faults.cut_after()
        until(lambda: len(jetstream.connections) == 6)
        assert not other.connections


def test_half_open_tcp(jetstream: Simulator) -> None:
    """No FIN and no RST comes, as when a router forgets a connection."""
    jetstream.run_at(200)
    with Proxy(jetstream.port) as proxy, reading(proxy.url, options=STALL) as run:
        until(lambda: len(run.frames) > 50)
        proxy.freeze()
        until(lambda: proxy.accepted == 2)
        jetstream.pause()
        until(lambda: set(jetstream.frames) == set(run.frames))


def test_half_open_tcp_behind_a_filter(jetstream: Simulator) -> None:
    options = (*STALL, "--dids", "did:plc:nobody")
    with Proxy(jetstream.port) as proxy, reading(proxy.url, start=None, options=options) as run:
        until(lambda: run.reader.connected)
        time.sleep(1.2)
        assert proxy.accepted == 1, "pongs suffice"
        proxy.freeze()
        until(lambda: proxy.accepted == 2)


def test_tls_with_a_certificate_that_the_machine_trusts(
    jetstream: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = self_signed(tmp_path)
    # What OpenSSL takes for the certificates of the machine.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    jetstream.generate(100)
    with Proxy(jetstream.port, context) as proxy:
        with reading(proxy.url) as run:
            until(lambda: len(run.frames) == 100)
        wrong_name = proxy.url.replace("localhost", "127.0.0.1")
        with reading(wrong_name, jetstream) as run:
            until(lambda: len(run.frames) == 100)
            assert run.reader.server == jetstream.url


# Going back to a better host


def probes(**seconds: float | None) -> Callable[[object], list[Probe]]:
    """What a probe of servers a, b, c would find."""
    found = [Probe(url, [] if time is None else [time] * 3) for url, time in seconds.items()]
    return lambda _: sorted(found, key=lambda one: one.median)


def failover_at(server: str, cooldown: str = "") -> Failover:
    """The failover of a reader that reads `server`, after it has left another one for its failures."""
    found = Failover([cooldown, server] if cooldown else [server])
    while found.current != server:
        found.failed()
    return found


def monitor(found: Failover, **seconds: float | None) -> ServerMonitor:
    return ServerMonitor(found, list(seconds), probe=probes(**seconds))


def test_only_what_is_better_twice_in_a_row_is_better() -> None:
    at = failover_at("b")
    looking = monitor(at, a=0.02, b=0.1)
    looking.check()
    assert at.preferred == (("a", "b"), ""), "once may be luck"
    looking.check()
    assert at.preferred == (("a", "b"), "its handshake takes 20 ms instead of 100 ms")


@pytest.mark.parametrize(
    ("seconds", "cooldown"),
    [
        ({"a": 0.08, "b": 0.1}, ""),
        ({"a": 0.001, "b": 0.02}, ""),
        ({"a": 0.02, "b": None}, ""),
        ({"a": None, "b": 0.1}, ""),
        ({"a": 0.02, "b": 0.1}, "a"),
    ],
    ids=["a little", "both quick", "ours is busy", "away", "left for its failures"],
)
def test_what_is_no_reason_to_change(seconds: dict[str, float | None], cooldown: str) -> None:
    at = failover_at("b", cooldown)
    looking = monitor(at, **seconds)
    for _ in range(3):
        looking.check()
    assert at.preferred[1] == ""


def test_a_silent_server_is_no_better_however_quick() -> None:
    at = failover_at("b")
    silent = Probe("a", [0.001] * 3, listened=True)
    busy = Probe("c", [0.01] * 3, listened=True, first_event=0.1)
    ours = Probe("b", [0.1] * 3, listened=True, first_event=0.1)
    for ranked, reason in (([busy, ours, silent], "10 ms"), ([ours, silent], "")):
        looking = ServerMonitor(at, "", probe=lambda _, ranked=ranked: ranked)  # type: ignore[misc]
        for _ in range(2):
            looking.check()
        assert reason in at.preferred[1]
        assert bool(at.preferred[1]) is bool(reason)
    # Those that send may all be barred.
    at = failover_at("b", "c")
    looking = ServerMonitor(at, "", probe=lambda _: [busy, ours, silent])
    for _ in range(2):
        looking.check()
    assert at.preferred[1] == ""


def test_a_server_with_v2_is_better_at_once_whatever_the_latency() -> None:
    legacy, slow = Probe("a", [0.01] * 3), Probe("b", [2.0] * 3, v2=True)
    at = failover_at("a")
    ServerMonitor(at, "", probe=lambda _: [slow, legacy]).check()
    assert at.preferred == (("b", "a"), "it has the v2 protocol")


@pytest.mark.parametrize("sends", [True, False])
def test_a_server_of_v1_alone_is_never_better_than_one_with_v2(sends: bool) -> None:
    quick = Probe("a", [0.001] * 3, listened=True, first_event=0.01)
    ours = Probe("b", [2.0] * 3, v2=True, listened=True, first_event=0.01 if sends else None)
    at = failover_at("b")
    looking = ServerMonitor(at, "", probe=lambda _: [ours, quick])
    for _ in range(3):
        looking.check()
    assert at.preferred == (("b", "a"), "")


@pytest.mark.parametrize(
    ("probes", "wait"),
    [
        ([Probe("a", [0.1], v2=True)], 1800),
        ([Probe("a", [0.1]), Probe("b", [0.2])], 1800),
        ([Probe("a", [0.1]), Probe("b")], 300),
        ([Probe("b", [0.1], v2=True), Probe("a", [0.1])], 300),
    ],
    ids=["on v2", "all of v1", "one is away", "one has v2"],
)
def test_it_looks_more_often_while_v1_is_read_and_v2_may_come_back(probes: list[Probe], wait: float) -> None:
    looking = ServerMonitor(failover_at("a", "b"), "", probe=lambda _: probes, clock=lambda: 0.0)
    looking.check()
    assert looking._due == wait


def test_after_a_while_fail_over_begins_with_the_best_again(
    jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the next in the list, which may be a legacy host."""
    monkeypatch.setattr(failover_module, "_COOLDOWN", 0.1)
    with Simulator(port=0, seed=2) as second, Simulator(port=0, seed=3) as legacy:
        jetstream.stop()
        with reading(jetstream, second, legacy, start=None) as run:
            until(lambda: run.reader.connected)
            assert run.reader.server == second.url
            time.sleep(0.2)
            jetstream.start()
            second.stop()
            until(lambda: run.reader.connected and run.reader.server == jetstream.url)
            assert not legacy.connections


def test_a_legacy_host_comes_after_all_others_and_all_are_tried(jetstream: Simulator) -> None:
    jetstream.generate(10)
    with reading("ws://127.0.0.1:1", "ws://127.0.0.1:2", jetstream) as run:
        until(lambda: len(run.frames) == 10)
        assert run.reader.failover.in_cooldown("ws://127.0.0.1:1")
        assert run.reader.failover.in_cooldown("ws://127.0.0.1:2")


def test_when_all_fail_none_is_blamed(jetstream: Simulator) -> None:
    """As when the network of this machine is down: the first that answers again is read, the best one
    may be gone back to."""
    jetstream.generate(10)
    jetstream.stop()
    with reading("ws://127.0.0.1:1", jetstream) as run:
        until(lambda: run.reader.failover._left.keys() == {"ws://127.0.0.1:1"})
        until(lambda: not run.reader.failover._left)
        jetstream.start()
        until(lambda: len(run.frames) == 10)


def test_a_change_waits_for_a_quiet_moment(jetstream: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    jetstream.run_at(500)
    with (
        Simulator(port=0, seed=2) as better,
        reading(jetstream, better, start=None, consume=False) as run,
    ):
        until(lambda: run.channel.queue.events > 100)
        run.reader.failover.prefer([better.url, jetstream.url], "for a test")
        time.sleep(1)
        assert not better.connections, "something waits for an answer"
        better.generate(10, span=1)
        run.start_consuming()
        # The record of a connection is there before its request was read.
        until(lambda: better.connections and better.connections[0].cursor is not None)
        cursor = better.connections[0].cursor
        assert cursor is not None
        assert 290 < time.time() - cursor / 1e6 < 330, "by time, five minutes back"
        until(lambda: set(better.frames) <= set(run.frames))
    before = [record for record in caplog.records if "switching from" in record.getMessage()]
    assert len(before) == 1
    assert before[0].getMessage().endswith(": for a test")
    assert not [record for record in caplog.records if record.levelname == "WARNING"], "nobody is blamed"


def test_a_change_waits_until_it_has_caught_up(jetstream: Simulator) -> None:
    old = Simulator(port=0, seed=2, clock=lambda: time.time() - 3600)
    with old, reading(old, jetstream) as run:
        run.reader.failover.prefer([jetstream.url], "for a test")
        old.run_at(200)
        until(lambda: len(run.frames) > 200)
        assert not jetstream.connections, "an hour would be read again"


def test_the_order_of_a_probe_is_that_of_fail_over(jetstream: Simulator) -> None:
    with Simulator(port=0, seed=2) as second, Simulator(port=0, seed=3) as third:
        third.generate(10)
        with reading(jetstream, second, third, start=None) as run:
            until(lambda: run.reader.connected)
            run.reader.failover.prefer([third.url, second.url, jetstream.url])
            jetstream.stop()
            until(lambda: third.connections)
            assert not second.connections


def test_a_host_is_barred_for_twice_as_long_each_time(jetstream: Simulator) -> None:
    bad = "ws://127.0.0.1:1"
    jetstream.run_at(100)
    with reading(bad, jetstream, start=None) as run:
        until(lambda: run.reader.connected)
        assert 1700 < run.reader.failover._left[bad][0] - time.monotonic() < 1800
        run.reader.failover.prefer([bad, jetstream.url], "for a test")
        until(lambda: run.reader.failover._left[bad][1] == 2)
        assert 3500 < run.reader.failover._left[bad][0] - time.monotonic() < 3600
        assert run.reader.failover.in_cooldown(bad)
        assert not run.reader.failover.in_cooldown(jetstream.url)
