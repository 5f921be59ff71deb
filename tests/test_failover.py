"""Failover from servers that fail in all known ways to a healthy one, and changes to a better server."""

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
from slurp.jetstream.servers import ServerProbe
from slurp.pipeline import reader as reader_module
from slurp.simulator.jetstream import Simulator
from tests.harness import reading, until
from tests.proxy import Proxy, self_signed
from tests.tiers import slow_except

STALL = ("--stall-timeout", "500ms")
ERROR_FRAME = '{"$type":"error","payload":{"error":"ConsumerTooSlow","message":"too far behind"}}'

Host = Callable[[Path], AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry within 0.1 s: three failures make a failover."""
    monkeypatch.setattr(reader_module, "Backoff", lambda: Backoff(first=0.02, cap=0.1))


def simulated(inject: Callable[[Simulator], object]) -> Host:
    """Return a simulator with a permanent fault."""

    @contextmanager
    def host(folder: Path) -> Iterator[str]:
        with Simulator(port=0, seed=9) as bad:
            bad.generate(50)
            inject(bad)
            yield bad.url

    return host


@contextmanager
def untrusted(folder: Path) -> Iterator[str]:
    _, context = self_signed(folder)
    with Simulator(port=0, seed=9) as behind, Proxy(behind.port, context) as proxy:
        yield proxy.url


@contextmanager
def without_tls(folder: Path) -> Iterator[str]:
    with Simulator(port=0, seed=9) as plain:
        yield plain.url.replace("ws://", "wss://")


@contextmanager
def unresolvable(folder: Path) -> Iterator[str]:
    yield "ws://jetstream.invalid"


@contextmanager
def not_http(folder: Path) -> Iterator[str]:
    """Listen with another protocol, whose greeting is not valid UTF-8."""
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
        stop = threading.Event()

        def send_garbage() -> None:
            while not stop.wait(0.05):
                bad.faults.garbage("no event", times=1)

        threading.Thread(target=send_garbage, daemon=True).start()
        yield bad.url
        stop.set()


def error_frame(bad: Simulator) -> None:
    bad.faults.garbage(ERROR_FRAME, times=None)
    bad.faults.close(1008, "ConsumerTooSlow", times=None)


FAILURES: dict[str, tuple[Host, str]] = {
    "sends nothing": (simulated(lambda bad: bad.faults.stall(pongs=False, times=None)), "no data for"),
    "sends pongs": (simulated(lambda bad: bad.faults.stall(pongs=True, times=None)), "no data for"),
    "no handshake": (
        simulated(lambda bad: bad.faults.delay(float("inf"), times=None)),
        "no response in time",
    ),
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
    "no TLS": (without_tls, "cannot connect"),
    "no DNS": (unresolvable, "Name or service not known|name resolution"),
    "another protocol": (not_http, "Invalid header line"),
    "not listening": (simulated(lambda bad: bad.stop()), "Connection refused"),
}


@pytest.mark.parametrize(
    "kind", slow_except(FAILURES, "sends nothing", "closes", "cuts", "garbage", "503", "untrusted")
)
def test_a_failing_host_fails_over_to_the_next_one(
    jetstream: Simulator,
    kind: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(dialer, "_HANDSHAKE_TIMEOUT", 1.0)
    for name in ("NO_PROXY", "no_proxy"):
        # A proxy would resolve the name itself.
        monkeypatch.setenv(name, "jetstream.invalid")
    host, reason = FAILURES[kind]
    jetstream.generate(300)
    with host(tmp_path) as bad, reading(bad, jetstream, options=STALL) as run:
        until(lambda: set(jetstream.frames) <= set(run.frames))
        assert run.reader.server == jetstream.url
        assert run.reader.failover.in_cooldown(bad)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 3, "three failures in a row"
    assert all(re.search(reason, line) for line in warnings), warnings
    assert f"; failing over to {jetstream.url.removeprefix('ws://')} in " in warnings[-1]


def test_a_connection_without_data_does_not_reset_the_failure_count(
    jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--stall-timeout` of a minute or more, each handshake used to reset it."""
    monkeypatch.setattr(reader_module, "_RESET_AFTER", 0.3)
    with Simulator(port=0, seed=9) as bad:
        bad.faults.stall(times=None)
        jetstream.generate(100)
        with reading(bad, jetstream, options=STALL) as run:
            until(lambda: len(run.frames) == 100)


def test_the_failure_count_resets_after_a_period_of_received_data(
    jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "_RESET_AFTER", 0.2)
    with Simulator(port=0, seed=9) as other, reading(jetstream, other) as run:
        jetstream.run_at(200)
        for number in range(1, 6):
            until(lambda number=number: len(jetstream.connections) == number and run.reader.connected)  # type: ignore[misc]
            time.sleep(0.4)
            jetstream.faults.cut_after()
        until(lambda: len(jetstream.connections) == 6)
        assert not other.connections


def test_a_half_open_tcp_connection_is_replaced(jetstream: Simulator) -> None:
    """No FIN or RST arrives, as when a router drops the state of a connection."""
    jetstream.run_at(200)
    with Proxy(jetstream.port) as proxy, reading(proxy.url, options=STALL) as run:
        until(lambda: len(run.frames) > 50)
        proxy.freeze()
        until(lambda: proxy.accepted == 2)
        jetstream.pause()
        until(lambda: set(jetstream.frames) == set(run.frames))


def test_a_half_open_tcp_connection_of_a_filtered_stream_is_replaced(jetstream: Simulator) -> None:
    options = (*STALL, "--dids", "did:plc:withoutevents")
    with Proxy(jetstream.port) as proxy, reading(proxy.url, start=None, options=options) as run:
        until(lambda: run.reader.connected)
        time.sleep(1.2)
        assert proxy.accepted == 1, "pongs keep the connection"
        proxy.freeze()
        until(lambda: proxy.accepted == 2)


def test_tls_needs_a_certificate_that_the_machine_trusts_and_the_right_name(
    jetstream: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = self_signed(tmp_path)
    # OpenSSL reads the certificates that the machine trusts from this file.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    jetstream.generate(100)
    with Proxy(jetstream.port, context) as proxy:
        with reading(proxy.url) as run:
            until(lambda: len(run.frames) == 100)
        wrong_name = proxy.url.replace("localhost", "127.0.0.1")
        with reading(wrong_name, jetstream) as run:
            until(lambda: len(run.frames) == 100)
            assert run.reader.server == jetstream.url


# Changing to a better server


def probes(**seconds: float | None) -> Callable[[object], list[ServerProbe]]:
    """Return a probe of servers that measures these handshake times, None for an unreachable server."""
    results = [ServerProbe(url, [] if time is None else [time] * 3) for url, time in seconds.items()]
    return lambda _: sorted(results, key=lambda one: one.median)


def failover_at(server: str, cooldown: str = "") -> Failover:
    """Return the failover of a reader that reads `server`; `cooldown` is a server that it has left."""
    failover = Failover([cooldown, server] if cooldown else [server])
    while failover.current != server:
        failover.failed()
    return failover


def monitor_of(failover: Failover, **seconds: float | None) -> ServerMonitor:
    return ServerMonitor(failover, list(seconds), probe=probes(**seconds))


def test_a_server_must_be_faster_in_two_probes_in_a_row_to_be_preferred() -> None:
    failover = failover_at("b")
    monitor = monitor_of(failover, a=0.02, b=0.1)
    monitor.check()
    assert failover.preferred == (("a", "b"), ""), "one fast probe may be chance"
    monitor.check()
    assert failover.preferred == (("a", "b"), "its handshake takes 20 ms instead of 100 ms")


@pytest.mark.parametrize(
    ("seconds", "cooldown"),
    [
        ({"a": 0.08, "b": 0.1}, ""),
        ({"a": 0.001, "b": 0.02}, ""),
        ({"a": 0.02, "b": None}, ""),
        ({"a": None, "b": 0.1}, ""),
        ({"a": 0.02, "b": 0.1}, "a"),
    ],
    ids=["slightly faster", "both fast", "current one fails the probe", "unreachable", "in cooldown"],
)
def test_the_server_is_not_changed_without_a_clear_advantage(
    seconds: dict[str, float | None], cooldown: str
) -> None:
    failover = failover_at("b", cooldown)
    monitor = monitor_of(failover, **seconds)
    for _ in range(3):
        monitor.check()
    assert failover.preferred[1] == ""


def test_a_silent_server_is_never_preferred_however_fast() -> None:
    failover = failover_at("b")
    silent = ServerProbe("a", [0.001] * 3, listened=True)
    busy = ServerProbe("c", [0.01] * 3, listened=True, first_event=0.1)
    current = ServerProbe("b", [0.1] * 3, listened=True, first_event=0.1)
    for ranked, reason in (([busy, current, silent], "10 ms"), ([current, silent], "")):
        monitor = ServerMonitor(failover, "", probe=lambda _, ranked=ranked: ranked)  # type: ignore[misc]
        for _ in range(2):
            monitor.check()
        assert reason in failover.preferred[1]
        assert bool(failover.preferred[1]) is bool(reason)
    # All servers that send events may be in cooldown.
    failover = failover_at("b", "c")
    monitor = ServerMonitor(failover, "", probe=lambda _: [busy, current, silent])
    for _ in range(2):
        monitor.check()
    assert failover.preferred[1] == ""


def test_a_server_with_v2_is_preferred_immediately_whatever_its_latency() -> None:
    v1_only, slow = ServerProbe("a", [0.01] * 3), ServerProbe("b", [2.0] * 3, v2=True)
    failover = failover_at("a")
    ServerMonitor(failover, "", probe=lambda _: [slow, v1_only]).check()
    assert failover.preferred == (("b", "a"), "it has the v2 protocol")


@pytest.mark.parametrize("sends", [True, False])
def test_a_server_with_only_v1_is_never_preferred_to_one_with_v2(sends: bool) -> None:
    fast = ServerProbe("a", [0.001] * 3, listened=True, first_event=0.01)
    current = ServerProbe("b", [2.0] * 3, v2=True, listened=True, first_event=0.01 if sends else None)
    failover = failover_at("b")
    monitor = ServerMonitor(failover, "", probe=lambda _: [current, fast])
    for _ in range(3):
        monitor.check()
    assert failover.preferred == (("b", "a"), "")


@pytest.mark.parametrize(
    ("probes", "wait"),
    [
        ([ServerProbe("a", [0.1], v2=True)], 1800),
        ([ServerProbe("a", [0.1]), ServerProbe("b", [0.2])], 1800),
        ([ServerProbe("a", [0.1]), ServerProbe("b")], 300),
        ([ServerProbe("b", [0.1], v2=True), ServerProbe("a", [0.1])], 300),
    ],
    ids=["current one has v2", "all have only v1", "one is unreachable", "another one has v2"],
)
def test_servers_are_probed_more_often_while_v1_is_read_and_another_may_have_v2(
    probes: list[ServerProbe], wait: float
) -> None:
    monitor = ServerMonitor(failover_at("a", "b"), "", probe=lambda _: probes, clock=lambda: 0.0)
    monitor.check()
    assert monitor._due == wait


def test_failover_prefers_the_best_server_again_after_its_cooldown(
    jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not use the next one in the list, which may be a legacy host."""
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


def test_failover_tries_all_servers_in_order(jetstream: Simulator) -> None:
    jetstream.generate(10)
    with reading("ws://127.0.0.1:1", "ws://127.0.0.1:2", jetstream) as run:
        until(lambda: len(run.frames) == 10)
        assert run.reader.failover.in_cooldown("ws://127.0.0.1:1")
        assert run.reader.failover.in_cooldown("ws://127.0.0.1:2")


def test_no_server_stays_in_cooldown_when_all_have_failed(jetstream: Simulator) -> None:
    """As when the network of this machine is down: the first server that answers is read, and a change to the
    best one is possible.
    """
    jetstream.generate(10)
    jetstream.stop()
    with reading("ws://127.0.0.1:1", jetstream) as run:
        until(lambda: run.reader.failover._left.keys() == {"ws://127.0.0.1:1"})
        until(lambda: not run.reader.failover._left)
        jetstream.start()
        until(lambda: len(run.frames) == 10)


def test_the_server_is_changed_only_when_no_events_are_in_flight(
    jetstream: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    jetstream.run_at(500)
    with (
        Simulator(port=0, seed=2) as better,
        reading(jetstream, better, start=None, consume=False) as run,
    ):
        until(lambda: run.channel.queue.events > 100)
        run.reader.failover.prefer([better.url, jetstream.url], "for a test")
        time.sleep(1)
        assert not better.connections, "events are in flight"
        better.generate(10, span=1)
        run.start_consuming()
        # The simulator records a connection before it has read the request.
        until(lambda: better.connections and better.connections[0].cursor is not None)
        cursor = better.connections[0].cursor
        assert cursor is not None
        assert 290 < time.time() - cursor / 1e6 < 330, "the cursor is a time five minutes ago"
        until(lambda: set(better.frames) <= set(run.frames))
    changes = [record for record in caplog.records if "switching from" in record.getMessage()]
    assert len(changes) == 1
    assert changes[0].getMessage().endswith(": for a test")
    assert not [record for record in caplog.records if record.levelname == "WARNING"], (
        "a change is not a failure"
    )


def test_the_server_is_changed_only_after_the_reader_has_caught_up(jetstream: Simulator) -> None:
    old = Simulator(port=0, seed=2, clock=lambda: time.time() - 3600)
    with old, reading(old, jetstream) as run:
        run.reader.failover.prefer([jetstream.url], "for a test")
        old.run_at(200)
        until(lambda: len(run.frames) > 200)
        assert not jetstream.connections, "a change now would replay an hour"


def test_failover_uses_the_order_of_the_last_probe(jetstream: Simulator) -> None:
    with Simulator(port=0, seed=2) as second, Simulator(port=0, seed=3) as third:
        third.generate(10)
        with reading(jetstream, second, third, start=None) as run:
            until(lambda: run.reader.connected)
            run.reader.failover.prefer([third.url, second.url, jetstream.url])
            jetstream.stop()
            until(lambda: third.connections)
            assert not second.connections


def test_the_cooldown_of_a_server_doubles_each_time(jetstream: Simulator) -> None:
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
