from __future__ import annotations

import threading

from slurp.backoff import Backoff
from slurp.pipeline.batches import Batch, BatchQueue


def batch(number: int, events: int = 10, size: int = 100) -> Batch:
    return Batch(number, "host", [b""] * events, size, None)


def test_what_is_put_comes_out_in_order() -> None:
    buffer = BatchQueue(100, 1000)
    for number in (1, 2):
        one = batch(number)
        assert buffer.reserve(one, timeout=0)
        buffer.put(one)
    assert [taken.number for taken in (buffer.get(0), buffer.get(0)) if taken] == [1, 2]
    assert buffer.get(0.01) is None


def test_room_is_taken_until_it_is_released_not_until_it_is_got() -> None:
    buffer = BatchQueue(max_events=20, max_bytes=1000)
    first, second, third = batch(1), batch(2), batch(3)
    for one in (first, second):
        assert buffer.reserve(one, timeout=0)
        buffer.put(one)
    buffer.get(0)
    assert not buffer.reserve(third, timeout=0.01)
    buffer.release(first)
    assert buffer.reserve(third, timeout=0)


def test_bytes_are_bounded_too() -> None:
    buffer = BatchQueue(max_events=1000, max_bytes=150)
    assert buffer.reserve(batch(1), timeout=0)
    assert not buffer.reserve(batch(2), timeout=0.01)


def test_a_batch_larger_than_the_bound_passes_alone() -> None:
    buffer = BatchQueue(max_events=5, max_bytes=50)
    large = batch(1)
    assert buffer.reserve(large, timeout=0)
    assert not buffer.reserve(batch(2), timeout=0.01)
    buffer.release(large)
    assert buffer.reserve(batch(2), timeout=0)


def test_whoever_waits_for_room_is_woken() -> None:
    buffer = BatchQueue(10, 1000)
    first = batch(1)
    assert buffer.reserve(first, timeout=0)
    timer = threading.Timer(0.1, buffer.release, (first,))
    timer.start()
    assert buffer.reserve(batch(2), timeout=5)
    timer.join()


def test_half_empty() -> None:
    buffer = BatchQueue(20, 1000)
    first, second = batch(1), batch(2)
    assert buffer.reserve(first, timeout=0)
    assert buffer.reserve(second, timeout=0)
    assert not buffer.wait_until_half_empty(0.01)
    buffer.release(first)
    assert buffer.wait_until_half_empty(0)


def test_drained_is_closed_and_empty() -> None:
    buffer = BatchQueue(20, 1000)
    buffer.put(batch(1))
    buffer.close()
    assert not buffer.drained
    buffer.get(0)
    assert buffer.drained


def test_backoff_doubles_up_to_the_cap_and_starts_anew() -> None:
    backoff = Backoff(first=1, cap=5, chance=lambda: 1.0)
    assert [backoff.next() for _ in range(4)] == [1, 2, 4, 5]
    backoff.reset()
    assert backoff.next() == 1


def test_backoff_jitters_between_half_and_whole() -> None:
    assert Backoff(first=1, cap=5, chance=lambda: 0.0).next() == 0.5


def test_a_paused_buffer_gives_no_room_and_still_hands_out_what_it_has() -> None:
    buffer = BatchQueue(max_events=100, max_bytes=1000)
    first, second = batch(1), batch(2)
    assert buffer.reserve(first, timeout=0)
    buffer.put(first)
    buffer.pause()
    assert not buffer.reserve(second, timeout=0.01)
    assert buffer.get(0) is first
    buffer.release(first)
    assert not buffer.reserve(second, timeout=0.01), "not even when it is empty"
    assert not buffer.wait_until_half_empty(0.01)
    waiting = threading.Thread(target=buffer.reserve, args=(second, 10.0))
    waiting.start()
    buffer.resume()
    waiting.join(5)
    assert not waiting.is_alive()
    assert buffer.events == 10
