"""The bounded queue between reader and indexer threads, and the back-off between attempts."""

from __future__ import annotations

import threading

from slurp.backoff import Backoff
from slurp.pipeline.batches import Batch, BatchQueue


def batch(number: int, events: int = 10, size: int = 100) -> Batch:
    return Batch(number, "host", [b""] * events, size, None)


def test_batches_are_returned_in_the_order_they_were_queued() -> None:
    queue = BatchQueue(100, 1000)
    for number in (1, 2):
        one = batch(number)
        assert queue.reserve(one, timeout=0)
        queue.put(one)
    assert [one.number for one in (queue.get(0), queue.get(0)) if one] == [1, 2]
    assert queue.get(0.01) is None


def test_space_stays_reserved_until_the_batch_is_released() -> None:
    queue = BatchQueue(max_events=20, max_bytes=1000)
    first, second, third = batch(1), batch(2), batch(3)
    for one in (first, second):
        assert queue.reserve(one, timeout=0)
        queue.put(one)
    queue.get(0)
    assert not queue.reserve(third, timeout=0.01)
    queue.release(first)
    assert queue.reserve(third, timeout=0)


def test_the_queue_is_bounded_in_bytes() -> None:
    queue = BatchQueue(max_events=1000, max_bytes=150)
    assert queue.reserve(batch(1), timeout=0)
    assert not queue.reserve(batch(2), timeout=0.01)


def test_a_batch_larger_than_the_bound_is_accepted_alone() -> None:
    queue = BatchQueue(max_events=5, max_bytes=50)
    large = batch(1)
    assert queue.reserve(large, timeout=0)
    assert not queue.reserve(batch(2), timeout=0.01)
    queue.release(large)
    assert queue.reserve(batch(2), timeout=0)


def test_releasing_a_batch_wakes_a_thread_that_waits_for_space() -> None:
    queue = BatchQueue(10, 1000)
    first = batch(1)
    assert queue.reserve(first, timeout=0)
    timer = threading.Timer(0.1, queue.release, (first,))
    timer.start()
    assert queue.reserve(batch(2), timeout=5)
    timer.join()


def test_the_queue_is_half_empty_once_half_of_its_space_is_released() -> None:
    queue = BatchQueue(20, 1000)
    first, second = batch(1), batch(2)
    assert queue.reserve(first, timeout=0)
    assert queue.reserve(second, timeout=0)
    assert not queue.wait_until_half_empty(0.01)
    queue.release(first)
    assert queue.wait_until_half_empty(0)


def test_the_queue_is_drained_when_it_is_closed_and_empty() -> None:
    queue = BatchQueue(20, 1000)
    queue.put(batch(1))
    queue.close()
    assert not queue.drained
    queue.get(0)
    assert queue.drained


def test_backoff_doubles_up_to_the_cap_until_it_is_reset() -> None:
    backoff = Backoff(first=1, cap=5, rng=lambda: 1.0)
    assert [backoff.next() for _ in range(4)] == [1, 2, 4, 5]
    backoff.reset()
    assert backoff.next() == 1


def test_backoff_jitter_shortens_a_delay_by_half_at_most() -> None:
    assert Backoff(first=1, cap=5, rng=lambda: 0.0).next() == 0.5


def test_a_paused_queue_reserves_no_space_and_still_returns_queued_batches() -> None:
    queue = BatchQueue(max_events=100, max_bytes=1000)
    first, second = batch(1), batch(2)
    assert queue.reserve(first, timeout=0)
    queue.put(first)
    queue.pause()
    assert not queue.reserve(second, timeout=0.01)
    assert queue.get(0) is first
    queue.release(first)
    assert not queue.reserve(second, timeout=0.01), "a paused queue reserves no space, even when it is empty"
    assert not queue.wait_until_half_empty(0.01)
    waiting = threading.Thread(target=queue.reserve, args=(second, 10.0))
    waiting.start()
    queue.resume()
    waiting.join(5)
    assert not waiting.is_alive()
    assert queue.events == 10
