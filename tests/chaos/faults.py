"""Everything that may happen in a year. Each fault begins, lasts, and is over when its function returns.

Those that lose data by design are not here: a deleted index, a wiped Jetstream server.
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

from tests.chaos.plan import Order
from tests.chaos.stage import INDEX, RENUMBERED, Stage

Fault = Callable[[Stage, Order], None]

KINDS: dict[str, Fault] = {}

# After these a worker goes on exactly where it was: a start or a new connection reads some blocks again.
GENTLE = (
    "index blocked",
    "index closed",
    "pipeline missing",
    "template deleted",
    "write queue full",
    "answers held back",
    "answers cut short",
)

# They take long, so that a short run is better off without them.
LONG = ("Elasticsearch paused at catch-up speed", "one of two nodes silent")

# As many as a worker reads again after a disconnect, and the share of them that is rewritten.
_IMPORTED, _IMPORTED_SHARE = 8192, 0.05
_PAUSE, _BACKLOG = 30.0, 60_000
_SILENCE = 10.0
_STATUSES = (200, 400, 401, 403, 404)

_NOISE_THREADS = 12
_NOISE_INDEX = "noise"


def fault(name: str) -> Callable[[Fault], Fault]:
    def enter(work: Fault) -> Fault:
        KINDS[name] = work
        return work

    return enter


def carry_out(stage: Stage, order: Order) -> None:
    """One order, with the worker killed in the middle of it if that is part of it."""
    killer = threading.Timer(order.length / 2, stage.runs.kill)
    if order.kill:
        killer.start()
    try:
        KINDS[order.kind](stage, order)
    finally:
        for simulator in stage.simulators:
            simulator.faults.clear()
        if order.kill:
            killer.join()


# Jetstream


@fault("stream cut")
def _cut(stage: Stage, order: Order) -> None:
    stage.simulator.faults.cut_after(order.number % 500)
    time.sleep(order.length)


@fault("stream reset")
def _reset(stage: Stage, order: Order) -> None:
    stage.simulator.faults.cut_after(order.number % 500, reset=True)
    time.sleep(order.length)


@fault("stream cut within a frame")
def _torn(stage: Stage, order: Order) -> None:
    stage.simulator.faults.cut_after(order.number % 500, torn=True)
    time.sleep(order.length)


@fault("stream closed")
def _closed(stage: Stage, order: Order) -> None:
    stage.simulator.faults.close((1000, 1001, 1008, 1011)[order.number % 4], "as it pleases")
    time.sleep(order.length)


@fault("error frame")
def _error(stage: Stage, order: Order) -> None:
    stage.simulator.faults.error("ConsumerTooSlow", "read faster")
    time.sleep(order.length)


@fault("stream silent, with pongs")
def _silent(stage: Stage, order: Order) -> None:
    stage.simulator.faults.stall(pongs=True)
    time.sleep(order.length)


@fault("stream silent, without pongs")
def _dead(stage: Stage, order: Order) -> None:
    stage.simulator.faults.stall(pongs=False)
    time.sleep(order.length)


@fault("connection half open")
def _half_open(stage: Stage, order: Order) -> None:
    for road in stage.roads:
        road.freeze()
    time.sleep(order.length)


@fault("garbage frames")
def _garbage(stage: Stage, order: Order) -> None:
    for _ in range(1 + order.number % 20):
        stage.simulator.faults.garbage(after=order.number % 100)
    time.sleep(order.length)


@fault("handshakes refused")
def _refused(stage: Stage, order: Order) -> None:
    one = stage.simulator
    one.faults.refuse((503, 429, 502)[order.number % 3], times=None)
    one.faults.cut_after()
    time.sleep(order.length)


@fault("handshakes unanswered")
def _unanswered(stage: Stage, order: Order) -> None:
    one = stage.simulator
    one.faults.delay(order.length, times=None)
    one.faults.cut_after()
    time.sleep(order.length)


@fault("Jetstream restarted")
def _restarted(stage: Stage, order: Order) -> None:
    stage.simulator.restart(downtime=order.length / 2)


@fault("Jetstream crashed, its numbers used again")
def _renumbered(stage: Stage, order: Order) -> None:
    stage.simulator.restart(unclean=order.number % RENUMBERED + 1, downtime=order.length / 2)


@fault("Jetstream closed with 1001, its numbers used again")
def _disk_full(stage: Stage, order: Order) -> None:
    """As with a full disk: what it sent since its last block of events was not stored."""
    full = stage.simulator
    # It is read again, and from where it was left: a time on another server would mend what that loses.
    for other in stage.simulators:
        if other is not full:
            other.faults.refuse(503, times=None)
    full.restart(lost=order.number % RENUMBERED + 1, downtime=order.length / 2)
    time.sleep(order.length / 2)


@fault("timestamps imported")
def _imported(stage: Stage, order: Order) -> None:
    one = stage.simulator
    one.import_timestamps(_IMPORTED, _IMPORTED_SHARE)
    # They are read again, with their new times.
    one.faults.cut_after(order.number % 500)
    time.sleep(order.length)


@fault("all of Jetstream away")
def _no_jetstream(stage: Stage, order: Order) -> None:
    for one in stage.simulators:
        one.stop(clean=order.number % 2 == 0)
    time.sleep(order.length)
    for one in stage.simulators:
        one.start()


@fault("dictionary replaced")
def _dictionary(stage: Stage, order: Order) -> None:
    stage.first.rotate_dictionary()
    stage.first.faults.cut_after()
    time.sleep(order.length)


# Elasticsearch


@fault("node killed")
def _node_killed(stage: Stage, order: Order) -> None:
    stage.node.kill()
    time.sleep(order.length)
    stage.node.start()


@fault("answers held back")
def _answers_held(stage: Stage, order: Order) -> None:
    for wire in stage.wires:
        wire.hold_answers(b"/_bulk")
    try:
        time.sleep(order.length)
    finally:
        for wire in stage.wires:
            wire.release_answers()


@fault("answers cut short")
def _answers_cut(stage: Stage, order: Order) -> None:
    """Applied, but nobody is told so."""
    until = time.monotonic() + order.length
    while time.monotonic() < until:
        for wire in stage.wires:
            wire.cut_answer(b"/_bulk", order.number % 300, reset=order.number % 2 == 0)
        time.sleep(0.5)


@fault("connections to the node frozen")
def _wire_frozen(stage: Stage, order: Order) -> None:
    for wire in stage.wires:
        wire.freeze()
    time.sleep(order.length)


@fault("a gateway in place of Elasticsearch")
def _gateway(stage: Stage, order: Order) -> None:
    """HTML of all kinds of statuses on every path, as while a load balancer is set up anew."""
    statuses = random.Random(order.number).sample(_STATUSES, len(_STATUSES))
    for wire in stage.wires:
        wire.act_as_gateway(itertools.cycle(statuses))
    try:
        time.sleep(order.length)
    finally:
        for wire in stage.wires:
            wire.pass_on()


@fault("one of two nodes silent")
def _node_silent(stage: Stage, order: Order) -> None:
    """It accepts connections and answers none, nor those that stand."""
    wire = stage.wires[order.number % 2]
    wire.silence()
    try:
        time.sleep(_SILENCE + order.length)
    finally:
        wire.recover()


@fault("Elasticsearch paused at catch-up speed")
def _paused(stage: Stage, order: Order) -> None:
    stage.burst(_BACKLOG)
    # It reads what it can get by now.
    time.sleep(min(order.length, 2.0))
    with _frozen_node(stage):
        time.sleep(_PAUSE)


@fault("node restarted")
def _node_restarted(stage: Stage, order: Order) -> None:
    stage.node.stop()
    stage.node.start()


@fault("node frozen")
def _node_frozen(stage: Stage, order: Order) -> None:
    with _frozen_node(stage):
        time.sleep(order.length)


@fault("write queue full")
def _storm(stage: Stage, order: Order) -> None:
    """Others keep the node's only writing thread and its short queue busy: real answers of 429."""
    over = threading.Event()
    pair: list[dict[str, Any]] = [{"index": {}}, {"text": "noise " * 20}]

    def make_noise() -> None:
        client = stage.es.options(request_timeout=20, max_retries=0)
        while not over.is_set():
            with contextlib.suppress(ApiError):
                client.bulk(index=_NOISE_INDEX, operations=pair * 500, filter_path="took")

    threads = [threading.Thread(target=make_noise, daemon=True) for _ in range(_NOISE_THREADS)]
    for one in threads:
        one.start()
    time.sleep(order.length)
    over.set()
    for one in threads:
        one.join()
    stage.es.options(ignore_status=404).indices.delete(index=_NOISE_INDEX)


