"""How each program of this project begins and ends.

This module imports little, so that a signal finds its handler within the first milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time

# Not that of typing, whose import takes longer than all the others here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

# Seconds between two signals that count. Some senders repeat a signal within a millisecond, and a terminal
# and a supervisor may both send one: that is one request.
APART = 1.0
_POLL = 0.1


class StopSignals:
    """Count the signals that ask this process to stop.

    The first one asks the main thread to stop in order, a second one to stop at once. The handler only
    assigns attributes, because the thread that it interrupts may hold any lock. The main thread reads
    `requested` or `again`, or calls `is_set` or `wait`, about ten times a second. When it has not done so for
    `stuck_after` seconds (still importing, or blocked in a write or another system call), a second
    signal ends the process with exit code 1.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, leave: Callable[[int], object] = os._exit
    ) -> None:
        self.stuck_after = 2.0
        self._clock = clock
        self._leave = leave
        self._count = 0
        self._counted_at = 0.0
        self._looked_at = float("-inf")

    def install(self) -> None:
        """Take the signals over. SIGHUP stays ignored where the process was started so (nohup)."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.on_signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: no lock, no log, nothing that can block."""
        now = self._clock()
        if self._count:
            if now - self._counted_at < APART:
                return
            if now - self._looked_at > self.stuck_after:
                self._leave(1)
        self._count += 1
        self._counted_at = now

    @property
    def requested(self) -> bool:
        """Whether a signal asked to stop."""
        self._looked_at = self._clock()
        return self._count > 0

    @property
    def again(self) -> bool:
        """Whether a second signal asked to stop at once."""
        self._looked_at = self._clock()
        return self._count > 1

    def is_set(self) -> bool:
        """Return `requested`, as an Event of threading does."""
        return self.requested

    def wait(self, seconds: float = float("inf")) -> bool:
        """Sleep on the main thread until a signal asks to stop or the time is over; return `requested`."""
        until = self._clock() + seconds
        while not self.requested and (left := until - self._clock()) > 0:
            time.sleep(min(left, _POLL))
        return self.requested


def run(main: Callable[[StopSignals], int]) -> NoReturn:
    """Run `main` as the whole work of this process and exit with its code.

    `main` imports what it needs itself: signals are noted from here on, and none of them makes a traceback.
    """
    signals = StopSignals()
    signals.install()
    _open_standard_streams()
    try:
        code = main(signals)
    except SystemExit as request:
        code = _code_of(request)
    except BrokenPipeError:
        code = 0  # `--help | head -1`: the reader has what it wanted
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    _leave(code)


def _open_standard_streams() -> None:
    """Replace closed standard streams (`2>&-`) by /dev/null.

    Without that Python has None in their place, and a socket or file opened later takes the number 2 and
    receives what libraries and child processes write to standard error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number: its own, as the streams before it are open.
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
    from io import TextIOWrapper

    if isinstance(sys.stdout, TextIOWrapper):
        # As standard error does: a locale without these characters is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")


def _code_of(request: SystemExit) -> int:
    if request.code is None or isinstance(request.code, int):
        return request.code or 0
    print(request.code, file=sys.stderr)
    return 1


def _leave(code: int) -> NoReturn:
    """Flush the standard streams and end the process, whatever threads are still at work.

    The interpreter's own shutdown waits for threads that are not daemons, aborts when an abandoned one holds
    the lock of a stream, restores the default action of signals while it runs, and makes 120 of the exit
    code when the reader of the log is gone.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            continue
        except (OSError, ValueError) as error:
            if stream is sys.stdout:
                code = code or 1
                _say(f"can't write to standard output: {error}")
    os._exit(code)


def _say(line: str) -> None:
    import contextlib

    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
