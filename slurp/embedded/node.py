"""One Elasticsearch node in a process of its own: start it, wait until it is ready, stop it."""

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
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import requests

from slurp.embedded import guardian
from slurp.embedded.data_folder import DEFAULT_VERSION, available_space
from slurp.embedded.distribution import ensure_distribution
from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted, Stop
from slurp.embedded.java import find_runtime
from slurp.embedded.node_config import Installation, Listener, NodeFolder
from slurp.embedded.run_as_user import command_prefix

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
USER = "elastic"

# Seconds in which an orphaned node may flush before the guardian kills it.
_ORPHAN_GRACE = 10.0
# A node without a parent has ended after this; a new start on its data waits as long.
_ORPHAN_TIMEOUT = _ORPHAN_GRACE + 10
# A starting cluster answers 401 for a moment, even with the right password.
_UNAUTHORIZED_TIMEOUT = 20.0


@dataclass(frozen=True)
class NodeOptions:
    """Configuration of a node that differs from the defaults."""

    heap: str = "512m"
    """Heap size of the JVM, such as `512m` or `2g`."""
    settings: Mapping[str, str | None] = field(default_factory=dict)
    """Lines of elasticsearch.yml that replace the defaults; None removes a default."""
    tls: bool = False
    """Whether the node serves HTTPS, with a certificate of its own."""


