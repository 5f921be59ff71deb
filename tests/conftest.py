"""Fixtures that several tests share; those of the node and the simulator have files of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from slurp.embedded.node import EmbeddedNode
from slurp.options import config_files
from tests.gateway import Gateway
from tests.harness import InProcess

pytest_plugins = ["tests.fixtures_es", "tests.fixtures_jetstream"]

# No deadline: a machine under load is slow now and then, which says nothing about the example.
# `make test` chooses the quick profile (--hypothesis-profile), everything else has the full depth.
settings.register_profile("full", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("full")

SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure() -> None:
    # A shell starts what runs in the background without Ctrl+C, and nohup without SIGHUP. What the tests
    # start would inherit that.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    found = [file for file in map(Path, config_files(os.environ)) if file.expanduser().exists()]
    if found:
        # The workers that are started here would take their options from it.
        raise pytest.UsageError(f"move {found[0]} away: the tests read it as every worker does")


@pytest.fixture(scope="session")
def corpus() -> list[Path]:
    """Recorded events of the v1 wire: real ones, and those of a simulated network."""
    names = ("jetstream-v1-real.jsonl", "jetstream-v1-simulated.jsonl")
    paths = [SHARED / "corpus" / name for name in names]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"the recorded events are not at {SHARED.name}/corpus beside the project")
    return paths


@pytest.fixture
def indexer(
    es_node: EmbeddedNode, fresh_index_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """Indexing into this test's own indices, without a worker process."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return InProcess(es_node.url, fresh_index_prefix, tmp_path)


@pytest.fixture
def gateway(es_node: EmbeddedNode) -> Iterator[Gateway]:
    with Gateway(es_node.port) as gateway:
        yield gateway


@pytest.fixture
def behind(gateway: Gateway, fresh_index_prefix: str, tmp_path: Path) -> InProcess:
    """As `indexer`, by way of the gateway."""
    return InProcess(gateway.url, fresh_index_prefix, tmp_path)
