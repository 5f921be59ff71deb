"""The processes of a chaos run: a node, two Jetstream servers, proxies, and the worker."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from elasticsearch import Elasticsearch, helpers

from slurp.elastic.privileges import Role, worker_with_setup
from slurp.elastic.templates import STATS_INDEX
from slurp.embedded.node import EmbeddedNode, NodeOptions
from slurp.pipeline.dead_letters import frame_of
from slurp.simulator.bursts import BurstAccount
from slurp.simulator.event_generator import Action, EventGenerator
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions, ServerOptions
from slurp.simulator.pacer import Pacer
from slurp.simulator.protocol_v1 import with_cursor
from tests.chaos import defective_worker
from tests.chaos.defective_worker import Defect
from tests.chaos.deletion_model import Deletions
from tests.chaos.oracle import PublishedEvents, Verdict, digest
from tests.chaos.worker_runs import WorkerRuns
from tests.file_realm import FileRealm
from tests.harness import posts_with_integer
from tests.proxy import Proxy
from tests.worker import PROGRAM, Worker

INDEX = "chaos"
USER = "chaos_worker"
_ROLE = "chaos_role"

# One event in this many is rejected by the mapping and must be quarantined.
_INVALID_EVERY = 700
# The second server starts at another cursor: its cursors are not valid on the first.
_CURSOR_OFFSET = 7_000_000
# At most this many events may get new cursors after a restart: the size of a server's storage blocks.
RENUMBERED = 4096
_BURST_BATCH = 1000
_SERVER = ServerOptions(retain_bytes=8 * 10**9)
_FIRST_INDEX_TIMEOUT = 120.0
_APPLY_INTERVAL = 3.0


class ChaosEnvironment:
    """The parts of one run. Use it as a context manager; `begin` starts the events."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        rate: float,
        deletions: Deletions = Deletions.APPLY,
        defect: Defect | None = None,
    ) -> None:
        self._folder = folder
        self._rate = rate
        self._deletions = deletions
        self._defect = defect
        self._generator = EventGenerator(seed, NetworkOptions(odd_revs=0.002))
        self._numbers = itertools.count(1)
        # Either the steady stream or a burst publishes.
        self._publishing = threading.Lock()
        self._pacer: Pacer | None = None
        self._exits = contextlib.ExitStack()
        self.published = PublishedEvents(deletions)
        self.password = "first-password"
        self._password_file = folder / "password"
        self.dead_letters = folder / "dead-letters.jsonl"
        # A write queue that a few requests fill, so that Elasticsearch responds with 429.
        self.node = EmbeddedNode(
            folder / "node",
            port=0,
            options=NodeOptions(
                settings={"thread_pool.write.size": "1", "thread_pool.write.queue_size": "4"}
            ),
        )
        self.first = Simulator(seed=seed, server=_SERVER)
        # An older server with the v1 protocol only.
        self.second = Simulator(seed=seed, server=_SERVER, protocols="v1")

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self.node.start()
            self._exits.callback(self.node.stop)
            for simulator in (self.first, self.second):
                self._exits.enter_context(simulator)
            self.es = self._exits.enter_context(
                Elasticsearch(self.node.url, basic_auth=("elastic", "changeme"), request_timeout=60)
            )
            self.es.cluster.put_component_template(
                name=f"{INDEX}@custom", template={"mappings": {"properties": posts_with_integer("odd")}}
            )
            # Proxies, to break the connections between worker and servers.
            self.jetstream_proxies = [self._exits.enter_context(Proxy(one.port)) for one in self.simulators]
            # The worker uses one node at two addresses, as if it were two nodes.
            self.es_proxies = [self._exits.enter_context(Proxy(self.node.port)) for _ in range(2)]
            self.realm = FileRealm(self.node)
            self.realm.roles({_ROLE: self.role})
            self.realm.add(USER, self.password, _ROLE)
            self.realm.wait_for_privilege(USER, self.password, f"{INDEX}-x", "index")
            self.write_password()
            self.runs = self._make_runs()
            self._exits.callback(self.runs.close)
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pacer is not None:
            self._pacer.stop()
        self._exits.close()

    def begin(self) -> None:
        """Start events and worker, and wait for the first daily index, which some faults need."""
        self._pacer = Pacer(self._publish_locked, self._rate, lambda: 0, "chaos-events")
        self.runs.begin()
        deadline = time.monotonic() + _FIRST_INDEX_TIMEOUT
        while not self.indices():
            assert time.monotonic() < deadline, f"no index after {_FIRST_INDEX_TIMEOUT:.0f} s"
            time.sleep(0.1)

    @property
    def simulator(self) -> Simulator:
        """The server that the worker reads from; the first if it reads from none."""
        return self.second if self.second.behind is not None else self.first

    @property
    def simulators(self) -> tuple[Simulator, Simulator]:
        """Both servers."""
        return self.first, self.second

    def burst(self, count: int) -> None:
        """Publish `count` events immediately: the worker has a backlog and reads as fast as it can."""
        self._publish_all(count)

    def delete_account(self, records: int) -> None:
        """Publish an account with many records immediately, and its deletion."""
        account = BurstAccount(self._generator)
        self._publish_all(records, account.write)
        self._publish_all(1, account.delete)

    def delete_records(self, records: int) -> None:
        """Publish an account with many records immediately, and the deletion of each record."""
        account = BurstAccount(self._generator)
        self._publish_all(records, account.write)
        self._publish_all(records, account.delete_record)

    @property
    def role(self) -> Role:
        """The privileges that the worker needs."""
        return worker_with_setup(INDEX)

    def set_privileges(self, role: Role) -> None:
        """Replace the privileges of the worker's user."""
        self.realm.roles({_ROLE: role})

    def rotate_password(self) -> None:
        """Change the password in Elasticsearch only; `write_password` passes it to the worker."""
        self.password = secrets.token_urlsafe(12)
        self.realm.change_password(USER, self.password)

    def write_password(self) -> None:
        """Write the current password to the file that the worker reads."""
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(self.password, encoding="utf-8")

    def indices(self) -> list[str]:
        """Return the names of the daily indices."""
        return list(self.es.indices.get(index=f"{INDEX}-*", expand_wildcards="all"))

    def settle(self, timeout: float, idle_timeout: float) -> None:
        """Stop publishing; wait until all events are indexed, or none was for `idle_timeout` seconds."""
        if self._pacer is not None:
            self._pacer.stop()
        deadline = time.monotonic() + timeout
        count, since = -1, time.monotonic()
        while time.monotonic() < deadline:
            self.es.indices.refresh(index=f"{INDEX}-*")
            now = int(self.es.count(index=f"{INDEX}-*")["count"])
            if now != count:
                count, since = now, time.monotonic()
            idle = time.monotonic() - since
            # 3 s for possible duplicates; longer for events that may still be sent again.
            if idle > (3 if now >= len(self.published) else idle_timeout):
                return
            time.sleep(0.5)

    def wait_until_applied(self, timeout: float) -> None:
        """Wait until all deletions are applied, at most `timeout` seconds.

        The first checks ask the worker only: a comparison reads all documents, and delays the worker.
        """
        if self._deletions is Deletions.KEEP:
            return
        deadline = time.monotonic() + timeout
        while self._is_applying() and time.monotonic() < deadline:
            time.sleep(_APPLY_INTERVAL)
        while self.compare().pending and time.monotonic() < deadline:
            time.sleep(_APPLY_INTERVAL)

    def _is_applying(self) -> bool:
        """Return whether deletions wait according to the latest statistics."""
        self.es.indices.refresh(index=STATS_INDEX)
        latest = self.es.search(index=STATS_INDEX, sort=[{"@timestamp": "desc"}], size=1)["hits"]["hits"]
        return any(hit["_source"]["deletions_oldest_ms"] for hit in latest)

    def compare(self) -> Verdict:
        """Compare the published events with all documents."""
        return self.published.compare(self._hits())

    def digest(self) -> str:
        """Return a digest of all documents."""
        return digest(self._hits())

    def replay(self, timeout: float) -> int:
        """Let a worker read all events again from the first one, and return its exit code."""
        query = {"bool": {"filter": [{"term": {"index": INDEX}}, {"term": {"type": "checkpoint"}}]}}
        self.es.indices.refresh(index="skeetslurper-state")
        for hit in helpers.scan(self.es, index="skeetslurper-state", query={"query": query}):
            self.es.delete(index="skeetslurper-state", id=hit["_id"])
        self.es.indices.refresh(index="skeetslurper-state")
        # A silent server has no more events: --catch-up must notice it before the stall timeout.
        options = (*self._options(), "--stall-timeout", "1m", "--catch-up")
        with Worker(*options, home=self._folder) as worker:
            code = worker.exit_code(timeout)
        (self._folder / "replay.log").write_text(worker.log, encoding="utf-8")
        return code

    def _hits(self) -> Iterable[dict[str, Any]]:
        self.es.indices.refresh(index=f"{INDEX}-*")
        return helpers.scan(self.es, index=f"{INDEX}-*", size=5000)

    def unexpected_dead_letters(self) -> int:
        """Return the number of dead letters that are not injected garbage, or not valid lines."""
        if not self.dead_letters.exists():
            return 0
        sent = {payload for one in self.simulators for payload in one.faults.injected}
        return sum(_dead_letter(line) not in sent for line in self.dead_letters.read_bytes().splitlines())

    def _publish_locked(self, count: int) -> int:
        with self._publishing:
            return self._publish(count)

    def _publish_all(self, count: int, action: Action | None = None) -> None:
        with self._publishing:
            while count > 0:
                count -= self._publish(min(count, _BURST_BATCH), action)

    def _publish(self, count: int, action: Action | None = None) -> int:
        """Publish the same events on both servers, each with its own cursors."""
        now = int(time.time() * 1e6)
        first, second = [], []
        for _ in range(count):
            number = next(self._numbers)
            frame = self._generator.event(now, number, action).frame
            invalid = number % _INVALID_EVERY == 0 and (changed := _with_invalid_field(frame)) != frame
            frame = changed if invalid else frame
            self.published.add(frame, invalid=invalid)
            first.append(frame)
            second.append(with_cursor(frame, number, number + _CURSOR_OFFSET))
        self.first.publish(first)
        self.second.publish(second)
        return count

    def _make_runs(self) -> WorkerRuns:
        if self._defect is None:
            return WorkerRuns(self._options(), self._folder, PROGRAM)
        options = [self._defect.option, *self._options()]
        return WorkerRuns(options, self._folder, defective_worker.PROGRAM)

    def _options(self) -> list[str]:
        return [
            *(f"--jetstream=ws://127.0.0.1:{proxy.port}" for proxy in self.jetstream_proxies),
            *(f"--es=http://127.0.0.1:{proxy.port}" for proxy in self.es_proxies),
            *("--index", INDEX, "--no-kibana"),
            *("--es-user", USER, "--es-pass-file", str(self._password_file)),
            *("--since", "0", "--stall-timeout", "5s", "--stats-interval", "5s", "--grace", "15s"),
            *("--compress", "on", "--dead-letter", str(self.dead_letters)),
            *self._deletions.options,
        ]


def _with_invalid_field(frame: bytes) -> bytes:
    """Add a field to a post that the user's mapping rejects; return other events unchanged."""
    event = orjson.loads(frame)
    record = event.get("commit", {}).get("record")
    if record is None or "text" not in record:
        return frame
    record["odd"] = "no integer"
    return orjson.dumps(event)


def _dead_letter(line: bytes) -> bytes | None:
    try:
        return frame_of(orjson.loads(line))
    except (ValueError, KeyError, TypeError):
        return None
