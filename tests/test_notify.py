"""systemd, played by a datagram socket: what it is told, and when the watchdog is not fed."""

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
def test_a_datagram_reaches_either_kind_of_socket(tmp_path: Path, abstract: bool) -> None:
    name = f"@skeetslurper-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0") if abstract else name)
        sock.settimeout(5)
        notify("READY=1", "STATUS=one\ntwo", environ={"NOTIFY_SOCKET": name})
        assert sock.recv(1000) == b"READY=1\nSTATUS=one two"


@pytest.mark.parametrize("name", ["", "vsock:2:1", "/nowhere/at/all", "/" + "x" * 200, "/a\0b"])
def test_nobody_listening_is_no_error(name: str) -> None:
    notify("READY=1", environ={"NOTIFY_SOCKET": name})


def test_whoever_does_not_read_holds_nobody_up(systemd: socket.socket) -> None:
    for _ in range(2000):
        notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": systemd.getsockname()})


def test_the_watchdog_is_ours_or_nobodys() -> None:
    mine = str(os.getpid())
    assert watchdog_interval({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": mine}) == 60
    assert watchdog_interval({"WATCHDOG_USEC": "1500000"}) == 1.5
    for usec, pid in (("60000000", "1"), ("0", mine), ("", mine), ("soon", mine)):
        assert watchdog_interval({"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}) is None


class Played:
    """A watchdog by a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.fed: list[float] = []
        self.watchdog = Watchdog(30, self._take, lambda: self.now)

    def _take(self, line: str) -> None:
        assert line == "WATCHDOG=1"
        self.fed.append(self.now)

    def until(self, end: float) -> None:
        while self.now < end:
            self.watchdog.step()
            self.now += 1


def test_it_is_fed_at_a_third() -> None:
    played = Played()
    played.until(131)
    assert played.fed == [100, 110, 120, 130]


def test_it_starves_while_a_thread_is_stuck(caplog: pytest.LogCaptureFixture) -> None:
    played = Played()
    pulse = played.watchdog.pulse("indexer-1", 15)
    pulse.beat()
    played.until(200)
    assert played.fed == [100, 110], "15 s are a long request, more are not"
    assert caplog.text.count("indexer-1 hangs for") == 1
    pulse.beat()
    played.until(211)
    assert played.fed == [100, 110, 200, 210], "it came round after all"


def test_a_thread_that_has_ended_is_not_stuck() -> None:
    played = Played()
    pulses = [played.watchdog.pulse(name, 15) for name in ("reader-1", "indexer-1")]
    for pulse in pulses:
        pulse.beat()
    played.watchdog.forget("reader-1")
    played.until(120)
    assert [pulse.name for pulse in played.watchdog.stuck] == ["indexer-1"]
