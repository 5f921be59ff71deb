"""The faults of a chaos run. Each begins, lasts, and is over when its function returns.

Faults that lose data by design are not included: a deleted index, a wiped Jetstream server.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from elasticsearch import ApiError

from tests.chaos import deletion_faults
from tests.chaos.deletion_faults import FaultFunction
from tests.chaos.environment import INDEX, RENUMBERED, ChaosEnvironment
from tests.chaos.schedule import ScheduledFault

KINDS: dict[str, FaultFunction] = dict(deletion_faults.KINDS)

# Faults without a replay: a restart or a new connection would read some blocks again.
WITHOUT_REPLAY = (
    "index blocked",
    "index closed",
    "pipeline missing",
    "template deleted",
    "write queue full",
    "responses held back",
    "responses cut short",
    *deletion_faults.KINDS,
)

# Faults that take too long for a short run.
LONG = ("Elasticsearch paused at catch-up speed", "one of two nodes silent")

# As many events as a worker replays after a disconnect, and the share of them whose time is changed.
_IMPORTED, _IMPORTED_SHARE = 8192, 0.05
_PAUSE, _BACKLOG = 30.0, 60_000
_SILENCE = 10.0
_STATUSES = (200, 400, 401, 403, 404)

_NOISE_THREADS = 12
_NOISE_INDEX = "noise"


def fault_kind(name: str) -> Callable[[FaultFunction], FaultFunction]:
    """Register a fault under `name`."""

    def register(function: FaultFunction) -> FaultFunction:
        KINDS[name] = function
        return function

    return register


def inject(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    """Run one fault, and kill the worker in the middle of it if scheduled."""
    killer = threading.Timer(fault.length / 2, environment.runs.kill)
    if fault.kill:
        killer.start()
    try:
        KINDS[fault.kind](environment, fault)
    finally:
        for simulator in environment.simulators:
            simulator.faults.clear()
        if fault.kill:
            killer.join()


# Jetstream


@fault_kind("stream cut")
def _cut(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.faults.cut_after(fault.number % 500)
    time.sleep(fault.length)


@fault_kind("stream reset")
def _reset(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.faults.cut_after(fault.number % 500, reset=True)
    time.sleep(fault.length)


@fault_kind("stream cut within a frame")
def _torn(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.faults.cut_after(fault.number % 500, torn=True)
    time.sleep(fault.length)


@fault_kind("stream closed")
def _closed(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.faults.close((1000, 1001, 1008, 1011)[fault.number % 4], "closed by chaos")
    time.sleep(fault.length)


@fault_kind("error frame")
def _error(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.faults.error("ConsumerTooSlow", "read faster")
    time.sleep(fault.length)


@fault_kind("stream silent, with pongs")
def _silent(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.faults.stall(pongs=True)
    time.sleep(fault.length)


@fault_kind("stream silent, without pongs")
def _dead(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.faults.stall(pongs=False)
    time.sleep(fault.length)


@fault_kind("connection half open")
def _half_open(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    for proxy in environment.jetstream_proxies:
        proxy.freeze()
    time.sleep(fault.length)


@fault_kind("garbage frames")
def _garbage(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    for _ in range(1 + fault.number % 20):
        environment.simulator.faults.garbage(after=fault.number % 100)
    time.sleep(fault.length)


@fault_kind("handshakes rejected")
def _rejected(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    one = environment.simulator
    one.faults.refuse((503, 429, 502)[fault.number % 3], times=None)
    one.faults.cut_after()
    time.sleep(fault.length)


@fault_kind("handshakes unanswered")
def _unanswered(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    one = environment.simulator
    one.faults.delay(fault.length, times=None)
    one.faults.cut_after()
    time.sleep(fault.length)


@fault_kind("Jetstream restarted")
def _restarted(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.restart(downtime=fault.length / 2)


@fault_kind("Jetstream crashed, cursors reused")
def _renumbered(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.simulator.restart(unclean=fault.number % RENUMBERED + 1, downtime=fault.length / 2)


@fault_kind("Jetstream closed with 1001, cursors reused")
def _disk_full(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    """Like a full disk: events sent since the last storage block were not stored."""
    server = environment.simulator
    # The worker must resume on this server: a time cursor on another one would repair the loss.
    for other in environment.simulators:
        if other is not server:
            other.faults.refuse(503, times=None)
    server.restart(lost=fault.number % RENUMBERED + 1, downtime=fault.length / 2)
    time.sleep(fault.length / 2)


@fault_kind("timestamps imported")
def _imported(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    one = environment.simulator
    one.import_timestamps(_IMPORTED, _IMPORTED_SHARE)
    # The worker replays them with their new times.
    one.faults.cut_after(fault.number % 500)
    time.sleep(fault.length)


@fault_kind("all Jetstream servers stopped")
def _no_jetstream(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    for one in environment.simulators:
        one.stop(clean=fault.number % 2 == 0)
    time.sleep(fault.length)
    for one in environment.simulators:
        one.start()


@fault_kind("dictionary replaced")
def _dictionary(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.first.rotate_dictionary()
    environment.first.faults.cut_after()
    time.sleep(fault.length)


# Elasticsearch


@fault_kind("node killed")
def _node_killed(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.node.kill()
    time.sleep(fault.length)
    environment.node.start()


@fault_kind("responses held back")
def _responses_held(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    for proxy in environment.es_proxies:
        proxy.hold_answers(b"/_bulk")
    try:
        time.sleep(fault.length)
    finally:
        for proxy in environment.es_proxies:
            proxy.release_answers()


@fault_kind("responses cut short")
def _responses_cut(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    """Elasticsearch executes the requests, but the client does not receive the responses."""
    until = time.monotonic() + fault.length
    while time.monotonic() < until:
        for proxy in environment.es_proxies:
            proxy.cut_answer(b"/_bulk", fault.number % 300, reset=fault.number % 2 == 0)
        time.sleep(0.5)


@fault_kind("connections to the node frozen")
def _es_connections_frozen(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    for proxy in environment.es_proxies:
        proxy.freeze()
    time.sleep(fault.length)


@fault_kind("a gateway in place of Elasticsearch")
def _gateway(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    """Respond with HTML and various statuses on every path, like a misconfigured load balancer."""
    statuses = random.Random(fault.number).sample(_STATUSES, len(_STATUSES))
    for proxy in environment.es_proxies:
        proxy.act_as_gateway(itertools.cycle(statuses))
    try:
        time.sleep(fault.length)
    finally:
        for proxy in environment.es_proxies:
            proxy.pass_on()


@fault_kind("one of two nodes silent")
def _node_silent(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    """Accept new connections, but answer neither them nor the existing ones."""
    proxy = environment.es_proxies[fault.number % 2]
    proxy.silence()
    try:
        time.sleep(_SILENCE + fault.length)
    finally:
        proxy.recover()


@fault_kind("Elasticsearch paused at catch-up speed")
def _paused(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.burst(_BACKLOG)
    # Meanwhile the worker reads what it can.
    time.sleep(min(fault.length, 2.0))
    with _frozen_node(environment):
        time.sleep(_PAUSE)


@fault_kind("node restarted")
def _node_restarted(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.node.stop()
    environment.node.start()


@fault_kind("node frozen")
def _node_frozen(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    with _frozen_node(environment):
        time.sleep(fault.length)


@fault_kind("write queue full")
def _write_queue_full(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    """Keep the node's only write thread and its short queue busy, so that it responds with 429."""
    finished = threading.Event()
    operations: list[dict[str, Any]] = [{"index": {}}, {"text": "noise " * 20}]

    def send_noise() -> None:
        client = environment.es.options(request_timeout=20, max_retries=0)
        while not finished.is_set():
            with contextlib.suppress(ApiError):
                client.bulk(index=_NOISE_INDEX, operations=operations * 500, filter_path="took")

    threads = [threading.Thread(target=send_noise, daemon=True) for _ in range(_NOISE_THREADS)]
    for one in threads:
        one.start()
    time.sleep(fault.length)
    finished.set()
    for one in threads:
        one.join()
    environment.es.options(ignore_status=404).indices.delete(index=_NOISE_INDEX)


