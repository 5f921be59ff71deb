"""Threads that come and go share two arenas of the C library."""

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
together = threading.Barrier(8)

def work():
    together.wait()
    kept = [bytes(1000) for _ in range(1000)]
    together.wait()

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
def test_two_arenas() -> None:
    assert arenas("free") > 2
    assert arenas("bound") <= 2


def arenas(how: str) -> int:
    program = [sys.executable, "-c", PROGRAM, how]
    said = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout
    return said.count("<heap nr=")
