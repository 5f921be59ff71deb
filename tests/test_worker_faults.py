"""What may befall a worker: signals at any step, a full disk, a thread that dies, a clock that is set."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType

import orjson
import psutil
import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.daily_indices import DailyIndices
from slurp.embedded.data_folder import cache_dir
from slurp.embedded.node import EmbeddedNode, free_port
from slurp.errors import Exit
from slurp.logs import Screen, Secrets
from slurp.monitoring.stats import Stats
from slurp.pipeline.dead_letters import frame_of
from slurp.pipeline.indexer import Indexer
from slurp.pipeline.reader import Reader
from slurp.pipeline.server_monitor import ServerMonitor
from slurp.service import Service
from slurp.simulator.jetstream import Simulator
from tests.hostile import Hostile
from tests.worker import PROGRAM, Worker, assert_each_once, checkpoint, count

Start = Callable[..., Worker]


@pytest.fixture
def options(es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str) -> tuple[str, ...]:
    """Of a worker between this test's simulator and the session's node."""
    return (
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix, "--since", "0"),
        *("--no-kibana", "--stats-interval", "1s", "--flush", "200ms"),
    )


@pytest.fixture
def start(options: tuple[str, ...], tmp_path: Path) -> Start:
    def begin(*more: str, es: str = "", **how: object) -> Worker:
        """`es` takes the place of the node."""
        mine = [es if es and name == "--es" else value for name, value in pairwise(("", *options))]
        return Worker(*mine, *more, home=tmp_path, **how)  # type: ignore[arg-type]

    return begin


def catch_up(start: Start, jetstream: Simulator, *more: str) -> dict[str, int]:
    """What a run counts that ends by itself: soon, as the newest events are fresh."""
    jetstream.generate(1500, span=0.2)
    with start("--catch-up", "--flush", "2s", *more) as worker:
        assert worker.exit_code() == 0
        return worker.counted()


# Signals


def assert_ended_in_order(worker: Worker, within: float) -> None:
    asked = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - asked < within
    assert worker.lines[-1].endswith("Shutdown complete")
    assert "Traceback" not in worker.log


def test_sigterm_while_servers_are_probed(start: Start, jetstream: Simulator) -> None:
    jetstream.faults.delay(float("inf"), times=None)
    with start() as worker:
        worker.wait_for("Elastic Skeetslurper")
        assert_ended_in_order(worker, within=10)
        assert "Elasticsearch:" not in worker.log, "no step is begun any more"


def test_sigterm_while_elasticsearch_is_waited_for(start: Start) -> None:
    with start(es="http://127.0.0.1:1") as worker:
        worker.wait_for("waiting for Elasticsearch")
        assert_ended_in_order(worker, within=10)


class StuckElasticsearch(Hostile):
    """Is well as long as it is only asked how it is; what the set-up asks is never answered."""

    def _serve(self, sock: socket.socket) -> None:
        asked = sock.makefile("rb")
        while line := asked.readline():
            while asked.readline().strip():
                pass
            path = line.decode().split(" ")[1]
            if path.startswith("/_cluster/health"):
                self._tell(sock, {"cluster_name": "c", "status": "green", "number_of_nodes": 1})
            elif "nodes.*.version" in path:
                self._tell(sock, {"nodes": {"n": {"version": "8.17.0"}}})
            else:
                self._over.wait()

    def _tell(self, sock: socket.socket, body: object) -> None:
        data = json.dumps(body).encode()
        head = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        sock.sendall(f"HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\n{head}\r\n".encode() + data)


def test_sigterm_during_the_set_up_ends_within_the_grace(start: Start) -> None:
    with (
        StuckElasticsearch() as stuck,
        start("--grace", "2s", es=f"http://{stuck.host}") as worker,
    ):
        worker.wait_for("Elasticsearch: cluster 'c'")
        asked = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - asked < 6
        assert "startup did not end in time" in worker.log
        assert worker.lines[-1].endswith("Shutdown complete")


def test_a_second_signal_during_the_set_up_stops_at_once(start: Start) -> None:
    with (
        StuckElasticsearch() as stuck,
        start("--grace", "60s", es=f"http://{stuck.host}") as worker,
    ):
        worker.wait_for("Elasticsearch: cluster 'c'")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("stopping: a second signal stops at once")
        time.sleep(1.1)  # sooner it is the same request
        asked = time.monotonic()
        assert worker.stop() == 1
        assert time.monotonic() - asked < 5


def test_sigterm_before_the_first_batch_is_answered_for(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(5000, span=1)
    with start() as worker:
        worker.wait_for("connected to")
        assert_ended_in_order(worker, within=25)
        assert worker.counted()["in flight"] == 0
    catch_up(start, jetstream)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_sigterm_while_the_embedded_node_starts(start: Start, tmp_path: Path) -> None:
    # Fetched once for all tests, not again into this one's home.
    env = {"XDG_CACHE_HOME": str(cache_dir().parent)}
    node = ("--embedded", "--embedded-data", str(tmp_path / "node"))
    with start(*node, es=f"http://localhost:{free_port()}", env=env) as worker:
        worker.wait_for("embedded Elasticsearch: starting")
        parent, deadline = psutil.Process(worker.process.pid), time.monotonic() + 30
        while not (children := parent.children(recursive=True)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert children
        assert_ended_in_order(worker, within=25)
        assert "ready at" not in worker.log, "the node is not waited for"
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "a JVM without an owner"


def test_kill_9_at_each_step_of_the_start(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str
) -> None:
    jetstream.generate(3000, span=1)
    for step in ("Jetstream: ", "Elasticsearch: ", "setup: ", "index template: ", "start: "):
        with start() as worker:
            worker.wait_for(step)
            worker.kill()
    catch_up(start, jetstream)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


# A full disk


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
FULL = {"a full file system": (TMPFS, "No space left on device"), "a limit": (LIMIT, "File too large")}


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_stops_the_worker_and_the_next_run_goes_on(
    start: Start,
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    kind: str,
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    source, reason = FULL[kind]
    if source == TMPFS and not can_mount(folder):
        pytest.skip("a file system can't be mounted here")
    program = tmp_path / "small.py"
    program.write_text(source.format(folder=folder, program=PROGRAM, root=PROGRAM.parent))
    garbage = [f"no event {number} {'x' * 1000}" for number in range(300)]
    jetstream.generate(500, span=0.5)
    jetstream.faults.garbage(*garbage, after=400)
    letters = folder / "letters.jsonl"
    to_file = ("--dead-letter", str(letters), "--flush", "2s")
    with start(*to_file, program=program) as worker:
        assert worker.exit_code() == 1
        assert f"can't write the dead-letter file {letters}: {reason}; make room or choose" in worker.log
        assert "Traceback" not in worker.log
        counted = worker.counted()
    assert counted["dead-lettered"] == 0
    assert counted["in flight"] >= len(garbage)
    saved = checkpoint(es, fresh_index_prefix)
    assert saved is not None
    assert (saved["cursor"] or 0) < 400, "the place before them"
    assert not saved["clean"] or saved["started"]

    # There is room again, and the server sends them again.
    jetstream.faults.garbage(*garbage, after=400)
    assert catch_up(start, jetstream, *to_file)["dead-lettered"] == len(garbage)
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
    kept = []
    for line in letters.read_bytes().splitlines():
        try:
            kept.append(frame_of(orjson.loads(line)).decode())
        except orjson.JSONDecodeError:
            assert line.startswith(b'{"at":'), "the half line of the full disk"
    assert sorted(kept) == sorted(garbage), "each once"


# Threads that die


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """A service in this process takes the signals for itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Bug(BaseException):
    """Not even an Exception, like the panic of an extension in Rust."""


