"""The interval of the stats lines, and the live line, which stays within one row of the terminal."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import struct
import termios
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TextIO, cast

import pytest

from slurp.logs import Screen, fit, width_of
from slurp.monitoring.stats import Stats
from slurp.monitoring.worker_status import WorkerStatus
from slurp.pipeline.batches import BatchQueue
from slurp.pipeline.progress import Counters, Snapshot
from slurp.watchdog import Heartbeat

INTERVAL = 30.0


class SimulatedTime:
    """A clock that serves as the stop event and as the counters of the stats thread.

    Waiting advances it by the time waited, reading the counters by half of `step_duration` seconds.
    """

    def __init__(self, step_duration: float) -> None:
        self.now = 1000.0
        self._step_duration = step_duration
        self._counters = Counters().snapshot()
        self.until = 1000.0 + 10 * INTERVAL + 1

    def snapshot(self) -> Snapshot:
        self.now += self._step_duration / 2
        return replace(self._counters, at=self.now)

    def wait(self, seconds: float) -> bool:
        assert seconds >= 0
        self.now += max(seconds, 0.001)
        return self.now >= self.until


class Terminal:
    """The two ends of a pseudo-terminal."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.stream: TextIO = os.fdopen(slave, "w")

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self) -> str:
        """Return everything written to the terminal. A single read may return only a part."""
        self.stream.write("\0")
        self.stream.flush()
        text = ""
        while not text.endswith("\0"):
            text += os.read(self._master, 65_536).decode()
        return text.removesuffix("\0")

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("step_duration", [0.0, 0.07, 1.3])
def test_stats_lines_are_logged_every_interval(
    is_terminal: bool, step_duration: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, logged_at = SimulatedTime(step_duration), list[float]()
    screen = cast(Screen, type("Stub", (), {"is_terminal": is_terminal, "show": lambda self, line: None})())
    readers = SimpleNamespace(host="one.example", connected=True)
    status = SimpleNamespace(
        counters=time, queue=BatchQueue(1, 1), readers=readers, disk=None, deletions=None, late_responses=""
    )
    stats = Stats(cast(WorkerStatus, status), screen, INTERVAL)
    began = time.now
    monkeypatch.setattr(stats, "_log", lambda now, rates: logged_at.append(now.at - began))
    stats.run(cast(threading.Event, time), Heartbeat("stats", 60))
    # Late by the duration of a step at most, never early, and the delay does not accumulate.
    assert len(logged_at) == 10
    for number, at in enumerate(logged_at, start=1):
        assert number * INTERVAL - 0.01 <= at <= number * INTERVAL + 2 * step_duration + 0.01


@pytest.mark.parametrize(
    ("oldest", "expected"),
    [
        (0.0, " | redacted 1,234"),
        (59.0, " | redacted 1,234"),
        (301.0, " | redacted 1,234, oldest waits 5m1s"),
    ],
)
def test_redactions_are_in_the_stats_line_with_what_waits_for_long(
    oldest: float, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    deletions = SimpleNamespace(redacted={"deleted": 1000, "updated": 200, "account": 34}, oldest=oldest)
    status = SimpleNamespace(
        counters=Counters(),
        queue=BatchQueue(1, 1),
        readers=SimpleNamespace(host="one.example", connected=True),
        disk=None,
        deletions=deletions,
    )
    stats = Stats(cast(WorkerStatus, status), cast(Screen, None), INTERVAL)
    stats.summary()
    assert caplog.messages[-1].endswith(f" | gaps 0{expected} | one.example")
    fields = caplog.records[-1].fields["skeetslurper"]  # type: ignore[attr-defined]
    assert (fields["redacted"], fields["deletions_oldest_seconds"]) == (1234, oldest)
    status.deletions = None
    stats.summary()
    assert caplog.messages[-1].endswith(" | gaps 0 | one.example"), "with --deletions keep"


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_live_line_fits_one_row_of_the_terminal(terminal: Terminal, columns: int) -> None:
    terminal.resize(columns)
    screen = Screen(terminal.stream)
    screen.show("▸ 1,234 events/s  " + "x" * 300)
    shown = terminal.read().removeprefix("\r\x1b[K")
    # The arrow may be two columns wide.
    assert columns - 3 <= len(shown) <= columns - 1


def test_a_resize_of_the_terminal_applies_to_the_next_live_line(terminal: Terminal) -> None:
    terminal.resize(100)
    screen = Screen(terminal.stream)
    screen.show("x" * 300)
    terminal.read()
    terminal.resize(30)
    screen.emit(logging.LogRecord("a", logging.INFO, "", 0, "a record", (), None))
    assert terminal.read().endswith("\n" + "x" * 29)


@pytest.mark.parametrize(
    ("line", "expected"), [("日本語", "日本"), ("ab日本", "ab日"), ("abcdef", "abcde"), ("", "")]
)
def test_wide_characters_count_as_two_columns(line: str, expected: str) -> None:
    assert fit(line, 5) == expected


def test_a_terminal_of_unknown_size_has_eighty_columns(terminal: Terminal) -> None:
    terminal.resize(0)
    assert width_of(terminal.stream) == 79
    no_terminal: Any = type("Stub", (), {"fileno": lambda self: -1})()
    assert width_of(no_terminal) == 79
