"""`make demo`: it ends after the given time and prints a summary, even of no documents."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from slurp import demo
from slurp.embedded.distribution import DOWNLOAD_MB
from slurp.process import StopSignals

# These tests use the default ports, so they run one at a time.
pytestmark = pytest.mark.xdist_group("usual ports")

ROOT = Path(__file__).parents[1]


def run_demo(*options: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slurp.demo", *options],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_a_run_of_zero_seconds_ends_with_exit_code_0() -> None:
    done = run_demo("--seconds", "0", timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Elasticsearch holds " in done.stdout
    assert "Traceback" not in done.stderr


def test_the_time_limit_does_not_depend_on_indexed_documents() -> None:
    """Regression: the time was counted from the first document."""
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:
        demo._wait_for_end(worker, 1, StopSignals())
        assert worker.poll() is None
        worker.kill()
    assert 0.9 < time.monotonic() - began < 10


def test_the_demo_ends_when_the_worker_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as worker:
        demo._wait_for_end(worker, None, StopSignals())


def test_the_summary_of_an_empty_cluster_has_zero_documents(
    es: Elasticsearch,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "INDEX", fresh_index_prefix)
    demo._print_summary(es)
    assert "Elasticsearch holds 0 documents\n\nNext: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_indexes_events_and_ends_with_a_summary() -> None:
    done = run_demo("--seconds", "40", "--rate", "200", timeout=150)
    assert done.returncode == 0, done.stderr
    assert f"downloads {DOWNLOAD_MB} MB the first time" in done.stdout
    count = re.search(r"Elasticsearch holds ([\d,]+) documents", done.stdout)
    assert count is not None
    assert int(count[1].replace(",", "")) > 500
    assert "\nby language\n" in done.stdout


def test_the_readme_has_the_sizes_of_the_downloads() -> None:
    assert f"an Elasticsearch of {DOWNLOAD_MB} MB" in (ROOT / "README.md").read_text("utf-8")
    fetched = re.search(r"(\d+) MB, with a Java", (ROOT / "Makefile").read_text("utf-8"))
    assert fetched is not None
    assert f"fetches {fetched[1]} MB of Python packages" in (ROOT / "README.md").read_text("utf-8")
