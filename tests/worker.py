"""The worker in a process of its own, and the oracle that compares documents with published events."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import psutil
from elasticsearch import ApiError, Elasticsearch, helpers

from slurp.events.identity import event_id
from slurp.simulator import protocol_v2
from tests.chaos.deletion_model import DeletionModel, Deletions

PROGRAM = Path(__file__).parents[1] / "skeetslurper.py"

StartWorker = Callable[..., "Worker"]


class Worker:
    """`skeetslurper.py`, or another `program`, as a child process whose log lines are kept.

    On leaving the `with` block the process is killed; after an error its last 60 lines are printed.
    """

    def __init__(
        self, *options: str, home: Path, env: dict[str, str] | None = None, program: Path = PROGRAM
    ) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SKEETSLURPER_")
        }
        self.process = subprocess.Popen(
            [sys.executable, str(program), *options],
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"HOME": str(home)} | (env or {}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if error is not None:
            print("\n".join(self.lines[-60:]), file=sys.stderr)

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Wait until a log line matches the regular expression, and return the match."""
        search = re.compile(pattern).search
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines:
                    if match := search(line):
                        return match
                if self.process.poll() is not None and not self._reader.is_alive():
                    raise AssertionError(f"exited with {self.process.returncode} before logging {pattern!r}")
                if (
                    not self._changed.wait(min(0.2, deadline - time.monotonic()))
                    and time.monotonic() > deadline
                ):
                    raise AssertionError(f"no log line matches {pattern!r} within {timeout} s")

    def wait_until_counted(self, condition: Callable[[dict[str, int]], bool], timeout: float = 120) -> None:
        """Wait until `condition` holds for the counters of the last stats line."""
        deadline = time.monotonic() + timeout
        while not condition(self.counted()):
            assert time.monotonic() < deadline, f"not within {timeout} s: {self.counted()}"
            time.sleep(0.1)

    def exit_code(self, timeout: float = 60) -> int:
        """Wait for the process to exit, and return its exit code."""
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def stop(self, timeout: float = 60) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.exit_code(timeout)

    def kill(self) -> None:
        """Send SIGKILL, and wait for the process to exit."""
        self.process.kill()
        self.exit_code()

    def resident(self) -> int:
        """Return the resident memory of the process, in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def counted(self) -> dict[str, int]:
        """Return the counters of the last stats line."""
        return counters(self.lines)[-1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()


def starter(es_url: str, server_url: str, index: str, home: Path, *options: str) -> StartWorker:
    """Return a function that starts a worker with these and more options; `--jetstream` replaces the
    server."""

    def start_worker(*more: str) -> Worker:
        server = () if "--jetstream" in more else ("--jetstream", server_url)
        return Worker(
            *("--es", es_url, "--index", index, "--no-kibana", "--stats-interval", "1s", "--flush", "200ms"),
            *(*options, *server, *more),
            home=home,
        )

    return start_worker


def run_literally(text: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that has only HOME, PATH and the given environment variables."""
    return subprocess.run(
        ["sh", "-c", text],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", **variables},
    )


def counters(lines: Iterable[str]) -> list[dict[str, int]]:
    """Return the counters of each stats line in the log."""
    outcomes = ("indexed", "duplicates", "quarantined", "dead-lettered", "dropped", "expired")
    names = ("received", *outcomes, "in flight")
    return [
        {
            name: int(re.search(rf"{name} ([\d,]+)", line)[1].replace(",", ""))  # type: ignore[index]
            for name in names
        }
        for line in lines
        if " received " in line
    ]


def documents(es: Elasticsearch, index: str) -> dict[str, dict[str, Any]]:
    """Return all documents of the daily indices, `_id` to `_source`. Fail if an `_id` is in two indices."""
    es.indices.refresh(index=f"{index}-*")
    found: dict[str, dict[str, Any]] = {}
    for hit in helpers.scan(es, index=f"{index}-*", size=5000):
        assert hit["_id"] not in found, f"{hit['_id']} is in two indices"
        found[hit["_id"]] = hit["_source"]
    return found


def count(es: Elasticsearch, index: str) -> int:
    """Return the number of documents in the daily indices."""
    es.indices.refresh(index=f"{index}-*")
    return int(es.count(index=f"{index}-*")["count"])


def wait_for_documents(es: Elasticsearch, index: str, number: int, timeout: float = 120) -> None:
    """Wait until the daily indices hold at least `number` documents."""
    deadline = time.monotonic() + timeout
    found = 0
    while found < number:
        assert time.monotonic() < deadline, f"{found} of {number} within {timeout} s"
        time.sleep(0.2)
        try:
            found = count(es, index)
        except ApiError as error:
            # A daily index that was just created has no active shard for a moment.
            if error.status_code != 503:
                raise


def checkpoint(es: Elasticsearch, index: str) -> dict[str, Any] | None:
    """Return the saved checkpoint of the only subscription of `index`, or None."""
    es.indices.refresh(index="skeetslurper-state")
    query = {"bool": {"filter": [{"term": {"index": index}}, {"term": {"type": "checkpoint"}}]}}
    hits = es.search(index="skeetslurper-state", query=query)["hits"]["hits"]
    assert len(hits) <= 1
    return dict(hits[0]["_source"]) if hits else None


def stats_documents(es: Elasticsearch, index: str) -> list[dict[str, Any]]:
    """Return the documents about `index` in skeetslurper-stats, the oldest first."""
    es.indices.refresh(index="skeetslurper-stats")
    hits = es.search(
        index="skeetslurper-stats", query={"term": {"index": index}}, sort="@timestamp", size=1000
    )["hits"]["hits"]
    return [dict(hit["_source"]) for hit in hits]


def assert_stats_add_up(es: Elasticsearch, index: str, counted: dict[str, int]) -> list[dict[str, Any]]:
    """Check that the stats documents about `index` add up to the summary line of its only worker.

    Return the documents.
    """
    found = stats_documents(es, index)
    assert found[-1]["in_flight"] == counted["in flight"]
    names = counted.keys() - {"in flight"}
    sums = {name: sum(doc[name.replace("-", "_")] for doc in found) for name in names}
    assert sums == {name: counted[name] for name in names}
    return found


def expected(frames: Iterable[bytes]) -> dict[str, dict[str, Any]]:
    """Return the published events by their `_id`, decoded from frames of either protocol: the oracle."""
    messages = map(orjson.loads, frames)
    events = [protocol_v2.to_v1_event(message) if "payload" in message else message for message in messages]
    return {event_id(event): event for event in events}


def assert_each_once(es: Elasticsearch, index: str, frames: Iterable[bytes]) -> None:
    """Check that the index holds each published event once, its record unchanged, and nothing else.

    What was deleted or updated may be redacted, or not yet.
    """
    wanted, found = expected(frames), documents(es, index)
    model = DeletionModel(Deletions.APPLY)
    for event in wanted.values():
        model.add(event)
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    assert not missing, f"{len(missing)} of {len(wanted)} events lost"
    assert not extra, f"{len(extra)} documents of events that were never published"
    for doc_id, event in wanted.items():
        if "redacted" in found[doc_id]:
            assert found[doc_id]["redacted"]["reason"] in model.expected(doc_id).reasons
            continue
        commit = event.get("commit", {})
        if "record" in commit:
            assert record_in(found[doc_id]) == commit["record"]
        assert found[doc_id]["did"] == event["did"]


def record_in(document: dict[str, Any]) -> Any:
    """Return the record of a document, mapped (`record`) or unmapped (`other_record`)."""
    if "other_record" in document:
        return document["other_record"]
    return document["record"][document["commit"]["collection"]]
