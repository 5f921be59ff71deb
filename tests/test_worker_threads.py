"""Errors in the threads of a service: the service stops with an error, and the next run loses no events."""

from __future__ import annotations

import logging
import re
import signal
from functools import partial
from pathlib import Path
from types import FrameType

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.daily_indices import DailyIndices
from slurp.errors import Exit
from slurp.jetstream.server_monitor import ServerMonitor
from slurp.logs import Screen, Secrets
from slurp.monitoring.stats import Stats
from slurp.pipeline.indexer import Indexer
from slurp.pipeline.reader import Reader
from slurp.service import Service
from slurp.simulator.jetstream import Simulator
from slurp.startup import Startup
from slurp.tasks import CheckpointTask
from tests.tiers import slow_except
from tests.worker import assert_each_once


class Bug(BaseException):
    """An error that is not an Exception, like the panic of a Rust extension."""


def fail_on_alarm(number: int, frame: FrameType | None) -> None:
    raise AssertionError("the service did not exit within 45 s")


def run_until_exit(arguments: tuple[str, ...], home: Path) -> Exit:
    """Run a service on the main thread of the test process, which its signal handlers require."""
    config = parse(list(arguments), {"HOME": str(home), "STATE_DIRECTORY": str(home)})
    before = signal.signal(signal.SIGALRM, fail_on_alarm)
    signal.alarm(45)
    try:
        return Service(config, Screen(), Secrets(config.secrets), version="0").run()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


FROM_START = ("--since", "0")

# Thread name: the class and method that run on it.
THREADS: dict[str, tuple[type, str]] = {
    "reader-1": (Reader, "step"),
    "indexer-[123]": (Indexer, "step"),
    "checkpoint": (CheckpointTask, "_save"),
    "housekeeping": (DailyIndices, "ensure_tomorrow"),
    "stats": (Stats, "step"),
    "server-monitor": (ServerMonitor, "step"),
    "startup": (Startup, "_find_start"),
}


# One guard serves all threads, so one thread is enough to test an error that is not an Exception.
@pytest.mark.parametrize(
    ("thread", "error"),
    slow_except(
        [*((thread, ZeroDivisionError) for thread in THREADS), ("reader-1", Bug)],
        ("reader-1", Bug),
        ("stats", ZeroDivisionError),
        unpack=True,
    ),
)
def test_an_error_in_any_thread_stops_the_service(
    worker_options: tuple[str, ...],
    jetstream: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    restored_signal_handlers: None,
    thread: str,
    error: type[BaseException],
) -> None:
    caplog.set_level(logging.INFO)
    jetstream.run_at(500)
    owner, name = THREADS[thread]

    def fail(*args: object, **more: object) -> bool:
        raise error("the bug")

    monkeypatch.setattr(owner, name, fail)
    if owner is ServerMonitor:
        monkeypatch.setattr("slurp.service.ServerMonitor", partial(ServerMonitor, every=0.2))
    # Two servers: the server monitor runs only if there are several.
    with Simulator(port=0, seed=2) as other:
        options = (*worker_options, *FROM_START, "--jetstream", other.url)
        assert run_until_exit(options, tmp_path) is Exit.FAILED
    failures = [record for record in caplog.records if "died, which is a bug" in record.getMessage()]
    assert failures
    for record in failures:
        assert re.fullmatch(thread, record.threadName or "")
        assert record.exc_info is not None
        assert record.exc_info[0] is error
    assert caplog.records[-1].getMessage() == "Shutdown complete, after a failure"


def test_a_thread_that_returns_early_stops_the_service(
    worker_options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    restored_signal_handlers: None,
) -> None:
    monkeypatch.setattr(Indexer, "step", lambda self: False)
    assert run_until_exit((*worker_options, *FROM_START), tmp_path) is Exit.FAILED
    assert "ended unexpectedly, which is a bug" in caplog.text


def test_a_batch_of_a_failed_indexer_is_read_again(
    worker_options: tuple[str, ...],
    jetstream: Simulator,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restored_signal_handlers: None,
) -> None:
    jetstream.generate(3000, span=1)
    index, calls = Indexer._index, iter(range(100))

    def fail_in_the_second_batch(self: Indexer, batch: object) -> object:
        if next(calls) == 1:
            raise ZeroDivisionError
        return index(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Indexer, "_index", fail_in_the_second_batch)
        assert run_until_exit((*worker_options, *FROM_START), tmp_path) is Exit.FAILED
    jetstream.generate(1500, span=0.2)
    options = (*worker_options, *FROM_START, "--catch-up", "--flush", "2s")
    assert run_until_exit(options, tmp_path) is Exit.DONE
    assert_each_once(es, fresh_index_prefix, jetstream.frames)