def times_out(number: int, frame: FrameType | None) -> None:
    raise AssertionError("the service is half alive")


def run_to_the_end(arguments: tuple[str, ...], home: Path) -> Exit:
    """A service in this process, on this thread, as its signals want it."""
    config = parse(list(arguments), {"HOME": str(home), "STATE_DIRECTORY": str(home)})
    before = signal.signal(signal.SIGALRM, times_out)
    signal.alarm(45)
    try:
        return Service(config, Screen(), Secrets(config.secrets), version="0").run()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Whose it is, what it does there, and in which thread.
DEATHS: dict[str, tuple[type, str]] = {
    "reader-1": (Reader, "step"),
    "indexer-[123]": (Indexer, "step"),
    "checkpoint": (Service, "_save"),
    "housekeeping": (DailyIndices, "ensure_tomorrow"),
    "stats": (Stats, "step"),
    "scout": (ServerMonitor, "step"),
    "startup": (Service, "_find_start"),
}


# One guard for all threads, so one of them tells for what is no Exception.
@pytest.mark.parametrize(
    ("thread", "error"), [*((thread, ZeroDivisionError) for thread in DEATHS), ("reader-1", Bug)]
)
def test_a_thread_that_dies_takes_the_service_with_it(
    options: tuple[str, ...],
    jetstream: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    signals_as_before: None,
    thread: str,
    error: type[BaseException],
) -> None:
    caplog.set_level(logging.INFO)
    jetstream.run_at(500)
    owner, name = DEATHS[thread]

    def die(*args: object, **more: object) -> bool:
        raise error("the bug")

    monkeypatch.setattr(owner, name, die)
    if owner is ServerMonitor:
        monkeypatch.setattr("slurp.service.ServerMonitor", partial(ServerMonitor, every=0.2))
    # Two servers, for a scout has nothing to do with one.
    with Simulator(port=0, seed=2) as other:
        assert run_to_the_end((*options, "--jetstream", other.url), tmp_path) is Exit.FAILED
    died = [one for one in caplog.records if "died, which is a bug" in one.getMessage()]
    assert died
    for record in died:
        assert re.fullmatch(thread, record.threadName or "")
        assert record.exc_info is not None
        assert record.exc_info[0] is error
    assert caplog.records[-1].getMessage() == "Shutdown complete, after a failure"


