"""A stuck thread is detected: each thread of a whole service is blocked in turn."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from slurp.config import parse
from slurp.elastic.daily_indices import DailyIndices
from slurp.embedded.node import EmbeddedNode
from slurp.jetstream.server_monitor import ServerMonitor
from slurp.kibana.install import Installer
from slurp.logs import Screen, Secrets
from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.monitoring.stats import Stats
from slurp.pipeline.indexer import Indexer
from slurp.pipeline.reader import Reader
from slurp.service import Service
from slurp.simulator.jetstream import Simulator
from slurp.tasks import CheckpointTask
from slurp.watchdog import Heartbeat, Watchdog
from slurp.web.history import History

# Threads that indexing needs, each with the method that the test blocks.
VITAL: dict[str, tuple[type, str]] = {
    "MainThread": (Service, "_check_received"),
    "reader-1": (Reader, "_connect"),
    "indexer-1": (Indexer, "_index"),
    "checkpoint": (CheckpointTask, "_save"),
    "housekeeping": (DailyIndices, "ensure_tomorrow"),
    "stats": (Stats, "step"),
    "server-monitor": (ServerMonitor, "step"),
}
# Threads that indexing does not need.
OPTIONAL: dict[str, tuple[type, str]] = {
    "kibana": (Installer, "_try"),
    "http": (History, "step"),
    "http-probe": (ElasticProbe, "step"),
}
# More seconds than the limit of any thread.
HOURS = 10_000.0


class BlockedService:
    """A whole service on a thread, one method of which blocks, and the clock of its watchdog."""

    def __init__(
        self, options: tuple[str, ...], home: Path, owner: type, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.ahead = 0.0
        self._entered = threading.Event()
        self._released = threading.Event()
        monkeypatch.setattr(owner, name, self._blocking(getattr(owner, name)))
        monkeypatch.setattr("slurp.service.ServerMonitor", partial(ServerMonitor, every=0.2))
        monkeypatch.setattr("slurp.service.Watchdog", partial(Watchdog, clock=self._clock))
        config = parse(list(options), {"HOME": str(home), "STATE_DIRECTORY": str(home)})
        self.service = Service(config, Screen(), Secrets(config.secrets), version="0")
        self._thread = threading.Thread(target=self.service.run, daemon=True)
        self._thread.start()
        assert self._entered.wait(60)

    def _clock(self) -> float:
        return time.monotonic() + self.ahead

    def _blocking(self, step: Callable[..., object]) -> Callable[..., object]:
        def block(*arguments: object, **named: object) -> object:
            if not self._entered.is_set():
                self._entered.set()
                self._released.wait(120)
            return step(*arguments, **named)

        return block

    def wait_for(self, heartbeats: Callable[[], list[Heartbeat]], names: set[str]) -> None:
        """Wait until exactly these threads are stuck: all others must have beaten again."""
        deadline = time.monotonic() + 60
        while (stuck := {heartbeat.name for heartbeat in heartbeats()}) != names:
            assert time.monotonic() < deadline, stuck
            time.sleep(0.05)

    def get_healthz(self) -> tuple[int, str]:
        """Return status and body of /healthz."""
        deadline = time.monotonic() + 60
        while (server := self.service._web) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=30)
        try:
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def stop(self) -> None:
        self._released.set()
        self.service._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("thread", [*VITAL, *OPTIONAL])
def test_a_stuck_thread_is_detected(
    thread: str,
    es_node: EmbeddedNode,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, name = (VITAL | OPTIONAL)[thread]
    with Simulator(port=0, seed=2) as other:
        for server in (jetstream, other):
            server.run_at(200)
        options = (
            *("--jetstream", jetstream.url, "--jetstream", other.url, "--es", es_node.url),
            *("--index", fresh_index_prefix, "--stats-interval", "1s", "--indexers", "1", "--grace", "5s"),
            *("--http", "127.0.0.1:0", "--kibana", "http://127.0.0.1:1"),
        )
        blocked = BlockedService(options, tmp_path, owner, name, monkeypatch)
        try:
            watchdog = blocked.service._watchdog
            assert not watchdog.stuck
            blocked.ahead = HOURS
            blocked.wait_for(lambda: watchdog.stuck, {thread} & VITAL.keys())
            blocked.wait_for(lambda: watchdog.impaired, {thread} & OPTIONAL.keys())
            if thread in VITAL:
                status, text = blocked.get_healthz()
                assert status == 503
                assert text.startswith(f"{thread} has been stuck for 2h46m")
            elif thread != "http":
                assert blocked.get_healthz() == (
                    200,
                    f"alive\n{thread} has been stuck for 2h46m; indexing continues\n",
                )
        finally:
            blocked.stop()


def test_a_stuck_thread_is_logged_also_without_systemd(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    sent: list[str] = []
    watchdog = Watchdog(None, sent.append, lambda: now[0])
    watchdog.heartbeat("stats", 60).beat()
    watchdog.heartbeat("kibana", 60, vital=False).beat()
    for _ in range(20):
        now[0] += 10
        watchdog.step()
    assert [record.getMessage().partition(" has been stuck for ")[0] for record in caplog.records] == [
        "thread stats",
        "thread kibana",
    ]
    assert sent == []


def test_a_stuck_optional_thread_does_not_suspend_the_keep_alive() -> None:
    now, sent = [0.0], list[str]()
    watchdog = Watchdog(30, sent.append, lambda: now[0])
    watchdog.heartbeat("kibana", 60, vital=False).beat()
    for _ in range(30):
        now[0] += 10
        watchdog.step()
    assert len(sent) == 30
    assert [heartbeat.name for heartbeat in watchdog.impaired] == ["kibana"]
    assert watchdog.stuck == []


def test_a_pause_between_two_attempts_does_not_count() -> None:
    now = [0.0]
    watchdog = Watchdog(30, lambda line: None, lambda: now[0])
    heartbeat = watchdog.heartbeat("server-monitor", 60)
    with heartbeat:
        now[0] += 61
        assert watchdog.stuck == [heartbeat]
    now[0] += 1800
    assert watchdog.stuck == []
