"""What is told of work beside the indexing that fails, and when it ends the program."""

from __future__ import annotations

from pathlib import Path

import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
from elastic_transport import ConnectionError as NodeUnreachable
from elasticsearch import ApiError, AuthenticationException, AuthorizationException

from slurp.config import parse
from slurp.elastic.client import Elastic, OutageLog
from slurp.elastic.periodic_task import LOG_EVERY, PeriodicTask
from slurp.errors import Exit, Fatal
from slurp.logs import Secrets


def refusal(status: int, kind: str) -> ApiError:
    node = NodeConfig("http", "localhost", 9200)
    meta = ApiResponseMeta(status, "1.1", HttpHeaders(), 0.0, node)
    cls = {401: AuthenticationException, 403: AuthorizationException}[status]
    return cls(kind, meta, {"error": {"type": kind, "reason": "no"}})


DENIED = refusal(403, "security_exception")
WRONG = refusal(401, "security_exception")
BLOCKED = refusal(403, "cluster_block_exception")
AWAY = NodeUnreachable("refused")


class Work:
    """A chore on a clock of the test's; `error` is what it meets, `idle` that there is nothing to do."""

    def __init__(self, folder: Path, *, vital: bool = True) -> None:
        self.now = 1000.0
        self.error: Exception | None = None
        self.idle = False
        self.indexers = OutageLog()
        self.elastic = Elastic(parse([], {"HOME": str(folder)}), Secrets(()))
        self.task = PeriodicTask(
            self.elastic,
            self._work,
            OutageLog(LOG_EVERY, lambda: self.now, "it can't: {}", "it can again"),
            self.indexers,
            vital=vital,
            clock=lambda: self.now,
        )

    def go_on(self, seconds: int, error: Exception | None = None, *, granted: bool = False) -> None:
        """An attempt each second. `granted`: meanwhile the indexers deliver."""
        self.error = error
        for _ in range(seconds):
            self.task.run()
            self.now += 1
            if granted:
                self.elastic.granted()

    def _work(self) -> bool:
        if self.idle:
            return False
        if self.error is not None:
            raise self.error
        return True


@pytest.fixture(autouse=True)
def _no_config_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_trouble_is_told_each_minute_with_its_length_and_when_it_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    work = Work(tmp_path)
    work.go_on(130, AWAY)
    work.idle = True
    work.go_on(5)
    work.idle = False
    work.go_on(5)
    assert caplog.messages == [
        "it can't: refused",
        "it can't: refused, for 60 s now",
        "it can't: refused, for 120 s now",
        "it can again after 135.0 s",
    ]


def test_trouble_that_comes_and_goes_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now = 1000.0
    outage_log = OutageLog(10.0, lambda: now, "it can't: {}", "it can again")
    for _ in range(18):
        outage_log.trouble("rejected")
        now += 0.25
        outage_log.over()
        now += 0.25
    outage_log.trouble("away")
    now += 2.5
    outage_log.trouble("away")
    outage_log.over()
    now += 30
    outage_log.trouble("away again")
    assert caplog.messages == [
        *("it can't: rejected", "it can again after 0.2 s"),
        *("it can't: away", "it can again after 2.5 s"),
        "it can't: away again",
    ]


def test_trouble_of_the_indexers_is_told_by_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = Work(tmp_path)
    work.indexers.trouble("away")
    work.go_on(10, AWAY)
    assert not [message for message in caplog.messages if "it can't" in message]
    work.indexers.over()
    work.go_on(1, AWAY)
    assert "it can't: refused" in caplog.text


@pytest.mark.parametrize("error", [DENIED, WRONG])
def test_a_vital_right_that_lacks_for_a_minute_ends_the_program(tmp_path: Path, error: Exception) -> None:
    work = Work(tmp_path)
    work.go_on(59, error, granted=True)
    work.go_on(1)
    work.go_on(60, error, granted=True)
    with pytest.raises(Fatal, match=r"and its privileges .*security_exception") as stopped:
        work.go_on(1, error)
    assert stopped.value.code is Exit.USAGE


def test_other_trouble_and_rights_that_are_not_vital_end_nothing(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.go_on(200, BLOCKED)
    work.go_on(59, DENIED)
    work.go_on(200, AWAY)
    work.go_on(59, DENIED)
    Work(tmp_path, vital=False).go_on(200, DENIED)