@fault_kind("index closed")
def _index_closed(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    # By name: more indices may be created meanwhile.
    names = environment.indices()
    environment.es.indices.close(index=names)
    try:
        time.sleep(fault.length)
    finally:
        environment.es.indices.open(index=names)


@fault_kind("index blocked")
def _index_blocked(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    with _setting(environment, "index.blocks.read_only_allow_delete", True):
        time.sleep(fault.length)


@fault_kind("pipeline missing")
def _pipeline_missing(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    with _setting(environment, "index.default_pipeline", "nowhere"):
        time.sleep(fault.length)


@fault_kind("template deleted")
def _template_deleted(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.es.options(ignore_status=404).indices.delete_index_template(name=INDEX)
    time.sleep(fault.length)


@fault_kind("privilege revoked")
def _privilege_revoked(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    role = environment.role
    first = role["indices"][0]
    reduced = {
        **first,
        "privileges": [name for name in first["privileges"] if name not in ("index", "manage")],
    }
    with environment.runs.denied():
        environment.set_privileges({**role, "indices": [reduced, *role["indices"][1:]]})
        # The node reads the file every five seconds.
        time.sleep(5 + fault.length)
        environment.set_privileges(role)
        time.sleep(5)


@fault_kind("password rotated")
def _password_rotated(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    with environment.runs.denied():
        environment.rotate_password()
        time.sleep(5 + fault.length)
        environment.write_password()


# The worker


@fault_kind("worker killed")
def _worker_killed(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    for _ in range(1 + fault.number % 3):
        environment.runs.kill()
        time.sleep(random.Random(fault.number).uniform(0.2, 3))


@fault_kind("worker stopped")
def _worker_stopped(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.runs.stop()


@fault_kind("worker stopped by a second signal")
def _worker_stopped_twice(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.runs.stop_twice()


@fault_kind("worker stopped by two signals within 3 ms")
def _worker_stopped_by_doubled_signal(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.runs.stop_doubled(random.Random(fault.number).uniform(0.0, 0.003))


@fault_kind("worker frozen")
def _worker_frozen(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.runs.freeze(fault.length)


@contextmanager
def _setting(environment: ChaosEnvironment, name: str, value: Any) -> Iterator[None]:
    names = environment.indices()
    environment.es.indices.put_settings(index=names, settings={name: value})
    try:
        yield
    finally:
        environment.es.indices.put_settings(index=names, settings={name: None})


@contextmanager
def _frozen_node(environment: ChaosEnvironment) -> Iterator[None]:
    pid = environment.node.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
