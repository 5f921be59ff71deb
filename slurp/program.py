"""How each program of this project begins and ends.

This module imports little, so that a signal finds its handler within the first milliseconds.
"""

from __future__ import annotations

import os
import sys

from slurp.signals import StopSignals

# Not that of typing, whose import takes longer than all the others here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


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
