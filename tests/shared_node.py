"""One Elasticsearch node for all xdist workers of a test run.

The first xdist worker that needs the node starts a keeper process (this file as a program), which starts
and stops the node. Each xdist worker holds a shared lock on one file while it uses the node; the keeper
stops the node as soon as no lock is left. The kernel releases the locks of a killed process, so the node
also stops after a failed or interrupted run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slurp.embedded.node import EmbeddedNode

# Seconds. A node starts in 10 s; on a machine under load, or with its first download, in minutes.
NODE_TIMEOUT = 240.0
_START_TIMEOUT = 900.0
_STOP_TIMEOUT = 60.0


class SharedNode:
    """The files through which xdist workers and keeper coordinate, in one folder of the test run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._users = folder / "users.lock"
        self._start = folder / "start.lock"
        self._keeper = folder / "keeper.lock"
        self._ready = folder / "ready.json"
        self._log = folder / "keeper.log"
        self._data = folder / "node"

    @contextlib.contextmanager
    def use(self, version: str, password: str) -> Iterator[EmbeddedNode]:
        """Yield the running node; start it if no other process of this run has started it.

        The node object has the address and the folders; only the keeper can stop the node.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._users, fcntl.LOCK_SH):
            with _locked(self._start, fcntl.LOCK_EX):
                if not self._ready.exists():
                    self._start_keeper(version, password)
                port = json.loads(self._ready.read_text(encoding="utf-8"))["port"]
            yield EmbeddedNode(self._data, port=port, version=version, password=password)

    def _start_keeper(self, version: str, password: str) -> None:
        command = [sys.executable, "-m", "tests.shared_node", str(self._folder), version, password]
        with self._log.open("wb") as log:
            keeper = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[1],
                start_new_session=True,  # Ctrl+C must reach the xdist workers only; the node stops after them
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._ready.exists():
            if keeper.poll() is not None:
                raise RuntimeError(f"the shared node did not start:\n{self._log.read_text('utf-8')}")
            if time.monotonic() > deadline:
                keeper.terminate()
                raise RuntimeError(f"the shared node did not start within {_START_TIMEOUT:.0f} s")
            time.sleep(0.1)

    def keep(self, version: str, password: str) -> None:
        """Run the node until no xdist worker uses it. The keeper process calls this."""
        with contextlib.ExitStack() as held:
            held.enter_context(_locked(self._keeper, fcntl.LOCK_EX))
            node = EmbeddedNode(self._data, port=0, version=version, password=password)
            node.start(wait=NODE_TIMEOUT)
            with node:
                draft = self._ready.with_suffix(".new")
                draft.write_text(json.dumps({"port": node.port}), encoding="utf-8")
                draft.replace(self._ready)
                # Held until the node has stopped: an xdist worker that needs it now waits and restarts it.
                held.enter_context(_locked(self._users, fcntl.LOCK_EX))
                self._ready.unlink()

    def wait_until_stopped(self) -> None:
        """Wait until the keeper has stopped the node, for one minute at most."""
        deadline = time.monotonic() + _STOP_TIMEOUT
        while self._keeper.exists() and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError), _locked(self._keeper, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return
            time.sleep(0.1)


@contextlib.contextmanager
def _locked(path: Path, operation: int) -> Iterator[IO[bytes]]:
    with path.open("ab") as file:
        fcntl.flock(file, operation)
        yield file


if __name__ == "__main__":
    SharedNode(Path(sys.argv[1])).keep(*sys.argv[2:])
