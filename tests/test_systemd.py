"""The unit and its example of options, as systemd itself judges them, and a worker under a played systemd."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.outage_log import OutageLog
from slurp.embedded.node import EmbeddedNode
from slurp.events.position import Position
from slurp.logs import Secrets
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.dead_letters import DeadLetterFile
from slurp.pipeline.indexer import Indexer, Shutdown
from slurp.pipeline.progress import Counters
from slurp.simulator.jetstream import Simulator
from slurp.watchdog import Watchdog
from tests.harness import commit
from tests.worker import Worker

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = DEPLOY / "skeetslurper.service"
MOST_EXPOSED = 2.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here (Debian: the package systemd)"
)


def analyze(*words: str) -> str:
    command = ["systemd-analyze", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_takes_every_line_of_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    # It looks for the program, which is not installed here.
    copy.write_text(re.sub(r"(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text()))
    assert analyze("verify", "--man=no", str(copy)) == ""


@needs_systemd
def test_the_unit_is_hardly_exposed() -> None:
    found = re.search(r"exposure level for .*: ([\d.]+)", analyze("security", "--offline=yes", str(UNIT)))
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED
    assert f"an exposure of {found[1]} " in (DEPLOY.parent / "docs/operations.md").read_text()


def test_the_unit_waits_longer_than_the_grace_and_the_example_parses() -> None:
    found = re.search(r"TimeoutStopSec=(\d+)s", UNIT.read_text())
    assert found is not None
    assert int(found[1]) > parse(["-c", str(DEPLOY / "skeetslurper.conf.example")], {}).grace


class Play:
    """An indexer with one batch, watched closely."""

    def __init__(self, tmp_path: Path, ensure: Any) -> None:
        config = parse(["--es", "http://127.0.0.1:1"], {})
        self.fed = 0
        self.watchdog = Watchdog(0.15, self._feed)
        self.shutdown = Shutdown()
        buffer, counters = BatchQueue(10, 1_000_000), Counters(1)
        counters.begin(1, Position("h", None, 0), 0)
        elastic = Elastic(config, Secrets())
        days = DailyIndices(elastic, "ev", None, lambda client: None)
        days.ensure = ensure  # type: ignore[method-assign]
        pulse = self.watchdog.pulse("indexer-1", 1.5)
        self.indexer = Indexer(
            *(elastic, days, DeadLetterFile(tmp_path / "dead"), buffer, counters, OutageLog(), self.shutdown),
            beat=pulse.beat,
        )
        batch = Batch(1, "h", [commit(1, {"text": "one"})], 100, None)
        buffer.reserve(batch, 0)
        counters.received(batch)
        buffer.put(batch)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while self.indexer.step():
            pass

    def _feed(self, line: str) -> None:
        self.fed += 1

    def fed_in(self, seconds: float) -> int:
        before, end = self.fed, time.monotonic() + seconds
        while time.monotonic() < end:
            self.watchdog.step()
            time.sleep(0.02)
        return self.fed - before


def test_an_indexer_that_tries_again_is_alive(tmp_path: Path) -> None:
    play = Play(tmp_path, ensure=lambda day, *beat: None)
    play.fed_in(1.6)
    assert play.fed_in(0.5) > 2, "it has held its batch for longer than one attempt may take"
    play.shutdown.deadline = 0.0


def test_an_indexer_that_hangs_is_not(tmp_path: Path) -> None:
    over = threading.Event()
    play = Play(tmp_path, ensure=lambda day, *beat: cast(None, over.wait(30)))
    assert play.fed_in(0.5) > 2
    play.fed_in(1.2)
    assert play.fed_in(0.5) == 0
    play.shutdown.deadline = 0.0
    over.set()


def test_a_worker_tells_systemd_how_it_is(
    es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path
) -> None:
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30)

        def wait_for(start: str) -> None:
            while not (told and told[-1].startswith(start)):
                told.append(sock.recv(4096).decode())

        options = ("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000"}
        jetstream.generate(100)
        more = ("--since", "0", "--no-kibana", "--stats-interval", "1s")
        with Worker(*options, *more, home=tmp_path, env=env) as worker:
            wait_for("READY=1")
            assert "connected to" in worker.log
            assert [line for line in told[:-1] if line != "WATCHDOG=1"] == [
                "STATUS=looking for Jetstream servers",
                "STATUS=waiting for Elasticsearch",
                "STATUS=setting up Elasticsearch",
            ]
            wait_for("STATUS=received")
            wait_for("WATCHDOG=1")
            assert worker.stop() == 0
            wait_for("STOPPING=1")
    assert sum(line.startswith("READY=1") for line in told) == 1
