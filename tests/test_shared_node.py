"""The node that the xdist workers share is started once and stopped after its last user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures_es import PASSWORD, client_for
from tests.shared_node import SharedNode
from tests.test_embedded import processes_of

USER = """
import sys, time
from pathlib import Path
from tests.shared_node import SharedNode
with SharedNode(Path(sys.argv[1])).use(*sys.argv[2:]) as node:
    print(node.port, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_the_node_runs_until_its_last_user_exits(tmp_path: Path, es_version: str) -> None:
    shared = SharedNode(tmp_path / "es")
    command = [sys.executable, "-c", USER, str(tmp_path / "es"), es_version, PASSWORD]
    root = Path(__file__).parents[1]
    with shared.use(es_version, PASSWORD) as node:
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
        assert other.stdout is not None
        assert int(other.stdout.readline()) == node.port
    try:
        with client_for(node) as es:
            assert es.cluster.health()["status"] in ("green", "yellow")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    shared.wait_until_stopped()
    assert processes_of(node.data) == []


def test_waiting_without_a_node_returns_immediately(tmp_path: Path) -> None:
    SharedNode(tmp_path / "es").wait_until_stopped()
