"""The node pool: selection of nodes, exclusion of unresponsive nodes, and abortion of overdue requests."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from elastic_transport import ConnectionError as NodeUnreachable
from elastic_transport import ConnectionTimeout, NodeConfig

from slurp.elastic import node_pool
from slurp.elastic.node_pool import CONNECT_TIMEOUT, LeastLoadedPool, MonitoredNode, NodeMonitor
from slurp.embedded.node import free_port


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(MonitoredNode, "clock", staticmethod(clock))
    return clock


@pytest.fixture
def responsive(monkeypatch: pytest.MonkeyPatch) -> set[MonitoredNode]:
    """The nodes that respond to a probe; a test adds them."""
    nodes: set[MonitoredNode] = set()
    monkeypatch.setattr(MonitoredNode, "probe", lambda self: self in nodes)
    return nodes


def pool_of(*ports: int) -> LeastLoadedPool:
    return LeastLoadedPool(
        [NodeConfig("http", "127.0.0.1", port) for port in ports], MonitoredNode, randomize_nodes=False
    )


def send_hanging(node: MonitoredNode) -> Any:
    """Register a request without a response."""
    request = node_pool._Request(node.clock())
    node._requests.add(request)
    return request


def test_the_node_with_the_fewest_requests_in_flight_is_selected(clock: Clock) -> None:
    pool = pool_of(1, 2, 3)
    first, second, third = pool.nodes
    assert [pool.get() for _ in range(6)] == [first, second, third] * 2
    send_hanging(first)
    assert {pool.get() for _ in range(6)} == {second, third}
    send_hanging(second)
    assert {pool.get() for _ in range(6)} == {third}


def test_a_node_with_an_overdue_request_is_selected_last(clock: Clock) -> None:
    pool = pool_of(1, 2)
    first, second = pool.nodes
    send_hanging(first)
    clock.now += 1
    send_hanging(second)
    send_hanging(second)
    assert {pool.get() for _ in range(4)} == {second}


def test_an_unresponsive_node_is_excluded_its_requests_are_aborted_and_a_probe_readmits_it(
    clock: Clock, responsive: set[MonitoredNode]
) -> None:
    pool = pool_of(1, 2)
    unresponsive, healthy = pool.nodes
    responsive.add(healthy)
    monitor = NodeMonitor(pool.nodes)
    overdue = send_hanging(unresponsive)
    monitor.step()
    assert not unresponsive.is_excluded, "nothing is overdue yet"
    clock.now += 1
    recent = send_hanging(unresponsive)
    monitor.step()
    assert unresponsive.is_excluded
    assert (overdue.is_aborted, recent.is_aborted) == (True, False)
    assert {pool.get() for _ in range(4)} == {healthy}
    unresponsive._requests.clear()
    clock.now += 5
    monitor.step()
    assert unresponsive.is_excluded
    responsive.add(unresponsive)
    monitor.step()
    assert {pool.get() for _ in range(4)} == {unresponsive, healthy}


def test_a_slow_node_keeps_its_requests(clock: Clock, responsive: set[MonitoredNode]) -> None:
    pool = pool_of(1, 2)
    responsive.update(pool.nodes)
    request = send_hanging(pool.nodes[0])
    for _ in range(100):
        clock.now += 0.5
        NodeMonitor(pool.nodes).step()
    assert not request.is_aborted
    assert not pool.nodes[0].is_excluded


def test_if_no_node_responds_all_are_used_and_no_request_is_aborted(
    clock: Clock, responsive: set[MonitoredNode]
) -> None:
    pool = pool_of(1, 2)
    monitor = NodeMonitor(pool.nodes)
    for node in pool.nodes:
        node.exclude("for the test")
    requests = [send_hanging(node) for node in pool.nodes]
    for _ in range(100):
        clock.now += 0.5
        monitor.step()
    assert not any(request.is_aborted for request in requests)
    assert {pool.get() for _ in range(4)} == set(pool.nodes)


def test_an_unresponsive_cluster_receives_each_request_at_most_twice(
    clock: Clock, responsive: set[MonitoredNode]
) -> None:
    pool = pool_of(1, 2)
    monitor, repeats = NodeMonitor(pool.nodes), 0
    node = pool.get()
    request = send_hanging(node)
    for _ in range(160):
        clock.now += 0.5
        monitor.step()
        if request.is_aborted:
            node._requests.discard(request)
            repeats += 1
            node = pool.get()
            request = send_hanging(node)
    assert repeats == 1


def test_each_exclusion_of_an_unstable_node_lasts_longer(
    clock: Clock, responsive: set[MonitoredNode]
) -> None:
    pool = pool_of(1, 2)
    responsive.update(pool.nodes)
    durations = []
    for _ in range(7):
        pool.nodes[0].exclude("it failed")
        since = clock.now
        while pool.nodes[0].is_excluded:
            clock.now += 0.25
            NodeMonitor(pool.nodes).step()
        durations.append(clock.now - since)
    assert durations == [1, 2, 4, 8, 16, 30, 30]
    clock.now += 61
    pool.nodes[0].exclude("it failed")
    clock.now += 1
    assert pool.nodes[0].is_due_for_probe


def test_a_single_node_is_never_excluded(clock: Clock) -> None:
    pool = pool_of(free_port())
    (node,) = pool.nodes
    with pytest.raises(NodeUnreachable):
        node.perform_request("GET", "/")
    pool.mark_dead(node)
    assert not node.is_excluded


def test_an_aborted_request_to_an_unresponsive_node_ends(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = MonitoredNode(NodeConfig("http", "127.0.0.1", listener.getsockname()[1]))
        errors: list[Exception] = []

        def send() -> None:
            try:
                node.perform_request("POST", "/_bulk", body=b"x" * 20_000_000, request_timeout=60)
            except ConnectionTimeout as error:
                errors.append(error)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            assert not node.probe(), "the listener does not accept its connection"
            clock.now += 1
            node.abort_overdue()
            thread.join(30)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert node.in_flight == 0


def test_connecting_has_a_short_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses a fake socket: a kernel with SYN cookies completes connections that no process accepts."""
    timeouts: list[float] = []

    def connect(address: object, timeout: float, **options: object) -> socket.socket:
        timeouts.append(timeout)
        raise TimeoutError

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    node = MonitoredNode(NodeConfig("http", "127.0.0.1", 9))
    with pytest.raises(ConnectionTimeout):
        node.perform_request("GET", "/", request_timeout=60)
    assert timeouts == [CONNECT_TIMEOUT]