def test_a_thread_that_ends_before_its_time_is_a_death_too(
    options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    signals_as_before: None,
) -> None:
    monkeypatch.setattr(Indexer, "step", lambda self: False)
    assert run_to_the_end(options, tmp_path) is Exit.FAILED
    assert "ended before its time, which is a bug" in caplog.text


def test_what_a_dying_indexer_held_is_read_again(
    options: tuple[str, ...],
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signals_as_before: None,
) -> None:
    jetstream.generate(3000, span=1)
    answer, calls = Indexer._answer, iter(range(100))

    def die_in_the_middle(self: Indexer, batch: object) -> object:
        if next(calls) == 1:
            raise ZeroDivisionError
        return answer(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Indexer, "_answer", die_in_the_middle)
        assert run_to_the_end(options, tmp_path) is Exit.FAILED
    jetstream.generate(1500, span=0.2)
    assert run_to_the_end((*options, "--catch-up", "--flush", "2s"), tmp_path) is Exit.DONE
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


# A clock that is set


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


def test_a_clock_that_is_set_by_hours_changes_nothing(
    start: Start, jetstream: Simulator, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    offset, program = tmp_path / "offset", tmp_path / "settable.py"
    program.write_text(SETTABLE.format(root=PROGRAM.parent))

    def set_clock(hours: float) -> None:
        new = tmp_path / "new"
        new.write_text(str(hours * 3600))
        new.replace(offset)

    set_clock(0)
    jetstream.run_at(1000)
    with start("--retention", "3d", program=program, env={"OFFSET": str(offset)}) as worker:
        for hours in (7, -30, 0):
            # In a silence, which must not seem hours long.
            jetstream.pause()
            set_clock(hours)
            wait_for_line_after(worker, len(worker.lines), " in flight ")
            jetstream.run_at(1000)
            before = len(worker.lines)
            # A connection of this time, which is resumed by what was acknowledged under another.
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


def wait_for_line_after(worker: Worker, place: int, pattern: str) -> None:
    deadline = time.monotonic() + 30
    while not any(re.search(pattern, line) for line in worker.lines[place:]):
        assert time.monotonic() < deadline, f"no {pattern!r}"
        assert worker.process.poll() is None
        time.sleep(0.02)
