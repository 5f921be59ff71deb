"""The worker's lives: started again whenever one ends, and what is to be said of each."""

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

_WATCH_EVERY = 0.1
_ENDS_WITHIN = 60.0
# After a denial is over, for a worker that had begun to stop for it: longer than its --grace.
_MAY_END_DENIED = 30.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How one life ended. `asked` when a fault ended it, or the end of the run.

    By itself a worker ends for credentials and rights alone (code 2), while a fault takes them away from it.
    """

    code: int
    asked: bool
    as_it_should: bool
    said: str
    """The last error of its log, else the last line."""
    adds_up: bool | None
    """Whether what it counted is what it received; None when it had no time to say."""


class Runs:
    """Keeps one worker alive on a thread of its own, and watches its memory."""

    def __init__(self, options: Sequence[str], home: Path, program: Path) -> None:
        self._options = options
        self._home = home
        self._program = program
        self._lock = threading.RLock()
        self._worker: Worker | None = None
        self._denied_until = float("-inf")
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="chaos-runs", daemon=True)
        self.ended: list[Ended] = []
        self.peak = 0
        """Bytes: the most memory that any of them held."""
        self.log = (home / "worker.log").open("w", encoding="utf-8")

    def begin(self) -> None:
        self._start()
        self._watcher.start()

    def kill(self) -> None:
        """kill -9."""
        self._send(signal.SIGKILL, {-signal.SIGKILL})

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._send(signal.SIGTERM, {0})

    def stop_twice(self) -> None:
        """SIGTERM, and once more before it has shut down."""
        with self._lock:
            self._signal(signal.SIGTERM)
            # Within a second it would be the same request.
            time.sleep(1.2)
            # 0 where it had ended before the second one came.
            self._send(signal.SIGTERM, {0, 1})

    def stop_doubled(self, gap: float) -> None:
        """SIGTERM, and once more after `gap` seconds, a few milliseconds: one request to stop in order."""
        with self._lock:
            self._signal(signal.SIGTERM)
            time.sleep(gap)
            self._send(signal.SIGTERM, {0})

    @contextmanager
    def denied(self) -> Iterator[None]:
        """Inside, and for a while after it, the worker may end by itself, with code 2."""
        self._denied_until = float("inf")
        try:
            yield
        finally:
            self._denied_until = time.monotonic() + _MAY_END_DENIED

    def freeze(self, seconds: float) -> None:
        """As on a machine that swaps, or sleeps."""
        with self._lock:
            self._signal(signal.SIGSTOP)
            time.sleep(seconds)
            self._signal(signal.SIGCONT)

    def finish(self) -> Ended:
        """End the last life in order."""
        self._over.set()
        self._watcher.join()
        with self._lock:
            if self._worker is None:
                self._start()
                self._living().wait_for("(starting|resuming) ", 60)
            self.stop()
            return self.ended[-1]

    def close(self) -> None:
        self._over.set()
        with self._lock:
            if self._worker is not None and self._worker.process.poll() is None:
                self._worker.kill()
        self.log.close()

    def _start(self) -> None:
        self._worker = Worker(*self._options, home=self._home, program=self._program)

    def _living(self) -> Worker:
        assert self._worker is not None
        return self._worker

    def _signal(self, number: signal.Signals) -> None:
        if self._worker is not None and self._worker.process.poll() is None:
            self._worker.process.send_signal(number)

    def _send(self, number: signal.Signals, codes: set[int]) -> None:
        """A signal that ends it, with one of `codes`."""
        with self._lock:
            if self._worker is None:
                return
            if self._worker.process.poll() is not None and 1 not in codes:
                self._bury(None)
                return
            self._signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._worker.process.wait(_ENDS_WITHIN)
            self._bury(codes)

    def _bury(self, asked: set[int] | None) -> None:
        """`asked` has the codes that it may end with, None when it ended by itself."""
        worker, self._worker = self._living(), None
        if worker.process.poll() is None:
            print("the worker did not end when it was asked to: killing it", file=sys.stderr)
            worker.process.kill()
        code = worker.exit_code()
        # Before it has said a word it has no handler of signals either.
        unborn = code == -signal.SIGTERM and not worker.lines
        by_itself = {2} if time.monotonic() < self._denied_until else set()
        fine = unborn or code in (by_itself if asked is None else asked)
        self.log.write("\n".join(worker.lines) + "\n--- ended\n")
        self.log.flush()
        errors = [line for line in worker.lines if " ERROR " in line]
        last = (errors or worker.lines or [""])[-1]
        self.ended.append(Ended(code, asked is not None, fine, last, _adds_up(worker.lines)))

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_EVERY):
            with self._lock:
                if self._worker is not None and self._worker.process.poll() is not None:
                    self._bury(None)
                if self._worker is None:
                    self._start()
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.peak = max(self.peak, self._living().resident())


def _adds_up(lines: Sequence[str]) -> bool | None:
    """Decision 5 of every stats line: received equals the sum of all outcomes and what is in flight."""
    told = counters(lines)
    return all(one.pop("received") == sum(one.values()) for one in told) if told else None
