"""Keep a worker running: restart it whenever it ends, and record every exit."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.worker import Worker, counters

_POLL_INTERVAL = 0.1
_EXIT_TIMEOUT = 60.0
# Seconds after a denial in which a worker may still exit because of it: longer than its --grace.
_DENIAL_GRACE = 30.0


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """One exit of the worker.

    Without a request it may exit with code 2 only, while a fault revokes its credentials or privileges.
    """

    code: int
    requested: bool
    """Whether a fault, or the end of the run, ended it."""
    expected: bool
    """Whether the exit code is one of those allowed."""
    last_line: str
    """The last error in its log, else the last line."""
    adds_up: bool | None
    """Whether the counters of every stats line add up; None without a stats line."""


class WorkerRuns:
    """Keeps one worker running with a thread, and measures its memory."""

    def __init__(self, options: Sequence[str], home: Path, program: Path) -> None:
        self._options = options
        self._home = home
        self._program = program
        self._lock = threading.RLock()
        self._worker: Worker | None = None
        self._denied_until = float("-inf")
        self._finished = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="chaos-worker-runs", daemon=True)
        self.exits: list[WorkerExit] = []
        self.peak_memory = 0
        """Highest resident memory of all runs, in bytes."""
        self.log = (home / "worker.log").open("w", encoding="utf-8")

    def begin(self) -> None:
        """Start the worker and the thread that restarts it."""
        self._start()
        self._watcher.start()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal_and_wait(signal.SIGKILL, {-signal.SIGKILL})

    def stop(self) -> None:
        """Send SIGTERM and wait for the exit."""
        self._signal_and_wait(signal.SIGTERM, {0})

    def stop_twice(self) -> None:
        """Send SIGTERM, and once more before the worker has shut down."""
        with self._lock:
            self._signal(signal.SIGTERM)
            # Within a second it would count as the same request.
            time.sleep(1.2)
            # Exit code 0 when the worker has ended before the second signal.
            self._signal_and_wait(signal.SIGTERM, {0, 1})

    def stop_doubled(self, gap: float) -> None:
        """Send SIGTERM twice within `gap` seconds, a few milliseconds: one request for a clean shutdown."""
        with self._lock:
            self._signal(signal.SIGTERM)
            time.sleep(gap)
            self._signal_and_wait(signal.SIGTERM, {0})

    @contextmanager
    def denied(self) -> Iterator[None]:
        """Allow exit code 2 without a request inside the context, and for 30 s after it."""
        self._denied_until = float("inf")
        try:
            yield
        finally:
            self._denied_until = time.monotonic() + _DENIAL_GRACE

    def freeze(self, seconds: float) -> None:
        """Suspend the process, as on a machine that swaps or sleeps."""
        with self._lock:
            self._signal(signal.SIGSTOP)
            time.sleep(seconds)
            self._signal(signal.SIGCONT)

    def finish(self) -> WorkerExit:
        """Stop the last run cleanly and restart no more."""
        self._finished.set()
        self._watcher.join()
        with self._lock:
            if self._worker is None:
                self._start()
                self._current().wait_for("(starting|resuming) ", 60)
            self.stop()
            return self.exits[-1]

    def close(self) -> None:
        """Kill a worker that still runs."""
        self._finished.set()
        with self._lock:
            if self._worker is not None and self._worker.process.poll() is None:
                self._worker.kill()
        self.log.close()

    def _start(self) -> None:
        self._worker = Worker(*self._options, home=self._home, program=self._program)

    def _current(self) -> Worker:
        assert self._worker is not None
        return self._worker

    def _signal(self, number: signal.Signals) -> None:
        if self._worker is not None and self._worker.process.poll() is None:
            self._worker.process.send_signal(number)

    def _signal_and_wait(self, number: signal.Signals, codes: set[int]) -> None:
        """Send a signal that must end the worker with one of `codes`."""
        with self._lock:
            if self._worker is None:
                return
            if self._worker.process.poll() is not None and 1 not in codes:
                self._record_exit(None)
                return
            self._signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._worker.process.wait(_EXIT_TIMEOUT)
            self._record_exit(codes)

    def _record_exit(self, allowed: set[int] | None) -> None:
        """Record an exit; `allowed` are the codes of a requested one, None if it was not requested."""
        worker, self._worker = self._current(), None
        if worker.process.poll() is None:
            print("the worker did not exit in time: killing it", file=sys.stderr)
            worker.process.kill()
        code = worker.exit_code()
        # Before its first log line the worker has no signal handler either.
        without_handler = code == -signal.SIGTERM and not worker.lines
        unrequested = {2} if time.monotonic() < self._denied_until else set()
        expected = without_handler or code in (unrequested if allowed is None else allowed)
        self.log.write("\n".join(worker.lines) + "\n--- ended\n")
        self.log.flush()
        errors = [line for line in worker.lines if " ERROR " in line]
        last = (errors or worker.lines or [""])[-1]
        self.exits.append(WorkerExit(code, allowed is not None, expected, last, _adds_up(worker.lines)))

    def _watch(self) -> None:
        while not self._finished.wait(_POLL_INTERVAL):
            with self._lock:
                if self._worker is not None and self._worker.process.poll() is not None:
                    self._record_exit(None)
                if self._worker is None:
                    self._start()
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.peak_memory = max(self.peak_memory, self._current().resident())


def _adds_up(lines: Sequence[str]) -> bool | None:
    """Check invariant 4 in every stats line: received equals all outcomes plus what is in flight."""
    found = counters(lines)
    return all(one.pop("received") == sum(one.values()) for one in found) if found else None
