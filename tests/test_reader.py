"""The reader alone, between a real WebSocket server and a consumer that keeps all batches."""

from __future__ import annotations

import time

import pytest

from slurp.events.position import REWIND_EVENTS, Position
from slurp.jetstream.servers import format_probes, host_of, probe_servers
from slurp.simulator.jetstream import Simulator
from tests.harness import reading, until


def test_a_batch_closes_when_it_is_full(jetstream: Simulator) -> None:
    jetstream.generate(1000)
    with reading(jetstream, options=("--flush", "30s")) as run:
        until(lambda: len(run.frames) == 1000)
        assert [len(batch.frames) for batch in run.batches] == [500, 500]
        assert run.frames == jetstream.frames


def test_a_partial_batch_closes_in_time_when_the_stream_is_silent(jetstream: Simulator) -> None:
    jetstream.generate(3)
    with reading(jetstream) as run:
        until(lambda: len(run.frames) == 3, timeout=2)


def test_a_lost_connection_is_resumed_with_a_rewind(jetstream: Simulator) -> None:
    jetstream.generate(10_000)
    jetstream.faults.cut_after(9000)
    with reading(jetstream) as run:
        until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
    first, second = jetstream.connections
    assert first.cursor == 0
    assert second.cursor is not None
    assert 0 < second.cursor <= 9001 - REWIND_EVENTS
    assert set(run.frames) == set(jetstream.frames)
    assert run.counters.snapshot().reconnects == 1


def test_a_close_with_1001_is_resumed_with_the_same_rewind(jetstream: Simulator) -> None:
    """A server whose disk is full closes with 1001 too, and reuses the sequence numbers of its last block."""
    jetstream.generate(10_000)
    jetstream.faults.close(1001, "server shutting down", after=9000)
    with reading(jetstream) as run:
        until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
    assert jetstream.connections[1].cursor == 9001 - REWIND_EVENTS
    assert len(run.frames) == 10_000 + REWIND_EVENTS


def test_sequence_numbers_reused_after_1001_lose_no_event(jetstream: Simulator) -> None:
    """As with a full disk: other events under the numbers of the last block, and an orderly close."""
    jetstream.generate(20_000)
    with reading(jetstream) as run:
        for times in (1, 2, 3):
            jetstream.generate(500, span=0.01)
            until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
            jetstream._store.renumber(4096, jetstream._rng)
            jetstream.faults.close(1001, "server shutting down")
            until(lambda times=times: len(jetstream.connections) > times)  # type: ignore[misc]
            jetstream.generate(1, span=0.01)
            until(lambda: run.frames[-1] == jetstream.frames[-1])
            assert set(jetstream.frames) <= set(run.frames)
    assert not run.gaps


def test_the_rewind_is_a_number_of_events_and_not_a_time(jetstream: Simulator) -> None:
    """A minute of a catch-up has far more events than two blocks, a minute of a small network far fewer."""
    jetstream.generate(50_000, span=60)
    jetstream.faults.cut_after(40_000)
    with reading(jetstream) as run:
        until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
    assert len(run.frames) == 50_000 + REWIND_EVENTS


def test_a_start_from_a_checkpoint_rewinds_too(jetstream: Simulator) -> None:
    jetstream.generate(10_000)
    known = Position(host_of(jetstream.url), 9000, int(time.time() * 1e6))
    with reading(jetstream, known=known) as run:
        until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
    assert jetstream.connections[0].cursor == 9001 - REWIND_EVENTS


def test_a_start_cursor_set_by_the_user_is_exact(jetstream: Simulator) -> None:
    jetstream.generate(10_000)
    # A rejected handshake or a lost connection before the first event does not change that.
    jetstream.faults.refuse(503, "booting")
    jetstream.faults.cut_after()
    with reading(jetstream, start=9000) as run:
        until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
    assert [one.cursor for one in jetstream.connections[1:]] == [9000, 9000]


def test_repeated_cuts_do_not_move_the_cursor_further_back(jetstream: Simulator) -> None:
    """Each one happens during the replay of the rewind."""
    jetstream.generate(30_000)
    for _ in range(3):
        jetstream.faults.cut_after(1000)
    known = Position(host_of(jetstream.url), 20_000, int(time.time() * 1e6))
    with reading(jetstream, known=known) as run:
        until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
    assert [one.cursor for one in jetstream.connections] == [20_001 - REWIND_EVENTS] * 4


def test_a_connection_without_data_does_not_change_the_next_cursor(jetstream: Simulator) -> None:
    jetstream.generate(10_000)
    with reading(jetstream) as run:
        until(lambda: len(run.frames) == 10_000)
        # One fault for each connection in turn; data on the third would set a new position.
        jetstream.faults.cut_after()
        jetstream.faults.close(1001)
        jetstream.faults.stall()
        until(lambda: len(jetstream.connections) == 3)
    second, third = jetstream.connections[1:]
    assert second.cursor == third.cursor