@fault("index closed")
def _index_closed(stage: Stage, order: Order) -> None:
    # By names: more may be born while it lasts.
    names = stage.indices()
    stage.es.indices.close(index=names)
    try:
        time.sleep(order.length)
    finally:
        stage.es.indices.open(index=names)


@fault("index blocked")
def _index_blocked(stage: Stage, order: Order) -> None:
    with _setting(stage, "index.blocks.read_only_allow_delete", True):
        time.sleep(order.length)


@fault("pipeline missing")
def _pipeline_missing(stage: Stage, order: Order) -> None:
    with _setting(stage, "index.default_pipeline", "nowhere"):
        time.sleep(order.length)


@fault("template deleted")
def _template_deleted(stage: Stage, order: Order) -> None:
    stage.es.options(ignore_status=404).indices.delete_index_template(name=INDEX)
    time.sleep(order.length)


@fault("a right taken away")
def _right_taken(stage: Stage, order: Order) -> None:
    role = stage.role
    first = role["indices"][0]
    less = {**first, "privileges": [name for name in first["privileges"] if name not in ("index", "manage")]}
    with stage.runs.denied():
        stage.set_rights({**role, "indices": [less, *role["indices"][1:]]})
        # The node looks at the file every five seconds.
        time.sleep(5 + order.length)
        stage.set_rights(role)
        time.sleep(5)


@fault("password rotated")
def _password_rotated(stage: Stage, order: Order) -> None:
    with stage.runs.denied():
        stage.rotate_password()
        time.sleep(5 + order.length)
        stage.tell_password()


# The worker


@fault("worker killed")
def _worker_killed(stage: Stage, order: Order) -> None:
    for _ in range(1 + order.number % 3):
        stage.runs.kill()
        time.sleep(random.Random(order.number).uniform(0.2, 3))


@fault("worker stopped")
def _worker_stopped(stage: Stage, order: Order) -> None:
    stage.runs.stop()


@fault("worker stopped at once")
def _worker_stopped_twice(stage: Stage, order: Order) -> None:
    stage.runs.stop_twice()


@fault("worker stopped by two signals within 3 ms")
def _worker_stopped_by_two(stage: Stage, order: Order) -> None:
    stage.runs.stop_doubled(random.Random(order.number).uniform(0.0, 0.003))


@fault("worker frozen")
def _worker_frozen(stage: Stage, order: Order) -> None:
    stage.runs.freeze(order.length)


@contextmanager
def _setting(stage: Stage, name: str, value: Any) -> Iterator[None]:
    names = stage.indices()
    stage.es.indices.put_settings(index=names, settings={name: value})
    try:
        yield
    finally:
        stage.es.indices.put_settings(index=names, settings={name: None})


@contextmanager
def _frozen_node(stage: Stage) -> Iterator[None]:
    pid = stage.node.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
