"""Faults of a worker and its machine: signals at any step, a full disk, clock changes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import orjson
import psutil
import pytest
from elasticsearch import Elasticsearch

from slurp.embedded.data_folder import cache_dir
from slurp.embedded.node import free_port
from slurp.pipeline.dead_letters import frame_of
from slurp.simulator.jetstream import Simulator
from tests.hostile_server import Hostile
from tests.tiers import slow_except
from tests.worker import PROGRAM, StartWorker, Worker, assert_each_once, checkpoint, count


@pytest.fixture
def start(worker_options: tuple[str, ...], tmp_path: Path) -> StartWorker:
    """Return a function that starts a worker, with the URL `es` in place of the node's if it is given."""

    def begin(*options: str, es: str = "", **process_arguments: object) -> Worker:
        words = [es if es and name == "--es" else value for name, value in pairwise(("", *worker_options))]
        return Worker(*words, "--since", "0", *options, home=tmp_path, **process_arguments)  # type: ignore[arg-type]

    return begin


def catch_up(start: StartWorker, jetstream: Simulator, *options: str) -> dict[str, int]:
    """Run a worker with `--catch-up` until it exits, and return its counters.

    It exits soon, because the newest events are recent.
    """
    jetstream.generate(1500, span=0.2)
    with start("--catch-up", "--flush", "2s", *options) as worker:
        assert worker.exit_code() == 0
        return worker.counted()


# Signals


def assert_clean_shutdown(worker: Worker, within: float) -> None:
    signaled = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - signaled < within
    assert worker.lines[-1].endswith("Shutdown complete")
    assert "Traceback" not in worker.log


def test_sigterm_while_probing_servers(start: StartWorker, jetstream: Simulator) -> None:
    jetstream.faults.delay(float("inf"), times=None)
    with start() as worker:
        worker.wait_for("Elastic Skeetslurper")
        assert_clean_shutdown(worker, within=10)
        assert "Elasticsearch:" not in worker.log, "no further step is started"


def test_sigterm_while_waiting_for_elasticsearch(start: StartWorker) -> None:
    with start(es="http://127.0.0.1:1") as worker:
        worker.wait_for("waiting for Elasticsearch")
        assert_clean_shutdown(worker, within=10)


class HangingElasticsearch(Hostile):
    """A server that answers requests for health and versions, and no request of the setup."""

    def _serve(self, sock: socket.socket) -> None:
        requests = sock.makefile("rb")
        while line := requests.readline():
            while requests.readline().strip():
                pass
            path = line.decode().split(" ")[1]
            if path.startswith("/_cluster/health"):
                self._respond(sock, {"cluster_name": "c", "status": "green", "number_of_nodes": 1})
            elif "nodes.*.version" in path:
                self._respond(sock, {"nodes": {"n": {"version": "8.17.0"}}})
            else:
                self._stopped.wait()

    def _respond(self, sock: socket.socket, body: object) -> None:
        data = json.dumps(body).encode()
        head = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        sock.sendall(f"HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\n{head}\r\n".encode() + data)


def test_sigterm_during_set_up_stops_within_the_grace_period(start: StartWorker) -> None:
    with (
        HangingElasticsearch() as hanging,
        start("--grace", "2s", es=f"http://{hanging.host}") as worker,
    ):
        worker.wait_for("Elasticsearch: cluster 'c'")
        signaled = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - signaled < 6
        assert "startup did not stop in time" in worker.log
        assert worker.lines[-1].endswith("Shutdown complete")


def test_a_second_signal_during_set_up_stops_immediately(start: StartWorker) -> None:
    with (
        HangingElasticsearch() as hanging,
        start("--grace", "60s", es=f"http://{hanging.host}") as worker,
    ):
        worker.wait_for("Elasticsearch: cluster 'c'")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("stopping: a second signal stops immediately")
        time.sleep(1.1)  # a signal within one second of the first counts as the same request
        signaled = time.monotonic()
        assert worker.stop() == 1
        assert time.monotonic() - signaled < 5


