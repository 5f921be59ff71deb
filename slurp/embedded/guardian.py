"""A small process between program and node, so that no JVM outlives the program that started it.

It is run by path, with only the standard library: `python -I guardian.py GRACE COMMAND...`.
It leads a session of its own, so that Ctrl+C in a terminal does not reach the node before the worker
has flushed. Its standard input is a pipe from the parent: its end means stop, also after a kill -9 of
the parent. The process group then receives SIGTERM, and after GRACE seconds SIGKILL. To change the
grace, the parent writes another number of seconds before it closes the pipe.

If the guardian itself is killed, the kernel sends SIGTERM to the launcher (Linux only), and the
server ends once the launcher's pipe to it closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(grace: float, command: list[str]) -> int:
    """Run the command until it or the parent ends; return its exit code."""
    parent = os.getppid()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # The launcher, the server's parent, may end first: the server then becomes a child of this process,
    # which waits for it, so that no zombie remains where process 1 does not reap.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=_terminate_with(os.getpid()),  # noqa: PLW1509 - this process has one thread
    )

    while child.poll() is None and os.getppid() == parent:
        readable, _, _ = select.select([0, wake_read], [], [], 1.0)
        if 0 in readable:
            grace = float(os.read(0, 64) or grace)
            break
        if wake_read in readable and {signal.SIGTERM, signal.SIGINT} & set(os.read(wake_read, 4096)):
            break
    _end_group(child, time.monotonic() + grace)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end_group(child: subprocess.Popen[bytes], deadline: float) -> None:
    os.killpg(0, signal.SIGTERM)
    while child.poll() is None or _descendants_left():
        if time.monotonic() > deadline:
            os.killpg(0, signal.SIGKILL)  # kills this process too
        time.sleep(0.05)


def _descendants_left() -> bool:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def _terminate_with(guardian: int) -> Callable[[], None]:
    """Return a function for the child: request SIGTERM when the guardian dies."""

    def before_exec() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guardian:  # it died before the call above took effect
            os._exit(1)

    return before_exec


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
