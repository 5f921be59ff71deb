"""Messages to systemd, received by a test socket, and when the keep-alive of the watchdog is suspended."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurp.watchdog import Watchdog, notify, watchdog_interval


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_reaches_a_socket_by_path_and_by_abstract_name(tmp_path: Path, abstract: bool) -> None:
    name = f"@skeetslurper-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0") if abstract else name)
        sock.settimeout(5)
        notify("READY=1", "STATUS=one\ntwo", environ={"NOTIFY_SOCKET": name})
        assert sock.recv(1000) == b"READY=1\nSTATUS=one two"


@pytest.mark.parametrize("name", ["", "vsock:2:1", "/nowhere/at/all", "/" + "x" * 200, "/a\0b"])
def test_a_missing_receiver_is_no_error(name: str) -> None:
    notify("READY=1", environ={"NOTIFY_SOCKET": name})


def test_a_receiver_that_does_not_read_does_not_block(systemd: socket.socket) -> None:
    for _ in range(2000):
        notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": systemd.getsockname()})


def test_the_watchdog_interval_applies_to_this_process_only() -> None:
    own = str(os.getpid())
    assert watchdog_interval({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": own}) == 60
    assert watchdog_interval({"WATCHDOG_USEC": "1500000"}) == 1.5
    for usec, pid in (("60000000", "1"), ("0", own), ("", own), ("soon", own)):
        assert watchdog_interval({"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}) is None


class TimedWatchdog:
    """A watchdog with a clock that the test sets, and the times of its keep-alive messages."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent_at: list[float] = []
        self.watchdog = Watchdog(30, self._receive, lambda: self.now)

    def _receive(self, line: str) -> None:
        assert line == "WATCHDOG=1"
        self.sent_at.append(self.now)

    def run_until(self, end: float) -> None:
        """Call `step` once a second up to this time."""
        while self.now < end:
            self.watchdog.step()
            self.now += 1


def test_the_keep_alive_is_sent_at_a_third_of_the_interval() -> None:
    timed = TimedWatchdog()
    timed.run_until(131)
    assert timed.sent_at == [100, 110, 120, 130]


def test_the_keep_alive_is_suspended_while_a_thread_is_stuck(caplog: pytest.LogCaptureFixture) -> None:
    timed = TimedWatchdog()
    heartbeat = timed.watchdog.heartbeat("indexer-1", 15)
    heartbeat.beat()
    timed.run_until(200)
    assert timed.sent_at == [100, 110], "up to 15 s is a slow request, more is stuck"
    assert caplog.text.count("thread indexer-1 has been stuck for") == 1
    heartbeat.beat()
    timed.run_until(211)
    assert timed.sent_at == [100, 110, 200, 210], "the thread has beaten again"


def test_a_thread_that_has_ended_is_not_stuck() -> None:
    timed = TimedWatchdog()
    heartbeats = [timed.watchdog.heartbeat(name, 15) for name in ("reader-1", "indexer-1")]
    for heartbeat in heartbeats:
        heartbeat.beat()
    timed.watchdog.forget("reader-1")
    timed.run_until(120)
    assert [heartbeat.name for heartbeat in timed.watchdog.stuck] == ["indexer-1"]