def test_sigterm_before_the_first_batch_is_acknowledged(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(5000, span=1)
    with start() as worker:
        worker.wait_for("connected to")
        assert_clean_shutdown(worker, within=25)
        assert worker.counted()["in flight"] == 0
    catch_up(start, jetstream)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_sigterm_while_the_embedded_node_starts(start: StartWorker, tmp_path: Path) -> None:
    # The packages of the node are downloaded once for all tests, not again for this test's home folder.
    env = {"XDG_CACHE_HOME": str(cache_dir().parent)}
    node = ("--embedded", "--embedded-data", str(tmp_path / "node"))
    with start(*node, es=f"http://localhost:{free_port()}", env=env) as worker:
        worker.wait_for("embedded Elasticsearch: starting")
        parent, deadline = psutil.Process(worker.process.pid), time.monotonic() + 30
        while not (children := parent.children(recursive=True)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert children
        assert_clean_shutdown(worker, within=25)
        assert "ready at" not in worker.log, "the worker does not wait for the node"
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "a JVM outlives the worker"


def test_kill_9_at_each_step_of_startup_loses_no_events(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(3000, span=1)
    for step in ("Jetstream: ", "Elasticsearch: ", "setup: ", "index template: ", "starting "):
        with start() as worker:
            worker.wait_for(step)
            worker.kill()
    catch_up(start, jetstream)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


# Full disk


TMPFS = """
import os, sys
mount = 'mount -t tmpfs -o size=64k none "$1" && shift && exec "$@"'
program = [sys.executable, "{program}", *sys.argv[1:]]
os.execvp("unshare", ["unshare", "-rm", "sh", "-c", mount, "sh", "{folder}", *program])
"""
LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
sys.path.insert(0, "{root}")
from slurp.cli import main
sys.exit(main())
"""
LIMITS = {"a full file system": (TMPFS, "No space left on device"), "a limit": (LIMIT, "File too large")}


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("kind", slow_except(LIMITS, "a limit"))
def test_a_full_disk_stops_the_worker_and_the_next_run_resumes(
    start: StartWorker,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    kind: str,
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    source, reason = LIMITS[kind]
    if source == TMPFS and not can_mount(folder):
        pytest.skip("mounting a file system is not permitted here")
    program = tmp_path / "small.py"
    program.write_text(source.format(folder=folder, program=PROGRAM, root=PROGRAM.parent))
    garbage = [f"invalid {number} {'x' * 1000}" for number in range(300)]
    jetstream.generate(500, span=0.5)
    jetstream.faults.garbage(*garbage, after=400)
    letters = folder / "letters.jsonl"
    to_file = ("--dead-letter", str(letters), "--flush", "2s")
    with start(*to_file, program=program) as worker:
        assert worker.exit_code() == 1
        assert f"cannot write the dead-letter file {letters}: {reason}; make room or choose" in worker.log
        assert "Traceback" not in worker.log
        counted = worker.counted()
    assert counted["dead-lettered"] == 0
    assert counted["in flight"] >= len(garbage)
    saved = checkpoint(es, fresh_index_prefix)
    assert saved is not None
    assert (saved["cursor"] or 0) < 400, "the checkpoint is before the invalid frames"
    assert not saved["clean"] or saved["started"]

    # The file system has room again, and the server sends the invalid frames again.
    jetstream.faults.garbage(*garbage, after=400)
    assert catch_up(start, jetstream, *to_file)["dead-lettered"] == len(garbage)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
    written = []
    for line in letters.read_bytes().splitlines():
        try:
            written.append(frame_of(orjson.loads(line)).decode())
        except orjson.JSONDecodeError:
            assert line.startswith(b'{"at":'), "the line that the full disk cut off"
    assert sorted(written) == sorted(garbage), "each frame once"


# Clock changes


SETTABLE = """
import os, sys, time
real, offset = time.time, os.environ["OFFSET"]

def settable():
    with open(offset) as file:
        return real() + float(file.read())

time.time = settable
sys.path.insert(0, "{root}")
from skeetslurper import main
main()
"""


def test_clock_changes_of_hours_lose_no_events(
    start: StartWorker, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    offset, program = tmp_path / "offset", tmp_path / "settable.py"
    program.write_text(SETTABLE.format(root=PROGRAM.parent))

    def set_clock(hours: float) -> None:
        """Set the worker's clock to `hours` after the real time."""
        new = tmp_path / "new"
        new.write_text(str(hours * 3600))
        new.replace(offset)

    set_clock(0)
    jetstream.run_at(1000)
    with start("--retention", "3d", program=program, env={"OFFSET": str(offset)}) as worker:
        for hours in (7, -30, 0):
            # While no events arrive; the idle time must not be measured in hours.
            jetstream.pause()
            set_clock(hours)
            wait_for_line_after(worker, len(worker.lines), " in flight ")
            jetstream.run_at(1000)
            before = len(worker.lines)
            # A connection opened under this clock resumes at a cursor acknowledged under another.
            jetstream.faults.cut_after(400)
            wait_for_line_after(worker, before, "Connection to remote host was lost")
            wait_for_line_after(worker, before, "connected to .*, reading from cursor")
            wait_for_line_after(worker, len(worker.lines), " in flight ")
        jetstream.pause()
        total = len(jetstream.frames)
        deadline = time.monotonic() + 30
        while count(es, fresh_index_prefix) < total and time.monotonic() < deadline:
            time.sleep(0.2)
        assert worker.stop() == 0
        counted = worker.counted()
    assert (counted["expired"], counted["in flight"], counted["dead-lettered"]) == (0, 0, 0)
    assert counted["indexed"] == total
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
    warnings = [line for line in worker.lines if "WARNING" in line or "ERROR" in line]
    assert all("Connection to remote host was lost" in line for line in warnings), warnings
    assert "gap:" not in worker.log


def wait_for_line_after(worker: Worker, line_number: int, pattern: str) -> None:
    """Wait until a log line after the first `line_number` lines matches."""
    deadline = time.monotonic() + 30
    while not any(re.search(pattern, line) for line in worker.lines[line_number:]):
        assert time.monotonic() < deadline, f"no log line matches {pattern!r}"
        assert worker.process.poll() is None
        time.sleep(0.02)