def test_a_frame_that_was_cut_in_the_middle_is_read_again(jetstream: Simulator) -> None:
    jetstream.generate(100)
    jetstream.faults.cut_after(50, torn=True)
    with reading(jetstream) as run:
        until(lambda: set(run.frames) == set(jetstream.frames))


def test_a_live_start_reconnects_with_a_time_as_cursor(jetstream: Simulator) -> None:
    jetstream.generate(100, span=0.001)
    with reading(jetstream, start=None) as run:
        until(lambda: run.reader.connected)
        jetstream.faults.cut_after()
        until(lambda: len(jetstream.connections) == 2)
    first, second = jetstream.connections
    assert first.cursor is None
    assert second.cursor is not None
    assert second.cursor >= 10**15


@pytest.mark.parametrize("pongs", [True, False])
def test_a_silent_stream_is_reconnected_even_if_pongs_arrive(jetstream: Simulator, pongs: bool) -> None:
    jetstream.generate(100)
    jetstream.faults.stall(after=50, pongs=pongs)
    with reading(jetstream, options=("--stall-timeout", "500ms")) as run:
        until(lambda: set(run.frames) == set(jetstream.frames))
    assert len(jetstream.connections) == 2


@pytest.mark.slow
def test_pongs_keep_a_silent_filtered_stream_connected(jetstream: Simulator) -> None:
    options = ("--stall-timeout", "2s", "--dids", "did:plc:withoutevents")
    with reading(jetstream, options=options):
        until(lambda: jetstream.connections)
        time.sleep(5)
        assert len(jetstream.connections) == 1
        jetstream.faults.stall(pongs=False)
        until(lambda: len(jetstream.connections) == 2)


@pytest.mark.slow
def test_silence_is_measured_only_while_the_server_answers_pings(jetstream: Simulator) -> None:
    jetstream.generate(100)
    with reading(jetstream, options=("--catch-up",)) as run:
        until(lambda: len(run.frames) == 100)
        assert run.reader.silent_for == 0
        until(lambda: run.reader.silent_for >= 2)
        jetstream.generate(1)
        until(lambda: run.reader.silent_for == 0, timeout=2)
        jetstream.faults.stall(pongs=False)
        time.sleep(4)
        assert run.reader.silent_for < 2, "silence after the last pong does not count"
        # The silence of one connection does not count for the next one either.
        jetstream.faults.clear()
        until(lambda: run.reader.silent_for >= 2)
        jetstream.faults.cut_after()
        until(lambda: len(jetstream.connections) == 2 and run.reader.connected)
        assert run.reader.silent_for < 1


def test_repeated_failures_fail_over_to_the_next_host_with_a_time_as_cursor(jetstream: Simulator) -> None:
    with Simulator(port=0, seed=2) as other:
        jetstream.generate(1000, span=1)
        other.generate(10, span=0.001)
        with reading(jetstream, other) as run:
            until(lambda: len(run.frames) == 1000)
            newest = time.time()
            jetstream.stop()
            until(lambda: other.connections, timeout=20)
            until(lambda: len(run.frames) == 1010)
        cursor = other.connections[0].cursor
        assert cursor is not None
        assert 290 < newest - cursor / 1e6 < 330, "five minutes before the newest event"


def test_a_server_that_answers_503_is_retried(jetstream: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    jetstream.generate(10)
    jetstream.faults.refuse(503, "booting")
    with reading(jetstream) as run:
        until(lambda: len(run.frames) == 10)
    assert "HTTP 503" in caplog.text


def test_a_full_queue_stops_reading_and_the_reader_still_stops(jetstream: Simulator) -> None:
    jetstream.generate(100_000)
    with reading(jetstream, options=("--buffer", "2000"), consume=False) as run:
        until(lambda: run.channel.queue.events == 2000)
        time.sleep(0.5)
        assert run.channel.queue.events == 2000
        assert run.counters.snapshot().received == 2000


def test_probing_ranks_servers_and_reports_why_others_are_unreachable(jetstream: Simulator) -> None:
    with Simulator(port=0, seed=2) as slow, Simulator(port=0, seed=3) as refusing:
        slow.faults.delay(0.3, times=None)
        refusing.faults.refuse(503, "booting", times=None)
        probes = probe_servers([refusing.url, "ws://127.0.0.1:1", slow.url, jetstream.url])
    assert [one.url for one in probes[:2]] == [jetstream.url, slow.url]
    assert [len(one.times) for one in probes] == [3, 3, 0, 0]
    text = "\n".join(format_probes(probes))
    assert "unreachable: Connection refused" in text
    assert "unreachable: HTTP 503" in text


def test_probing_ends_within_its_timeout(jetstream: Simulator) -> None:
    jetstream.faults.delay(float("inf"), times=None)
    began = time.monotonic()
    (one,) = probe_servers([jetstream.url], timeout=0.5)
    assert time.monotonic() - began < 2
    assert "unreachable: no response within" in format_probes([one])[0]
