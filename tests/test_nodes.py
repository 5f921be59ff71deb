"""Which node gets a request, which is excluded, and when a request is sent to another one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from elastic_transport import ConnectionError as NodeUnreachable
from elastic_transport import ConnectionTimeout, NodeConfig

from slurp.elastic import node_pool as nodes_module
from slurp.elastic.node_pool import CONNECT_TIMEOUT, Node, Nodes, Watcher
from slurp.embedded.node import free_port
from tests.proxy import Proxy


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(Node, "clock", staticmethod(clock))
    return clock


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> set[Node]:
    """The nodes that answer a probe."""
    found: set[Node] = set()
    monkeypatch.setattr(Node, "answers", lambda self: self in found)
    return found


def pool_of(*ports: int) -> Nodes:
    return Nodes([NodeConfig("http", "127.0.0.1", port) for port in ports], Node, randomize_nodes=False)


def hanging(node: Node) -> Any:
    """A request to a node that is not answered."""
    call = nodes_module._Call(node.clock())
    node._calls.add(call)
    return call


def test_the_node_with_the_fewest_requests_gets_the_next_one(clock: Clock) -> None:
    pool = pool_of(1, 2, 3)
    first, second, third = pool.nodes
    assert [pool.get() for _ in range(6)] == [first, second, third] * 2
    hanging(first)
    assert {pool.get() for _ in range(6)} == {second, third}
    hanging(second)
    assert {pool.get() for _ in range(6)} == {third}


def test_a_node_with_an_overdue_request_is_the_last_choice(clock: Clock) -> None:
    pool = pool_of(1, 2)
    first, second = pool.nodes
    hanging(first)
    clock.now += 1
    hanging(second)
    hanging(second)
    assert {pool.get() for _ in range(4)} == {second}


def test_a_silent_node_is_excluded_its_requests_end_and_a_probe_brings_it_back(
    clock: Clock, answering: set[Node]
) -> None:
    pool = pool_of(1, 2)
    silent, sound = pool.nodes
    answering.add(sound)
    watcher = Watcher(pool.nodes)
    call = hanging(silent)
    watcher.step()
    assert not silent.is_excluded, "nothing is overdue yet"
    clock.now += 1
    fresh = hanging(silent)
    watcher.step()
    assert silent.is_excluded
    assert (call.given_up, fresh.given_up) == (True, False)
    assert {pool.get() for _ in range(4)} == {sound}
    silent._calls.clear()
    clock.now += 5
    watcher.step()
    assert silent.is_excluded
    answering.add(silent)
    watcher.step()
    assert {pool.get() for _ in range(4)} == {silent, sound}


def test_a_slow_node_keeps_its_requests(clock: Clock, answering: set[Node]) -> None:
    pool = pool_of(1, 2)
    answering.update(pool.nodes)
    call = hanging(pool.nodes[0])
    for _ in range(100):
        clock.now += 0.5
        Watcher(pool.nodes).step()
    assert not call.given_up
    assert not pool.nodes[0].is_excluded


def test_where_no_node_answers_all_are_used_and_no_request_is_sent_again(
    clock: Clock, answering: set[Node]
) -> None:
    pool = pool_of(1, 2)
    watcher = Watcher(pool.nodes)
    for node in pool.nodes:
        node.exclude("for the test")
    calls = [hanging(node) for node in pool.nodes]
    for _ in range(100):
        clock.now += 0.5
        watcher.step()
    assert not any(call.given_up for call in calls)
    assert {pool.get() for _ in range(4)} == set(pool.nodes)


def test_a_cluster_that_hangs_gets_each_request_twice_at_most(clock: Clock, answering: set[Node]) -> None:
    pool = pool_of(1, 2)
    watcher, repeats = Watcher(pool.nodes), 0
    node = pool.get()
    call = hanging(node)
    for _ in range(160):
        clock.now += 0.5
        watcher.step()
        if call.given_up:
            node._calls.discard(call)
            repeats += 1
            node = pool.get()
            call = hanging(node)
    assert repeats == 1


def test_a_node_that_goes_and_comes_stays_out_longer_each_time(clock: Clock, answering: set[Node]) -> None:
    pool = pool_of(1, 2)
    answering.update(pool.nodes)
    out = []
    for _ in range(7):
        pool.nodes[0].exclude("it failed")
        since = clock.now
        while pool.nodes[0].is_excluded:
            clock.now += 0.25
            Watcher(pool.nodes).step()
        out.append(clock.now - since)
    assert out == [1, 2, 4, 8, 16, 30, 30]
    clock.now += 61
    pool.nodes[0].exclude("it failed")
    clock.now += 1
    assert pool.nodes[0].may_return


def test_a_single_node_is_never_excluded(clock: Clock) -> None:
    pool = pool_of(free_port())
    (node,) = pool.nodes
    with pytest.raises(NodeUnreachable):
        node.perform_request("GET", "/")
    pool.mark_dead(node)
    assert not node.is_excluded


@pytest.fixture
def silent() -> Iterator[Proxy]:
    with Proxy(free_port()) as proxy:
        yield proxy


def test_a_request_to_a_node_that_accepts_and_says_nothing_ends_when_it_is_given_up(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = Node(NodeConfig("http", "127.0.0.1", listener.getsockname()[1]))
        ended: list[Exception] = []

        def ask() -> None:
            try:
                node.perform_request("POST", "/_bulk", body=b"x" * 20_000_000, request_timeout=60)
            except ConnectionTimeout as error:
                ended.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            assert not node.answers(), "nobody accepts the probe's connection, or answers it"
            clock.now += 1
            node.give_up_overdue()
            thread.join(30)
    assert not thread.is_alive()
    assert len(ended) == 1
    assert node.in_flight == 0


def test_connecting_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in: a kernel with SYN cookies completes connections that nobody accepts."""
    waited: list[float] = []

    def connect(address: object, timeout: float, **options: object) -> socket.socket:
        waited.append(timeout)
        raise TimeoutError

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    node = Node(NodeConfig("http", "127.0.0.1", 9))
    with pytest.raises(ConnectionTimeout):
        node.perform_request("GET", "/", request_timeout=60)
    assert waited == [CONNECT_TIMEOUT]
