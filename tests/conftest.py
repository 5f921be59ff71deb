"""Fixtures that several test files share.

The fixtures of the Elasticsearch node are in fixtures_es.py, those of the simulator in fixtures_jetstream.py.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from slurp.embedded.node import EmbeddedNode
from slurp.options.definitions import config_files
from slurp.simulator.jetstream import Simulator
from tests.gateway import Gateway
from tests.harness import InProcess
from tests.worker import StartWorker, Worker

pytest_plugins = ["tests.fixtures_es", "tests.fixtures_jetstream"]

# No deadline: on a machine under load any example may be slow.
# `make test` selects the profile `quick` (--hypothesis-profile); every other run uses `full`.
settings.register_profile("full", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("full")

SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure() -> None:
    # Shells start background jobs with SIGINT ignored, and nohup starts with SIGHUP ignored. The processes
    # that the tests start would inherit this.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    found = [file for file in map(Path, config_files(os.environ)) if file.expanduser().exists()]
    if found:
        # The workers that the tests start would read their options from this file.
        raise pytest.UsageError(f"configuration file {found[0]} changes the tests; move it away")


@pytest.fixture
def restored_root_logger() -> Iterator[None]:
    """Undo `logs.set_up`, which a command calls in the test process: later tests read the log."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def corpus() -> list[Path]:
    """Return the files of recorded v1 frames: of the real network and of a simulated one."""
    names = ("jetstream-v1-real.jsonl", "jetstream-v1-simulated.jsonl")
    paths = [SHARED / "corpus" / name for name in names]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"the recorded events are not at {SHARED.name}/corpus beside the project")
    return paths


@pytest.fixture
def indexer(
    es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """Return an indexer in the test process that writes to this test's own indices."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return InProcess(es_node.url, fresh_index_prefix, tmp_path)


@pytest.fixture
def gateway(es_node: EmbeddedNode) -> Iterator[Gateway]:
    """Yield a gateway in front of the node, which can replace the responses."""
    with Gateway(es_node.port) as gateway:
        yield gateway


@pytest.fixture
def behind(gateway: Gateway, fresh_index_prefix: str, tmp_path: Path) -> InProcess:
    """Return an `indexer` whose requests pass through the gateway."""
    return InProcess(gateway.url, fresh_index_prefix, tmp_path)


@pytest.fixture
def worker_options(es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str) -> tuple[str, ...]:
    """Return the options of a worker between this test's simulator and the shared node."""
    return (
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix),
        *("--no-kibana", "--stats-interval", "1s", "--flush", "200ms"),
    )


@pytest.fixture
def start_worker(worker_options: tuple[str, ...], tmp_path: Path) -> StartWorker:
    """Return a function that starts a worker process with `worker_options` and more options."""
    return lambda *options: Worker(*worker_options, *options, home=tmp_path)


@pytest.fixture
def restored_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that a service in the test process replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
