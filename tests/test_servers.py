"""Probes of several servers: v2 ranks before v1, a server that sends events before a faster silent one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurp.jetstream import servers
from slurp.jetstream.servers import format_probes, host_of, probe_servers
from slurp.simulator import protocol_v2
from slurp.simulator.jetstream import Simulator
from tests.harness import until
from tests.tiers import slow_except
from tests.worker import Worker

FOREVER = 600.0


@pytest.fixture(params=slow_except(["v1", "v2", "both"], "both"))
def protocols(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def silent(protocols: str) -> Iterator[Simulator]:
    """A server that responds immediately and sends nothing to live subscribers."""
    with Simulator(port=0, seed=2, protocols=protocols) as server:
        server.generate(100)
        yield server


@pytest.fixture
def sender(protocols: str) -> Iterator[Simulator]:
    """A server that responds late and sends events."""
    with Simulator(port=0, seed=3, protocols=protocols) as server:
        server.faults.delay(0.2, times=None)
        server.run_at(200)
        yield server


@pytest.fixture
def legacy() -> Iterator[Simulator]:
    """A server that speaks only v1, responds immediately and sends events."""
    with Simulator(port=0, seed=2, protocols="v1") as server:
        server.run_at(200)
        yield server


@pytest.fixture
def late() -> Iterator[Simulator]:
    """A server that speaks both protocols, responds late and sends events."""
    with Simulator(port=0, seed=3) as server:
        server.faults.delay(0.2, times=None)
        server.run_at(200)
        yield server


@pytest.mark.parametrize("listen", [False, True])
@pytest.mark.parametrize("protocol", ["auto", "v1"])
def test_a_server_with_v2_ranks_first_at_any_latency(
    legacy: Simulator, late: Simulator, protocol: str, listen: bool
) -> None:
    probes = probe_servers(["ws://127.0.0.1:1", legacy.url, late.url], protocol=protocol, listen=listen)
    assert [one.url for one in probes] == [late.url, legacy.url, "ws://127.0.0.1:1"]
    assert [one.v2 for one in probes] == [True, False, False]
    assert "tries, v2)" in format_probes(probes)[0]
    assert "tries, v1 only)" in format_probes(probes)[1]


def test_protocol_v2_does_not_use_a_v1_server(legacy: Simulator, late: Simulator) -> None:
    first, second = probe_servers([legacy.url, late.url], protocol="v2")
    assert (first.url, second.times) == (late.url, [])
    assert second.error.startswith("HTTP 404")


@pytest.mark.parametrize(("option", "protocol"), [("auto", "v2"), ("v1", "v1"), ("v2", "v2")])
def test_the_probe_listens_on_the_protocol_that_will_be_read(
    late: Simulator, option: str, protocol: str
) -> None:
    with Simulator(port=0, seed=4) as other:
        other.run_at(200)
        probe_servers([late.url, other.url], protocol=option, listen=True)
    # The connection that listens is the one without a filter.
    listening = [one.path for one in other.connections if not one.params]
    assert listening == ["/subscribe" if protocol == "v1" else protocol_v2.PATH]


@pytest.mark.parametrize("protocol", ["auto", "v1", "v2"])
def test_a_gateway_that_responds_404_is_unreachable(late: Simulator, protocol: str) -> None:
    late.faults.refuse(404, times=None)
    (one,) = probe_servers([late.url], protocol=protocol)
    assert (one.times, one.error, one.v2) == ([], "HTTP 404 Not Found", False)


def test_a_starting_server_still_counts_as_v2(late: Simulator) -> None:
    late.faults.delay(0.0)
    late.faults.refuse(503, "booting", times=2)
    (one,) = probe_servers([late.url])
    assert (len(one.times), one.v2) == (1, True)


def test_a_server_that_sends_ranks_before_a_faster_silent_one(silent: Simulator, sender: Simulator) -> None:
    probes = probe_servers([silent.url, "ws://127.0.0.1:1", sender.url], listen=True)
    assert [one.url for one in probes] == [sender.url, silent.url, "ws://127.0.0.1:1"]
    first, second, third = format_probes(probes)
    assert ")  first event after " in first
    assert second.endswith(")  sent no event")
    assert "unreachable: Connection refused" in third


def test_without_listening_only_latency_ranks_servers(silent: Simulator, sender: Simulator) -> None:
    probes = probe_servers([sender.url, silent.url])
    assert [one.url for one in probes] == [silent.url, sender.url]
    assert all(re.search(r"tries, (v2|v1 only)\)$", line) for line in format_probes(probes))


def test_the_wait_ends_when_all_servers_have_sent(
    sender: Simulator, protocols: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_EVENT_WITHIN", FOREVER)
    monkeypatch.setattr(servers, "_GRACE", FOREVER)
    with Simulator(port=0, seed=4, protocols=protocols) as other:
        other.run_at(200)
        probes = probe_servers([sender.url, other.url], listen=True)
    assert [one.url for one in probes] == [other.url, sender.url], "the faster one of two that send"


def test_the_wait_ends_one_grace_period_after_the_first_event(
    silent: Simulator, sender: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_EVENT_WITHIN", FOREVER)
    monkeypatch.setattr(servers, "_GRACE", 0.1)
    assert probe_servers([silent.url, sender.url], listen=True)[0].url == sender.url


def test_silent_servers_are_ranked_by_latency(
    silent: Simulator, protocols: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_EVENT_WITHIN", 0.2)
    monkeypatch.setattr(servers, "_GRACE", FOREVER)
    with Simulator(port=0, seed=4, protocols=protocols) as slow:
        slow.faults.delay(0.2, times=None)
        probes = probe_servers([slow.url, silent.url], listen=True)
    assert [one.url for one in probes] == [silent.url, slow.url]
    assert all(line.endswith("sent no event") for line in format_probes(probes))


def test_a_single_reachable_server_is_not_listened_to(
    silent: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_EVENT_WITHIN", FOREVER)
    probes = probe_servers([silent.url, "ws://127.0.0.1:1"], listen=True)
    assert format_probes(probes)[0].endswith(")"), "not listened to"


def test_an_invalid_frame_does_not_count_as_an_event(silent: Simulator, sender: Simulator) -> None:
    silent.faults.garbage("invalid", times=None)
    assert probe_servers([silent.url, sender.url], listen=True)[0].url == sender.url


def test_a_server_that_closes_the_connection_counts_as_silent(
    sender: Simulator, silent: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_GRACE", FOREVER)
    silent.faults.close(1001, "bye", times=None)
    assert probe_servers([silent.url, sender.url], listen=True)[0].url == sender.url


def test_probes_close_all_their_connections(silent: Simulator, sender: Simulator) -> None:
    probe_servers([silent.url, sender.url], listen=True)
    for server in (silent, sender):
        until(lambda server=server: all(one.ended for one in server.connections))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "listens"),
    [((), True), (("--collections", "app.bsky.feed.post"), False), (("--redundant",), False)],
)
def test_the_worker_reads_from_the_server_that_sends(
    tmp_path: Path, options: tuple[str, ...], listens: bool
) -> None:
    with Simulator(port=0, seed=2) as silent, Simulator(port=0, seed=3) as sender:
        silent.generate(100)
        sender.faults.delay(0.2, times=None)
        sender.run_at(200)
        servers = ("--jetstream", silent.url, "--jetstream", sender.url)
        with Worker(*servers, "--es", "http://127.0.0.1:1", "--no-kibana", *options, home=tmp_path) as worker:
            chosen = worker.wait_for("Jetstream: 2 of 2 reachable, using (.*)")[1]
            worker.wait_for("waiting for|Elasticsearch")
    wanted = "all of them" if "--redundant" in options else host_of(sender.url if listens else silent.url)
    assert chosen == wanted
    assert ("sent no event" in worker.log) is listens
