"""One Elasticsearch node in a process of its own: start it, wait until it serves, stop it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import requests

from slurp.embedded import guardian
from slurp.embedded.config import Home
from slurp.embedded.data_folder import DEFAULT_VERSION, room_for
from slurp.embedded.distribution import ensure_distribution
from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted, Stop
from slurp.embedded.java import Runtime, find_runtime
from slurp.embedded.privileges import command_prefix

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
USER = "elastic"

# How long the guardian lets an orphaned node flush before it kills it.
_ORPHAN_GRACE = 10.0
# A node without a parent is gone after this; a new start on its data waits so long.
_ORPHAN_GONE = _ORPHAN_GRACE + 10
# A starting cluster answers 401 for a moment, even with the right password.
_BELIEVE_401_AFTER = 20.0


class EmbeddedNode:
    """An Elasticsearch node on loopback, with its data, configuration and logs below one folder.

    The folder can be started again later, also with a newer release, by one node at a time. The node
    ends when this process does, however that ends. `settings` go into elasticsearch.yml over our
    own defaults; None removes a default. The password (of the user `elastic`) is fixed when the folder
    is first used. The attributes are not meant for several threads at once.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 9200,
        version: str = DEFAULT_VERSION,
        heap: str = "512m",
        password: str = "changeme",  # noqa: S107 - the documented default, on loopback only
        settings: Mapping[str, str | None] | None = None,
        tls: bool = False,
    ) -> None:
        self.data = data.absolute()
        self.version = version
        self.port = port or free_port()
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self.port}"
        self._heap = heap
        self._password = password
        self._settings = dict(settings or {})
        self._home = Home(self.data, tls=tls)
        self._process: subprocess.Popen[bytes] | None = None
        self._locks = contextlib.ExitStack()

    @property
    def ca(self) -> Path | None:
        """The certificate to verify the node with, if it speaks TLS."""
        return self._home.certificate if self._home.tls else None

    @property
    def log(self) -> Path:
        """The node's log file."""
        return self._home.log

    @property
    def default_max_disk(self) -> int:
        """The default of --max-disk in bytes, fixed when it is first asked for. The node must have been
        started once."""
        return self._home.disk_budget()

    @property
    def room(self) -> int:
        """The bytes that the node's data take, and those that are free beside them."""
        return room_for(self._home.storage)

    @property
    def running(self) -> bool:
        """Whether the node's processes are there; it may not serve yet."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id of the server's JVM, once it has one."""
        if not self.running:
            return None
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(self._home.pid_file.read_text(encoding="ascii"))
        return None

    def start(self, wait: float = 120, stop: Stop | None = None) -> None:
        """Start the node and return once it answers us with a health of at least yellow.

        Fetches the distribution first if need be (that does not count towards `wait`). Setting
        `stop` from elsewhere ends it early, with StartInterrupted. Raises EmbeddedNodeError, with the end of
        the node's log, when the node does not come up; nothing of it is left running then.
        """
        if self.running:
            return
        self._reap()  # of a node that ended by itself
        stop = threading.Event() if stop is None else stop
        runtime = find_runtime(self.version)
        distribution = ensure_distribution(self.version, stop=stop)
        prefix = command_prefix()
        began = time.monotonic()
        try:
            guardian_lock = self._lock(stop)
            self._home.claim(self.version, self._password)
            self._check_port()
            self._home.write(
                distribution,
                runtime,
                self._settings,
                host=HOST,
                port=self.port,
                transport_port=free_port(),
                heap=self._heap,
                prefix=prefix,
            )
            self._home.store_secrets(distribution, runtime, self._password, prefix)
            self._process = self._spawn(distribution, runtime, prefix, guardian_lock)
            self._wait_until_ready(began + wait, stop)
        except BaseException:
            self.stop(grace=5)
            raise
        logger.info(
            "Elasticsearch %s ready at %s after %.1fs", self.version, self.url, time.monotonic() - began
        )

    def stop(self, grace: float = 30) -> None:
        """Let the node end cleanly, kill it after `grace` seconds. Harmless when it does not run."""
        process = self._process
        if process is not None and process.poll() is None:
            _close_pipe(process, f"{grace}\n".encode())
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                logger.warning("Elasticsearch did not stop within %.0fs: killing it", grace)
                _kill_group(process)
        self._reap()

    def kill(self) -> None:
        """Kill -9 everything of the node at once, as a crash would; for tests of faults."""
        if self._process is not None:
            _kill_group(self._process)
        self._reap()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lock(self, stop: Stop) -> IO[str]:
        """Make the data folder ours; returns the lock file that the guardian shall hold as well.

        Three locks: ours tells a living owner at once, the guardian's and the JVM's own tell an
        orphan that is about to end, which is worth waiting for.
        """
        self._home.make_folder()
        owner = self._locks.enter_context(self._home.owner_lock.open("w"))
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedNodeError(f"another embedded node already uses the data in {self.data}") from None
        held = self._locks.enter_context(self._home.guardian_lock.open("w"))
        deadline = time.monotonic() + _ORPHAN_GONE
        while not (_flocked(held) and self._home.jvm_is_gone()):
            if time.monotonic() > deadline:
                raise EmbeddedNodeError(
                    f"an Elasticsearch that we did not start uses the data in {self.data}"
                )
            if stop.wait(0.1):
                raise StartInterrupted("stopped while waiting for the previous node to end")
        return held

    def _check_port(self) -> None:
        with socket.socket() as probe:
            # As the server does: connections of a former node in TIME_WAIT do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise EmbeddedNodeError(
                    f"port {self.port} on {HOST} cannot be used: {error.strerror}"
                ) from error

    def _spawn(
        self, distribution: Path, runtime: Runtime, prefix: list[str], guardian_lock: IO[str]
    ) -> subprocess.Popen[bytes]:
        command = [str(distribution / "bin" / "elasticsearch"), "-p", str(self._home.pid_file)]
        self._home.pid_file.unlink(missing_ok=True)
        with self._home.console.open("wb") as console:
            return subprocess.Popen(
                [*prefix, sys.executable, "-I", guardian.__file__, str(_ORPHAN_GRACE), *command],
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self._home.path,
                env=self._home.environment(runtime),
                pass_fds=[guardian_lock.fileno()],
                start_new_session=True,
            )

    def _wait_until_ready(self, deadline: float, stop: Stop) -> None:
        refused_since: float | None = None
        with requests.Session() as session:
            session.trust_env = False  # no proxy between us and loopback
            session.auth = (USER, self._password)
            session.verify = str(self.ca) if self.ca else True
            while self.running:
                status = self._ask_health(session)
                if status == 200:
                    return
                refused_since = (refused_since or time.monotonic()) if status == 401 else None
                if refused_since and time.monotonic() - refused_since > _BELIEVE_401_AFTER:
                    raise EmbeddedNodeError(
                        f"the node refuses the password of {USER}; it was changed through the API since"
                    )
                if time.monotonic() > deadline:
                    raise EmbeddedNodeError(f"Elasticsearch did not come up in time\n{self._home.log_tail()}")
                if stop.wait(0.1):
                    raise StartInterrupted("stopped while Elasticsearch was starting")
        raise EmbeddedNodeError(f"Elasticsearch ended while it was starting\n{self._home.log_tail()}")

    def _ask_health(self, session: requests.Session) -> int | None:
        """The status of the cluster health, or None while nobody answers."""
        question = f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s"
        try:
            # The status will do: a stranger on this port may send a body without end.
            with session.get(question, timeout=5, stream=True) as answer:
                return answer.status_code
        except requests.RequestException as error:
            logger.debug("Not ready: %s", error)
            return None

    def _reap(self) -> None:
        if self._process is not None:
            _close_pipe(self._process)
            self._process.wait()
            self._process = None
            deadline = time.monotonic() + _ORPHAN_GONE
            while not self._home.jvm_is_gone() and time.monotonic() < deadline:
                time.sleep(0.05)
        self._locks.close()


def free_port() -> int:
    """A port on loopback that nobody listens on now, below the range that the system gives to clients.

    In that range a client that keeps trying to reach a stopped node could, on loopback, connect to itself.
    """
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise EmbeddedNodeError(f"no free port on {HOST}")


def _close_pipe(process: subprocess.Popen[bytes], last_words: bytes = b"") -> None:
    if process.stdin is not None and not process.stdin.closed:
        with contextlib.suppress(BrokenPipeError):  # the guardian may be gone
            process.stdin.write(last_words)
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _flocked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
