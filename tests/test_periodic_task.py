"""Periodic tasks: how their failures are logged, and when a failure ends the program."""

from __future__ import annotations

from pathlib import Path

import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
from elastic_transport import ConnectionError as NodeUnreachable
from elasticsearch import ApiError, AuthenticationException, AuthorizationException

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.outage_log import OutageLog
from slurp.elastic.periodic_task import LOG_EVERY, PeriodicTask
from slurp.errors import Exit, Fatal
from slurp.logs import Secrets


def rejection(status: int, kind: str) -> ApiError:
    node = NodeConfig("http", "localhost", 9200)
    meta = ApiResponseMeta(status, "1.1", HttpHeaders(), 0.0, node)
    cls = {401: AuthenticationException, 403: AuthorizationException}[status]
    return cls(kind, meta, {"error": {"type": kind, "reason": "no"}})


NO_PRIVILEGE = rejection(403, "security_exception")
WRONG_PASSWORD = rejection(401, "security_exception")
BLOCKED = rejection(403, "cluster_block_exception")
UNREACHABLE = NodeUnreachable("refused")


class Trial:
    """A task on a clock that the test moves. It raises `error`; with `idle` it has nothing to do."""

    def __init__(self, folder: Path, *, vital: bool = True) -> None:
        self.now = 1000.0
        self.error: Exception | None = None
        self.idle = False
        self.indexers = OutageLog()
        self.elastic = Elastic(parse([], {"HOME": str(folder)}), Secrets(()))
        self.task = PeriodicTask(
            self.elastic,
            self._run,
            OutageLog(LOG_EVERY, lambda: self.now, "task failed: {}", "task succeeded"),
            self.indexers,
            vital=vital,
            clock=lambda: self.now,
        )

    def run(self, seconds: int, error: Exception | None = None, *, indexing: bool = False) -> None:
        """Run the task once per second; with `indexing` bulk requests succeed meanwhile."""
        self.error = error
        for _ in range(seconds):
            self.task.run()
            self.now += 1
            if indexing:
                self.elastic.credentials_accepted()

    def _run(self) -> bool:
        if self.idle:
            return False
        if self.error is not None:
            raise self.error
        return True


@pytest.fixture(autouse=True)
def _without_config_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_failure_is_logged_every_minute_with_its_duration_and_when_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trial = Trial(tmp_path)
    trial.run(130, UNREACHABLE)
    trial.idle = True
    trial.run(5)
    trial.idle = False
    trial.run(5)
    assert caplog.messages == [
        "task failed: refused",
        "task failed: refused, for 60 s now",
        "task failed: refused, for 120 s now",
        "task succeeded after 135.0 s",
    ]


def test_short_failures_in_a_row_are_logged_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now = 1000.0
    outage_log = OutageLog(10.0, lambda: now, "task failed: {}", "task succeeded")
    for _ in range(18):
        outage_log.failing("rejected")
        now += 0.25
        outage_log.recovered()
        now += 0.25
    outage_log.failing("unreachable")
    now += 2.5
    outage_log.failing("unreachable")
    outage_log.recovered()
    now += 30
    outage_log.failing("unreachable again")
    assert caplog.messages == [
        *("task failed: rejected", "task succeeded after 0.2 s"),
        *("task failed: unreachable", "task succeeded after 2.5 s"),
        "task failed: unreachable again",
    ]


def test_a_failure_is_not_logged_while_the_indexers_log_an_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(tmp_path)
    trial.indexers.failing("unreachable")
    trial.run(10, UNREACHABLE)
    assert not [message for message in caplog.messages if "task failed" in message]
    trial.indexers.recovered()
    trial.run(1, UNREACHABLE)
    assert "task failed: refused" in caplog.text


@pytest.mark.parametrize("error", [NO_PRIVILEGE, WRONG_PASSWORD])
def test_a_vital_task_without_a_privilege_for_a_minute_ends_the_program(
    tmp_path: Path, error: Exception
) -> None:
    trial = Trial(tmp_path)
    trial.run(59, error, indexing=True)
    trial.run(1)
    trial.run(60, error, indexing=True)
    with pytest.raises(Fatal, match=r"and its privileges .*security_exception") as stopped:
        trial.run(1, error)
    assert stopped.value.code is Exit.USAGE


def test_other_failures_and_tasks_that_are_not_vital_do_not_end_the_program(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.run(200, BLOCKED)
    trial.run(59, NO_PRIVILEGE)
    trial.run(200, UNREACHABLE)
    trial.run(59, NO_PRIVILEGE)
    Trial(tmp_path, vital=False).run(200, NO_PRIVILEGE)