class EmbeddedNode:
    """An Elasticsearch node on loopback, with its data, configuration and logs below one folder.

    The folder can be used again later, also with a newer release, by one node at a time. The node ends
    when this process ends, in whatever way. The password (of the user `elastic`) is fixed at the first
    use of the folder. Not thread-safe.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 9200,
        version: str = DEFAULT_VERSION,
        password: str = "changeme",  # noqa: S107 - the documented default, on loopback only
        options: NodeOptions | None = None,
    ) -> None:
        self._options = options or NodeOptions()
        self.data = data.absolute()
        self.version = version
        self.port = port or free_port()
        self.url = f"{'https' if self._options.tls else 'http'}://{HOST}:{self.port}"
        self._password = password
        self._folder = NodeFolder(self.data, tls=self._options.tls)
        self._process: subprocess.Popen[bytes] | None = None
        self._locks = contextlib.ExitStack()

    @property
    def ca(self) -> Path | None:
        """The certificate with which to verify the node; None without TLS."""
        return self._folder.certificate if self._folder.tls else None

    @property
    def log(self) -> Path:
        """The node's log file."""
        return self._folder.log

    @property
    def default_max_disk(self) -> int:
        """The default of --max-disk in bytes, determined at the first use and stored.

        The node must have been started once.
        """
        return self._folder.max_disk()

    @property
    def available_space(self) -> int:
        """Bytes used by the node's data plus the free bytes of their disk."""
        return available_space(self._folder.storage)

    @property
    def running(self) -> bool:
        """Whether the node's processes run; it may not be ready yet."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id of the server's JVM; None until it is known."""
        if not self.running:
            return None
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(self._folder.pid_file.read_text(encoding="ascii"))
        return None

    def start(self, wait: float = 120, stop: Stop | None = None) -> None:
        """Start the node and wait up to `wait` seconds until its health is at least yellow.

        Downloads the distribution first if necessary; that does not count toward `wait`. Raises
        StartInterrupted when `stop` is set meanwhile, and EmbeddedNodeError, with the end of the node's
        log, when the node does not become ready; none of its processes is left running then.
        """
        if self.running:
            return
        self._reap()  # a node that ended unexpectedly
        stop = threading.Event() if stop is None else stop
        runtime = find_runtime(self.version)
        distribution = ensure_distribution(self.version, stop=stop)
        installation = Installation(distribution, runtime, command_prefix())
        began = time.monotonic()
        try:
            guardian_lock = self._lock(stop)
            self._folder.claim(self.version, self._password)
            self._check_port()
            listener = Listener(HOST, self.port, transport_port=free_port())
            self._folder.write_config(installation, listener, self._options.heap, self._options.settings)
            self._folder.store_secrets(installation, self._password)
            self._process = self._spawn(installation, guardian_lock)
            self._wait_until_ready(began + wait, stop)
        except BaseException:
            self.stop(grace=5)
            raise
        logger.info(
            "Elasticsearch %s ready at %s after %.1fs", self.version, self.url, time.monotonic() - began
        )

    def stop(self, grace: float = 30) -> None:
        """Stop the node cleanly; kill it after `grace` seconds. Does nothing when it does not run."""
        process = self._process
        if process is not None and process.poll() is None:
            _close_pipe(process, f"{grace}\n".encode())
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                logger.warning("Elasticsearch did not stop within %.0fs; killing it", grace)
                _kill_group(process)
        self._reap()

    def kill(self) -> None:
        """Send SIGKILL to all processes of the node, like a crash; for tests of faults."""
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
        """Lock the data folder; return the lock file that the guardian holds as well.

        Three locks: the owner's detects another running owner immediately; the guardian's and the JVM's
        detect an orphan that is about to end, for which this waits.
        """
        self._folder.create()
        owner = self._locks.enter_context(self._folder.owner_lock.open("w"))
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedNodeError(f"another embedded node already uses the data in {self.data}") from None
        held = self._locks.enter_context(self._folder.guardian_lock.open("w"))
        deadline = time.monotonic() + _ORPHAN_TIMEOUT
        while not (_try_flock(held) and self._folder.is_unlocked()):
            if time.monotonic() > deadline:
                raise EmbeddedNodeError(f"another Elasticsearch process uses the data in {self.data}")
            if stop.wait(0.1):
                raise StartInterrupted("stopped while waiting for the previous node to end")
        return held

    def _check_port(self) -> None:
        with socket.socket() as probe:
            # Like the server: connections of a previous node in TIME_WAIT are ignored.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise EmbeddedNodeError(
                    f"port {self.port} on {HOST} cannot be used: {error.strerror}"
                ) from error

    def _spawn(self, installation: Installation, guardian_lock: IO[str]) -> subprocess.Popen[bytes]:
        command = [str(installation.distribution / "bin" / "elasticsearch"), "-p", str(self._folder.pid_file)]
        self._folder.pid_file.unlink(missing_ok=True)
        with self._folder.console.open("wb") as console:
            return subprocess.Popen(
                [*installation.prefix, sys.executable, "-I", guardian.__file__, str(_ORPHAN_GRACE), *command],
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self._folder.path,
                env=self._folder.environment(installation.runtime),
                pass_fds=[guardian_lock.fileno()],
                start_new_session=True,
            )

    def _wait_until_ready(self, deadline: float, stop: Stop) -> None:
        unauthorized_since: float | None = None
        with requests.Session() as session:
            session.trust_env = False  # no proxy for loopback
            session.auth = (USER, self._password)
            session.verify = str(self.ca) if self.ca else True
            while self.running:
                status = self._health_status(session)
                if status == 200:
                    return
                unauthorized_since = (unauthorized_since or time.monotonic()) if status == 401 else None
                if unauthorized_since and time.monotonic() - unauthorized_since > _UNAUTHORIZED_TIMEOUT:
                    raise EmbeddedNodeError(
                        f"the node rejects the password of {USER}: it was changed through the API"
                    )
                if time.monotonic() > deadline:
                    raise EmbeddedNodeError(f"Elasticsearch was not ready in time\n{self._folder.log_tail()}")
                if stop.wait(0.1):
                    raise StartInterrupted("stopped while Elasticsearch was starting")
        raise EmbeddedNodeError(f"Elasticsearch ended while it was starting\n{self._folder.log_tail()}")

    def _health_status(self, session: requests.Session) -> int | None:
        """Return the HTTP status of the cluster health; None without an answer."""
        url = f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s"
        try:
            # The body is not read: another program on this port may send an endless one.
            with session.get(url, timeout=5, stream=True) as response:
                return response.status_code
        except requests.RequestException as error:
            logger.debug("Not ready: %s", error)
            return None

    def _reap(self) -> None:
        """Wait for the end of the processes and release the locks."""
        if self._process is not None:
            _close_pipe(self._process)
            self._process.wait()
            self._process = None
            deadline = time.monotonic() + _ORPHAN_TIMEOUT
            while not self._folder.is_unlocked() and time.monotonic() < deadline:
                time.sleep(0.05)
        self._locks.close()


def free_port() -> int:
    """Return a free port on loopback, below the range of ephemeral ports.

    In that range a client that retries to reach a stopped node could, on loopback, connect to itself.
    """
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise EmbeddedNodeError(f"no free port on {HOST}")


def _close_pipe(process: subprocess.Popen[bytes], message: bytes = b"") -> None:
    if process.stdin is not None and not process.stdin.closed:
        with contextlib.suppress(BrokenPipeError):  # the guardian may have ended
            process.stdin.write(message)
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _try_flock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
