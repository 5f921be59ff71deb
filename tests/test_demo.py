"""`make demo`: ends when it was told to, and shows what there is, also when that is nothing."""

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

# They take the usual ports, so one at a time.
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


def test_the_shortest_run_ends_in_order() -> None:
    done = run_demo("--seconds", "0", timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Elasticsearch holds " in done.stdout
    assert "Traceback" not in done.stderr


def test_the_time_is_over_though_nothing_was_indexed() -> None:
    """It used to count from the first document."""
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:
        demo._watch(worker, 1, StopSignals())
        assert worker.poll() is None
        worker.kill()
    assert 0.9 < time.monotonic() - began < 10


def test_the_end_of_the_worker_ends_it() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as worker:
        demo._watch(worker, None, StopSignals())


def test_a_summary_of_nothing(
    es: Elasticsearch,
    fresh_index_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "INDEX", fresh_index_prefix)
    demo._summarise(es)
    assert "Elasticsearch holds 0 documents\n\nNext: " in capsys.readouterr().out


@pytest.mark.slow
def test_it_runs_and_ends_with_a_summary() -> None:
    done = run_demo("--seconds", "40", "--rate", "200", timeout=150)
    assert done.returncode == 0, done.stderr
    assert f"the first time it is fetched, {DOWNLOAD_MB} MB" in done.stdout
    count = re.search(r"Elasticsearch holds ([\d,]+) documents", done.stdout)
    assert count is not None
    assert int(count[1].replace(",", "")) > 500
    assert "\nby language\n" in done.stdout


def test_the_readme_says_the_size_of_the_download() -> None:
    assert f"an Elasticsearch of {DOWNLOAD_MB} MB" in (ROOT / "README.md").read_text("utf-8")
    fetched = re.search(r"(\d+) MB, with a Java", (ROOT / "Makefile").read_text("utf-8"))
    assert fetched is not None
    assert f"fetches {fetched[1]} MB of Python packages" in (ROOT / "README.md").read_text("utf-8")
