"""Probes of several servers: v2 is preferred to v1, one that sends to one that is quick and silent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurp.jetstream import servers
from slurp.jetstream.servers import host_of, probe, table
from slurp.simulator import wire2
from slurp.simulator.jetstream import Simulator
from tests.harness import until
from tests.tiers import slow_except
from tests.worker import Worker

FOREVER = 600.0


@pytest.fixture(params=slow_except(["v1", "v2", "both"], "both"))
def wires(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def silent(wires: str) -> Iterator[Simulator]:
    """It answers at once, and sends nothing to live subscribers."""
    with Simulator(port=0, seed=2, protocols=wires) as server:
        server.generate(100)
        yield server


@pytest.fixture
def sender(wires: str) -> Iterator[Simulator]:
    """It answers late, and sends."""
    with Simulator(port=0, seed=3, protocols=wires) as server:
        server.faults.delay(0.2, times=None)
        server.run_at(200)
        yield server


@pytest.fixture
def legacy() -> Iterator[Simulator]:
    """It speaks v1 alone, answers at once, and sends."""
    with Simulator(port=0, seed=2, protocols="v1") as server:
        server.run_at(200)
        yield server


@pytest.fixture
def late() -> Iterator[Simulator]:
    """It speaks both wires, answers late, and sends."""
    with Simulator(port=0, seed=3) as server:
        server.faults.delay(0.2, times=None)
        server.run_at(200)
        yield server


@pytest.mark.parametrize("listen", [False, True])
@pytest.mark.parametrize("protocol", ["auto", "v1"])
def test_a_server_with_v2_is_preferred_whatever_the_latency(
    legacy: Simulator, late: Simulator, protocol: str, listen: bool
) -> None:
    probes = probe(["ws://127.0.0.1:1", legacy.url, late.url], protocol=protocol, listen=listen)
    assert [one.url for one in probes] == [late.url, legacy.url, "ws://127.0.0.1:1"]
    assert [one.v2 for one in probes] == [True, False, False]
    assert "tries, v2)" in table(probes)[0]
    assert "tries, v1 only)" in table(probes)[1]


def test_protocol_v2_can_not_use_a_server_of_v1(legacy: Simulator, late: Simulator) -> None:
    first, second = probe([legacy.url, late.url], protocol="v2")
    assert (first.url, second.times) == (late.url, [])
    assert second.error.startswith("HTTP 404")


@pytest.mark.parametrize(("protocol", "wire"), [("auto", "v2"), ("v1", "v1"), ("v2", "v2")])
def test_it_listens_on_the_wire_that_will_be_read(late: Simulator, protocol: str, wire: str) -> None:
    with Simulator(port=0, seed=4) as other:
        other.run_at(200)
        probe([late.url, other.url], protocol=protocol, listen=True)
    # Of handshakes the last is the one that listens: it has no filter.
    listening = [one.path for one in other.connections if not one.params]
    assert listening == ["/subscribe" if wire == "v1" else wire2.PATH]


@pytest.mark.parametrize("protocol", ["auto", "v1", "v2"])
def test_a_gateway_that_answers_404_is_no_server_of_v1(late: Simulator, protocol: str) -> None:
    late.faults.refuse(404, times=None)
    (one,) = probe([late.url], protocol=protocol)
    assert (one.times, one.error, one.v2) == ([], "HTTP 404 Not Found", False)


def test_a_server_that_boots_is_not_taken_for_one_of_v1(late: Simulator) -> None:
    late.faults.delay(0.0)
    late.faults.refuse(503, "booting", times=2)
    (one,) = probe([late.url])
    assert (len(one.times), one.v2) == (1, True)


def test_a_server_that_sends_is_preferred_to_a_quick_silent_one(silent: Simulator, sender: Simulator) -> None:
    probes = probe([silent.url, "ws://127.0.0.1:1", sender.url], listen=True)
    assert [one.url for one in probes] == [sender.url, silent.url, "ws://127.0.0.1:1"]
    first, second, third = table(probes)
    assert ")  first event after " in first
    assert second.endswith(")  sent no event")
    assert "unreachable: Connection refused" in third


def test_a_filtered_stream_goes_by_handshakes_alone(silent: Simulator, sender: Simulator) -> None:
    probes = probe([sender.url, silent.url])
    assert [one.url for one in probes] == [silent.url, sender.url]
    assert all(re.search(r"tries, (v2|v1 only)\)$", line) for line in table(probes))


def test_the_wait_ends_when_all_have_sent(
    sender: Simulator, wires: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_EVENT_WITHIN", FOREVER)
    monkeypatch.setattr(servers, "_GRACE", FOREVER)
    with Simulator(port=0, seed=4, protocols=wires) as other:
        other.run_at(200)
        probes = probe([sender.url, other.url], listen=True)
    assert [one.url for one in probes] == [other.url, sender.url], "of two that send, the quicker"


def test_the_wait_ends_soon_after_the_first_has_sent(
    silent: Simulator, sender: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_EVENT_WITHIN", FOREVER)
    monkeypatch.setattr(servers, "_GRACE", 0.1)
    assert probe([silent.url, sender.url], listen=True)[0].url == sender.url


def test_of_servers_that_are_all_silent_the_quickest_is_taken(
    silent: Simulator, wires: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_EVENT_WITHIN", 0.2)
    monkeypatch.setattr(servers, "_GRACE", FOREVER)
    with Simulator(port=0, seed=4, protocols=wires) as slow:
        slow.faults.delay(0.2, times=None)
        probes = probe([slow.url, silent.url], listen=True)
    assert [one.url for one in probes] == [silent.url, slow.url]
    assert all(line.endswith("sent no event") for line in table(probes))


def test_a_single_server_that_answers_is_not_waited_for(
    silent: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_EVENT_WITHIN", FOREVER)
    probes = probe([silent.url, "ws://127.0.0.1:1"], listen=True)
    assert table(probes)[0].endswith(")"), "nobody listened"


def test_garbage_is_no_event(silent: Simulator, sender: Simulator) -> None:
    silent.faults.garbage("no event", times=None)
    assert probe([silent.url, sender.url], listen=True)[0].url == sender.url


def test_a_server_that_hangs_up_is_a_silent_one(
    sender: Simulator, silent: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_GRACE", FOREVER)
    silent.faults.close(1001, "bye", times=None)
    assert probe([silent.url, sender.url], listen=True)[0].url == sender.url


def test_no_connection_is_left_open(silent: Simulator, sender: Simulator) -> None:
    probe([silent.url, sender.url], listen=True)
    for server in (silent, sender):
        until(lambda server=server: all(one.ended for one in server.connections))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "listens"),
    [((), True), (("--collections", "app.bsky.feed.post"), False), (("--redundant",), False)],
)
def test_the_worker_takes_the_server_that_sends(
    tmp_path: Path, options: tuple[str, ...], listens: bool
) -> None:
    with Simulator(port=0, seed=2) as silent, Simulator(port=0, seed=3) as sender:
        silent.generate(100)
        sender.faults.delay(0.2, times=None)
        sender.run_at(200)
        servers = ("--jetstream", silent.url, "--jetstream", sender.url)
        with Worker(*servers, "--es", "http://127.0.0.1:1", "--no-kibana", *options, home=tmp_path) as worker:
            taken = worker.wait_for("Jetstream: 2 of 2 reachable, taking (.*)")[1]
            worker.wait_for("waiting for|Elasticsearch")
    wanted = "all of them" if "--redundant" in options else host_of(sender.url if listens else silent.url)
    assert taken == wanted
    assert ("sent no event" in worker.log) is listens
