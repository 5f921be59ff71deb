"""elk/smoke.sh with a real Elasticsearch; Docker and Kibana are replaced by stubs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from slurp.embedded.node import EmbeddedNode
from slurp.kibana.dashboards import DASHBOARDS
from slurp.simulator.jetstream import Simulator
from tests.stub_kibana import StubKibana

SMOKE = Path(__file__).parents[1] / "elk" / "smoke.sh"

Smoke = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Put a `docker` first in the path that records its arguments; return the file it writes to."""
    file = tmp_path / "calls"
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        f"""#!/bin/sh
        printf '%s\\n' "$*" >>{shlex.quote(str(file))}
        case "$*" in *"logs --no-color setup"*) echo "setup-1  | ${{SETUP_LOG:-setup: done}}" ;; esac
        """
    )
    docker.chmod(0o755)
    return file


@pytest.fixture
def smoke(calls: Path, tmp_path: Path, es_node: EmbeddedNode, fresh_index_prefix: str) -> Smoke:
    def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SKEETSLURPER_")}
        settings = {
            "PATH": f"{calls.parent / 'bin'}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PYTHON": sys.executable,
            "SMOKE_LOGS": str(tmp_path / "logs"),
            "SKEETSLURPER_INDEX": fresh_index_prefix,
            "ES_PORT": str(urlsplit(es_node.url).port),
        }
        return subprocess.run(
            [SMOKE, *options],
            env=clean | settings | environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def last_call(calls: Path) -> str:
    return calls.read_text().splitlines()[-1].partition("/elk ")[2]


@pytest.mark.slow
def test_a_working_stack_passes(smoke: Smoke, calls: Path, jetstream: Simulator) -> None:
    jetstream.run_at(200)
    with StubKibana() as kibana:
        done = smoke("--jetstream", jetstream.url, SMOKE_SECONDS="12", KIBANA_PORT=str(kibana.port))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"smoke: {len(DASHBOARDS)} dashboards\nsmoke: done" in done.stdout
    commands = [line.partition("/elk ")[2] for line in calls.read_text().splitlines()]
    assert commands[0] == "up setup"
    assert "up -d --wait --wait-timeout 600" in commands
    assert commands[-1] == "down --volumes --remove-orphans"
    assert all("--project-name skeetslurper-smoke " in line for line in calls.read_text().splitlines())


@pytest.mark.slow
def test_missing_dashboards_fail(smoke: Smoke, calls: Path, jetstream: Simulator) -> None:
    jetstream.run_at(200)
    with StubKibana() as kibana:
        done = smoke(
            *("--jetstream", jetstream.url, "--no-kibana"), SMOKE_SECONDS="6", KIBANA_PORT=str(kibana.port)
        )
    assert done.returncode == 1
    assert f"smoke: Kibana has 0 dashboards, expected {len(DASHBOARDS)}; see " in done.stderr
    assert last_call(calls) == "down --volumes --remove-orphans"


def test_a_failing_worker_fails_the_smoke_test(smoke: Smoke, calls: Path, tmp_path: Path) -> None:
    done = smoke("--batch", "0", SMOKE_SECONDS="1")
    assert done.returncode == 1
    assert "smoke: the worker exited with code 2; see " in done.stderr
    log = (tmp_path / "logs" / "worker.log").read_text()
    assert "--batch: invalid number '0' (use a whole number of 1 or more)" in log
    assert last_call(calls) == "down --volumes --remove-orphans"


def test_a_failing_setup_fails_the_smoke_test(smoke: Smoke, calls: Path) -> None:
    done = smoke(SETUP_LOG="setup: Elasticsearch rejects the password")
    assert done.returncode == 1
    assert "smoke: setup did not complete; see " in done.stderr
    assert last_call(calls) == "down --volumes --remove-orphans"
