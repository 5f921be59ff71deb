"""Probes of several servers: one that answers quickly and sends nothing is not preferred."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slurp.jetstream import hosts
from slurp.jetstream.hosts import host_of, probe, table
from slurp.simulator import Simulator
from tests.reading import until
from tests.worker import Worker

FOREVER = 600.0


@pytest.fixture
def silent() -> Iterator[Simulator]:
    """It answers at once, and sends nothing to live subscribers."""
    with Simulator(port=0, seed=2) as server:
        server.generate(100)
        yield server


@pytest.fixture(params=["v1", "v2", "both"])
def sender(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """It answers late, and sends."""
    with Simulator(port=0, seed=3, protocols=request.param) as server:
        server.faults.delay(0.2, times=None)
        server.run_at(200)
        yield server


def test_a_server_that_sends_is_preferred_to_a_quick_silent_one(silent: Simulator, sender: Simulator) -> None:
    probes = probe([silent.url, "ws://127.0.0.1:1", sender.url], listen=True)
    assert [one.url for one in probes] == [sender.url, silent.url, "ws://127.0.0.1:1"]
    first, second, third = table(probes)
    assert "tries)  first event after " in first
    assert second.endswith("tries)  sent no event")
    assert "unreachable: Connection refused" in third


def test_a_filtered_stream_goes_by_handshakes_alone(silent: Simulator, sender: Simulator) -> None:
    probes = probe([sender.url, silent.url])
    assert [one.url for one in probes] == [silent.url, sender.url]
    assert all(line.endswith("tries)") for line in table(probes))


def test_the_wait_ends_when_all_have_sent(sender: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_EVENT_WITHIN", FOREVER)
    monkeypatch.setattr(hosts, "_GRACE", FOREVER)
    with Simulator(port=0, seed=4) as other:
        other.run_at(200)
        probes = probe([sender.url, other.url], listen=True)
    assert [one.url for one in probes] == [other.url, sender.url], "of two that send, the quicker"


def test_the_wait_ends_soon_after_the_first_has_sent(
    silent: Simulator, sender: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_EVENT_WITHIN", FOREVER)
    monkeypatch.setattr(hosts, "_GRACE", 0.1)
    assert probe([silent.url, sender.url], listen=True)[0].url == sender.url


def test_of_servers_that_are_all_silent_the_quickest_is_taken(
    silent: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_EVENT_WITHIN", 0.2)
    monkeypatch.setattr(hosts, "_GRACE", FOREVER)
    with Simulator(port=0, seed=4) as slow:
        slow.faults.delay(0.2, times=None)
        probes = probe([slow.url, silent.url], listen=True)
    assert [one.url for one in probes] == [silent.url, slow.url]
    assert all(line.endswith("sent no event") for line in table(probes))


def test_a_single_server_that_answers_is_not_waited_for(
    silent: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_EVENT_WITHIN", FOREVER)
    probes = probe([silent.url, "ws://127.0.0.1:1"], listen=True)
    assert table(probes)[0].endswith("tries)"), "nobody listened"


def test_garbage_is_no_event(silent: Simulator, sender: Simulator) -> None:
    silent.faults.garbage("no event", times=None)
    assert probe([silent.url, sender.url], listen=True)[0].url == sender.url


def test_a_server_that_hangs_up_is_a_silent_one(
    sender: Simulator, silent: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_GRACE", FOREVER)
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
    silent: Simulator, tmp_path: Path, options: tuple[str, ...], listens: bool
) -> None:
    with Simulator(port=0, seed=3) as sender:
        sender.faults.delay(0.2, times=None)
        sender.run_at(200)
        servers = ("--jetstream", silent.url, "--jetstream", sender.url)
        with Worker(*servers, "--es", "http://127.0.0.1:1", "--no-kibana", *options, home=tmp_path) as worker:
            taken = worker.wait_for("Jetstream: 2 of 2 reachable, taking (.*)")[1]
            worker.wait_for("waiting for|Elasticsearch")
    wanted = "all of them" if "--redundant" in options else host_of(sender.url if listens else silent.url)
    assert taken == wanted
    assert ("sent no event" in worker.log) is listens
