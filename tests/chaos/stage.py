"""Everything that a fault can happen to: a node, two Jetstream servers, and the worker between them."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from elasticsearch import Elasticsearch, helpers

from slurp.elastic.privileges import Role, worker_with_setup
from slurp.embedded.node import EmbeddedNode
from slurp.pipeline.dead_letters import frame_of
from slurp.simulator.jetstream import Simulator
from slurp.simulator.network import Network
from slurp.simulator.pace import Pacer
from slurp.simulator.wire import with_cursor
from tests.chaos.oracle import ItemClass, Published
from tests.chaos.runs import Runs
from tests.file_realm import FileRealm
from tests.proxy import Proxy
from tests.worker import PROGRAM

INDEX = "chaos"
USER = "chaos_worker"
_ROLE = "chaos_role"

# One event in so many holds what Elasticsearch refuses, and goes to quarantine.
_ODD_EVERY = 700
# The second server counts from elsewhere: its sequence numbers mean nothing on the first.
_SHIFT = 7_000_000
# Only these many events may come again under other sequence numbers: a server stores them in blocks of it.
RENUMBERED = 4096
_BURST_PORTION = 1000
_RETAIN = 8 * 10**9
_FIRST_WITHIN = 120.0


class Stage:
    """The parts of one run. Use it as a context; `begin` lets the events flow."""

    def __init__(self, folder: Path, *, seed: int, rate: float, program: Path = PROGRAM) -> None:
        self._folder = folder
        self._rate = rate
        self._program = program
        self._network = Network(seed, odd_revs=0.002)
        self._numbers = itertools.count(1)
        # The feed and a burst take turns.
        self._publishing = threading.Lock()
        self._pacer: Pacer | None = None
        self._exits = contextlib.ExitStack()
        self.published = Published()
        self.password = "first-password"
        self._password_file = folder / "password"
        self.letters = folder / "dead-letters.jsonl"
        # A write queue that a few requests fill: real answers of 429.
        self.node = EmbeddedNode(
            folder / "node",
            port=0,
            settings={"thread_pool.write.size": "1", "thread_pool.write.queue_size": "4"},
        )
        self.first = Simulator(seed=seed, retain_bytes=_RETAIN)
        # An older server, that has the first wire only.
        self.second = Simulator(seed=seed, retain_bytes=_RETAIN, protocols="v1")

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
            # What lies between worker and servers can break as well.
            self.roads = [self._exits.enter_context(Proxy(one.port)) for one in self.simulators]
            # The worker sees two nodes: one node by two ways.
            self.wires = [self._exits.enter_context(Proxy(self.node.port)) for _ in range(2)]
            self.realm = FileRealm(self.node)
            self.realm.roles({_ROLE: self.role})
            self.realm.add(USER, self.password, _ROLE)
            self.realm.wait_for_privilege(USER, self.password, f"{INDEX}-x", "index")
            self.tell_password()
            self.runs = Runs(self._options(), self._folder, self._program)
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
        """Let the events flow, and wait for the first day index, which some faults act on."""
        self._pacer = Pacer(self._feed, self._rate, lambda: 0, "chaos-feed")
        self.runs.begin()
        deadline = time.monotonic() + _FIRST_WITHIN
        while not self.indices():
            assert time.monotonic() < deadline, f"no index after {_FIRST_WITHIN:.0f} s"
            time.sleep(0.1)

    @property
    def simulator(self) -> Simulator:
        """The server that the worker reads from, or would."""
        return self.second if self.second.behind is not None else self.first

    @property
    def simulators(self) -> tuple[Simulator, Simulator]:
        return self.first, self.second

    def burst(self, count: int) -> None:
        """Publish so many events at once: the worker has a backlog, and reads as fast as it can."""
        with self._publishing:
            while count > 0:
                count -= self._publish(min(count, _BURST_PORTION))

    @property
    def role(self) -> Role:
        return worker_with_setup(INDEX)

    def set_rights(self, role: Role) -> None:
        self.realm.roles({_ROLE: role})

    def rotate_password(self) -> None:
        """In the cluster only; `tell_password` tells the worker."""
        self.password = secrets.token_urlsafe(12)
        self.realm.change_password(USER, self.password)

    def tell_password(self) -> None:
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(self.password, encoding="utf-8")

    def indices(self) -> list[str]:
        return list(self.es.indices.get(index=f"{INDEX}-*", expand_wildcards="all"))

    def settle(self, timeout: float, outage_log: float) -> None:
        """No more events; wait until all that there were are in the index, or nothing changes."""
        if self._pacer is not None:
            self._pacer.stop()
        deadline = time.monotonic() + timeout
        count, since = -1, time.monotonic()
        while time.monotonic() < deadline:
            self.es.indices.refresh(index=f"{INDEX}-*")
            now = int(self.es.count(index=f"{INDEX}-*")["count"])
            if now != count:
                count, since = now, time.monotonic()
            quiet = time.monotonic() - since
            # A moment for what may come twice; longer for what may still be read again.
            if quiet > (3 if now >= len(self.published) else outage_log):
                return
            time.sleep(0.5)

    def classify(self) -> ItemClass:
        self.es.indices.refresh(index=f"{INDEX}-*")
        return self.published.compare(helpers.scan(self.es, index=f"{INDEX}-*", size=5000))

    def strange_letters(self) -> int:
        """Dead letters that are none of the garbage that was sent, and lines that are no letters."""
        if not self.letters.exists():
            return 0
        sent = {payload for one in self.simulators for payload in one.faults.injected}
        return sum(_letter(line) not in sent for line in self.letters.read_bytes().splitlines())

    def _feed(self, count: int) -> int:
        with self._publishing:
            return self._publish(count)

    def _publish(self, count: int) -> int:
        """The same events at both servers, each with its own sequence numbers."""
        now = int(time.time() * 1e6)
        first, second = [], []
        for _ in range(count):
            number = next(self._numbers)
            frame = self._network.event(now, number).frame
            odd = number % _ODD_EVERY == 0 and (changed := _odd(frame)) != frame
            frame = changed if odd else frame
            self.published.add(frame, odd=odd)
            first.append(frame)
            second.append(with_cursor(frame, number, number + _SHIFT))
        self.first.publish(first)
        self.second.publish(second)
        return count

    def _options(self) -> list[str]:
        return [
            *(f"--jetstream=ws://127.0.0.1:{road.port}" for road in self.roads),
            *(f"--es=http://127.0.0.1:{wire.port}" for wire in self.wires),
            *("--index", INDEX, "--no-kibana"),
            *("--es-user", USER, "--es-pass-file", str(self._password_file)),
            *("--since", "0", "--stall-timeout", "5s", "--stats-interval", "5s", "--grace", "15s"),
            *("--compress", "on", "--dead-letter", str(self.letters)),
        ]


def _odd(frame: bytes) -> bytes:
    """A post whose text is none, which no mapping takes; other events as they are."""
    event = orjson.loads(frame)
    record = event.get("commit", {}).get("record")
    if record is None or "text" not in record:
        return frame
    record["text"] = {"odd": record["text"]}
    return orjson.dumps(event)


def _letter(line: bytes) -> bytes | None:
    try:
        return frame_of(orjson.loads(line))
    except (ValueError, KeyError, TypeError):
        return None
