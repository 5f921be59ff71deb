"""All threads share two malloc arenas of the C library."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from slurp.cli import limit_malloc_arenas

if sys.argv[1] == "bound":
    limit_malloc_arenas()
barrier = threading.Barrier(8)

def work():
    barrier.wait()
    allocated = [bytes(1000) for _ in range(1000)]
    barrier.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no arenas")
def test_eight_threads_use_two_arenas() -> None:
    assert arenas("free") > 2
    assert arenas("bound") <= 2


def arenas(mode: str) -> int:
    """Return the number of arenas of a process with eight threads."""
    program = [sys.executable, "-c", PROGRAM, mode]
    report = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout
    return report.count("<heap nr=")
