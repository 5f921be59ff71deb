"""The unit file checked by systemd itself, and a worker with a test socket in place of systemd."""

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
from slurp.pipeline.channel import Channel, Shutdown
from slurp.pipeline.dead_letters import DeadLetterFile
from slurp.pipeline.delivery import Destination, IndexerHooks
from slurp.pipeline.indexer import Indexer
from slurp.pipeline.progress import Counters
from slurp.simulator.jetstream import Simulator
from slurp.watchdog import Watchdog
from tests.harness import commit
from tests.worker import Worker

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = DEPLOY / "skeetslurper.service"
# The highest allowed exposure level of `systemd-analyze security`, which is 0 (safe) to 10.
MAX_EXPOSURE = 2.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here (Debian: the package systemd)"
)


def analyze(*arguments: str) -> str:
    command = ["systemd-analyze", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_accepts_every_line_of_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    # systemd-analyze looks for the program, which is not installed here.
    copy.write_text(re.sub(r"(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text()))
    assert analyze("verify", "--man=no", str(copy)) == ""


@needs_systemd
def test_the_exposure_level_of_the_unit_is_low_and_documented() -> None:
    found = re.search(r"exposure level for .*: ([\d.]+)", analyze("security", "--offline=yes", str(UNIT)))
    assert found is not None
    assert float(found[1]) <= MAX_EXPOSURE
    assert f"an exposure of {found[1]} " in (DEPLOY.parent / "docs/operations.md").read_text()


def test_the_stop_timeout_of_the_unit_exceeds_the_grace_of_the_example() -> None:
    found = re.search(r"TimeoutStopSec=(\d+)s", UNIT.read_text())
    assert found is not None
    assert int(found[1]) > parse(["-c", str(DEPLOY / "skeetslurper.conf.example")], {}).grace


class WatchedIndexer:
    """An indexer with one batch and a watchdog with an interval of 0.15 s."""

    def __init__(self, tmp_path: Path, ensure: Any) -> None:
        config = parse(["--es", "http://127.0.0.1:1"], {})
        self.sent = 0
        self.watchdog = Watchdog(0.15, self._count)
        self.shutdown = Shutdown()
        buffer, counters = BatchQueue(10, 1_000_000), Counters(1)
        counters.begin(1, Position("h", None, 0), 0)
        elastic = Elastic(config, Secrets())
        days = DailyIndices(elastic, "ev", None, lambda client: None)
        days.ensure = ensure  # type: ignore[method-assign]
        heartbeat = self.watchdog.heartbeat("indexer-1", 1.5)
        self.indexer = Indexer(
            Channel(buffer, counters, self.shutdown),
            Destination(elastic, days, DeadLetterFile(tmp_path / "dead"), OutageLog()),
            hooks=IndexerHooks(beat=heartbeat.beat),
        )
        batch = Batch(1, "h", [commit(1, {"text": "one"})], 100, None)
        buffer.reserve(batch, 0)
        counters.received(batch)
        buffer.put(batch)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while self.indexer.step():
            pass

    def _count(self, line: str) -> None:
        self.sent += 1

    def sent_within(self, seconds: float) -> int:
        """Return the number of keep-alive messages of the next seconds."""
        before, end = self.sent, time.monotonic() + seconds
        while time.monotonic() < end:
            self.watchdog.step()
            time.sleep(0.02)
        return self.sent - before


def test_an_indexer_that_retries_is_alive(tmp_path: Path) -> None:
    watched = WatchedIndexer(tmp_path, ensure=lambda day, *beat: None)
    watched.sent_within(1.6)
    assert watched.sent_within(0.5) > 2, "the batch is older than the limit of one attempt"
    watched.shutdown.retry_until = 0.0


def test_an_indexer_that_hangs_suspends_the_keep_alive(tmp_path: Path) -> None:
    released = threading.Event()
    watched = WatchedIndexer(tmp_path, ensure=lambda day, *beat: cast(None, released.wait(30)))
    assert watched.sent_within(0.5) > 2
    watched.sent_within(1.2)
    assert watched.sent_within(0.5) == 0
    watched.shutdown.retry_until = 0.0
    released.set()


def test_a_worker_reports_its_state_to_systemd(
    es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path
) -> None:
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30)

        def wait_for(start: str) -> None:
            while not (messages and messages[-1].startswith(start)):
                messages.append(sock.recv(4096).decode())

        options = ("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000"}
        jetstream.generate(100)
        more = ("--since", "0", "--no-kibana", "--stats-interval", "1s")
        with Worker(*options, *more, home=tmp_path, env=env) as worker:
            wait_for("READY=1")
            assert "connected to" in worker.log
            assert [line for line in messages[:-1] if line != "WATCHDOG=1"] == [
                "STATUS=looking for Jetstream servers",
                "STATUS=waiting for Elasticsearch",
                "STATUS=setting up Elasticsearch",
            ]
            wait_for("STATUS=received")
            wait_for("WATCHDOG=1")
            assert worker.stop() == 0
            wait_for("STOPPING=1")
    assert sum(line.startswith("READY=1") for line in messages) == 1
