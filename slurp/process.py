"""Start and end of each program of this project: signal handlers, standard streams, exit code.

This module imports little, so that the handlers are installed within the first milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time

# Not typing.TYPE_CHECKING: importing typing takes longer than all other imports here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

# Seconds after a signal in which further signals are ignored. Some senders repeat a signal within a
# millisecond, and a terminal and a supervisor may both send one for a single request.
IGNORE_SECONDS = 1.0
_POLL_SECONDS = 0.1


class StopSignals:
    """Counter of the signals that request a stop: the first an orderly, the second an immediate one.

    The handler only assigns attributes, because the thread that it interrupts may hold any lock. The main
    thread reads `requested` or `forced`, or calls `is_set` or `wait`, about ten times a second. If it has not
    done so for `stuck_after` seconds (still importing, or blocked in a write or another system call), a
    second signal ends the process with exit code 1.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, exit_now: Callable[[int], object] = os._exit
    ) -> None:
        self.stuck_after = 2.0
        self._clock = clock
        self._exit_now = exit_now
        self._count = 0
        self._counted_at = 0.0
        self._polled_at = float("-inf")

    def install(self) -> None:
        """Install the handlers. SIGHUP stays ignored if it was ignored when the process started (nohup)."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.on_signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Count a signal. No lock, no log message, nothing that can block."""
        now = self._clock()
        if self._count:
            if now - self._counted_at < IGNORE_SECONDS:
                return
            if now - self._polled_at > self.stuck_after:
                self._exit_now(1)
        self._count += 1
        self._counted_at = now

    @property
    def requested(self) -> bool:
        """Whether a signal requested a stop."""
        self._polled_at = self._clock()
        return self._count > 0

    @property
    def forced(self) -> bool:
        """Whether a second signal requested an immediate stop."""
        self._polled_at = self._clock()
        return self._count > 1

    def is_set(self) -> bool:
        """Return `requested`, like threading.Event."""
        return self.requested

    def wait(self, seconds: float = float("inf")) -> bool:
        """Sleep until a signal requests a stop, for at most `seconds`; return `requested`."""
        until = self._clock() + seconds
        while not self.requested and (left := until - self._clock()) > 0:
            time.sleep(min(left, _POLL_SECONDS))
        return self.requested


def run(main: Callable[[StopSignals], int]) -> NoReturn:
    """Run `main` as the main program of this process and exit with the code that it returns.

    `main` should do the slow imports itself: signals are counted from here on, and none causes a traceback.
    """
    signals = StopSignals()
    signals.install()
    _open_standard_streams()
    try:
        code = main(signals)
    except SystemExit as request:
        code = _exit_code(request)
    except BrokenPipeError:
        code = 0  # the reader of a pipe has finished, as in `--help | head -1`
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    _exit(code)


def _open_standard_streams() -> None:
    """Open /dev/null in place of standard streams that are closed (`2>&-`).

    Otherwise Python sets them to None, and a socket or file opened later gets file descriptor 2 and receives
    the output that libraries and child processes write to standard error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # open() returns the lowest free descriptor: that of this stream, as those below it are open.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))
    from io import TextIOWrapper

    if isinstance(sys.stdout, TextIOWrapper):
        # As on standard error: characters missing in the locale's encoding must not raise an error.
        sys.stdout.reconfigure(errors="backslashreplace")


def _exit_code(request: SystemExit) -> int:
    """Return the exit code of a SystemExit; print a message that it has instead of a code."""
    if request.code is None or isinstance(request.code, int):
        return request.code or 0
    print(request.code, file=sys.stderr)
    return 1


def _exit(code: int) -> NoReturn:
    """Flush the standard streams and end the process, even if threads are still running.

    The normal shutdown of the interpreter is not used: it waits for non-daemon threads, aborts if an
    abandoned thread holds the lock of a stream, restores the default signal handlers while it runs, and
    changes the exit code to 120 if the reader of the log has closed its pipe.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            continue
        except (OSError, ValueError) as error:
            if stream is sys.stdout:
                code = code or 1
                _print_error(f"cannot write to standard output: {error}")
    os._exit(code)


def _print_error(line: str) -> None:
    import contextlib

    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
