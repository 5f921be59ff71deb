"""Faults, timeouts and restarts of the simulator on a real socket."""

from __future__ import annotations

import math
import socket
import time

import orjson
import pytest
import websocket

from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import create_connection, until
from tests.simulator_client import (
    BINARY,
    PING,
    PONG,
    TEXT,
    connect,
    cursors,
    end_of,
    fetch,
    read,
    receives_nothing,
    recorded_end,
)


class TestFaults:
    def test_a_cut_ends_the_stream_without_a_close_frame(self, jetstream: Simulator) -> None:
        jetstream.generate(1000)
        jetstream.faults.cut_after(400)
        with connect(jetstream, "cursor=0") as client:
            assert read(client, 400) == jetstream.frames[:400]
            assert end_of(client) == "eof"
        assert recorded_end(jetstream) == "cut"
        assert jetstream.connections[0].frames == 400
        # Only once: the next connection is served.
        assert cursors(fetch(jetstream, "cursor=400", 601)) == list(range(400, 1001))

    def test_a_reset_is_an_error_for_the_client(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.cut_after(10, reset=True)
        with connect(jetstream, "cursor=0") as client:
            assert end_of(client) == "reset"
        assert recorded_end(jetstream) == "reset"

    def test_a_torn_cut_sends_half_of_the_next_frame(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.cut_after(3, torn=True)
        with connect(jetstream, "cursor=0") as client:
            assert read(client, 3) == jetstream.frames[:3]
            assert end_of(client) == "eof"

    def test_a_cut_applies_to_an_open_connection(self, jetstream: Simulator) -> None:
        with connect(jetstream) as client:
            jetstream.faults.cut_after()
            assert end_of(client) == "eof"

    def test_a_probe_does_not_use_up_a_fault(self, jetstream: Simulator) -> None:
        jetstream.faults.cut_after()
        with connect(jetstream, "requireHello=true") as probe:
            assert receives_nothing(probe)
        with connect(jetstream) as client:
            assert end_of(client) == "eof"

    def test_a_close_has_code_and_reason(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.close(1011, "out of luck", after=5)
        with connect(jetstream, "cursor=0") as client:
            assert read(client, 5) == jetstream.frames[:5]
            assert end_of(client) == "1011 out of luck"
        assert recorded_end(jetstream) == "closed 1011 out of luck"

    def test_a_stalled_server_still_answers_pings(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.stall(after=3)
        with connect(jetstream, "cursor=0") as client:
            read(client, 3)
            client.ping(b"there?")
            assert client.recv_data(control_frame=True) == (PONG, b"there?")
            assert receives_nothing(client)
            jetstream.faults.clear()
            client.settimeout(5)
            assert read(client, 7) == jetstream.frames[3:]

    def test_a_stalled_server_without_pongs_answers_nothing(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.stall(after=3, pongs=False)
        with connect(jetstream, "cursor=0") as client:
            read(client, 3)
            client.settimeout(0.2)

            def answers_nothing() -> bool:
                client.ping()
                try:
                    client.recv_data(control_frame=True)
                except websocket.WebSocketTimeoutException:
                    return True
                return False

            # The server may answer one ping between its third frame and the fault.
            until(answers_nothing)
            jetstream.faults.clear()
            client.settimeout(5)
            assert read(client, 7) == jetstream.frames[3:]

    def test_injected_frames_are_recorded_apart_from_events(self, jetstream: Simulator) -> None:
        jetstream.generate(20)
        jetstream.faults.garbage("no JSON", b"\x00\xff", after=5)
        jetstream.faults.garbage(after=10)
        with connect(jetstream, "cursor=0") as client:
            assert read(client, 5) == jetstream.frames[:5]
            assert client.recv_data() == (TEXT, b"no JSON")
            assert client.recv_data() == (BINARY, b"\x00\xff")
            assert read(client, 5) == jetstream.frames[5:10]
            until(lambda: len(jetstream.faults.injected) > 2)  # the server records all of it before it sends
            garbage = [client.recv_data()[1] for _ in jetstream.faults.injected[2:]]
            assert garbage == jetstream.faults.injected[2:]
            assert len(garbage) > 5
            assert read(client, 10) == jetstream.frames[10:]
        assert len(jetstream.frames) == 20

    def test_a_handshake_can_be_delayed_or_never_answered(self, jetstream: Simulator) -> None:
        jetstream.faults.delay(0.2)
        jetstream.faults.delay(math.inf)
        begin = time.monotonic()
        with connect(jetstream):
            assert time.monotonic() - begin >= 0.2
        with pytest.raises(websocket.WebSocketTimeoutException):
            create_connection(jetstream.subscribe_url, timeout=0.3)


class TestTimeouts:
    def test_a_slow_reader_is_disconnected_without_a_close_frame(self) -> None:
        server = ServerOptions(write_timeout=0.3, send_buffer=16_384)
        with Simulator(server=server) as jetstream:
            jetstream.generate(5000)
            options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)]
            with connect(jetstream, "cursor=0", sockopt=options) as client:
                assert recorded_end(jetstream) == "write timeout"
                # Data in flight can still be read, in order; then the stream ends.
                frames = read(client, 10)
                assert frames == jetstream.frames[:10]
                assert end_of(client) == "eof"

    def test_a_client_that_answers_pings_stays_connected(self) -> None:
        with Simulator(server=ServerOptions(ping_interval=0.1, pong_timeout=0.2)) as jetstream:
            with connect(jetstream) as client:
                for _ in range(5):
                    assert client.recv_data(control_frame=True)[0] == PING
            assert recorded_end(jetstream).startswith(("closed by client", "lost"))

    def test_a_client_without_pongs_is_disconnected(self) -> None:
        server = ServerOptions(ping_interval=0.1, pong_timeout=0.2)
        with Simulator(server=server) as jetstream, connect(jetstream):
            assert recorded_end(jetstream) == "pong timeout"

    def test_pings_are_answered_while_data_is_sent(self, jetstream: Simulator) -> None:
        jetstream.generate(20_000)
        with connect(jetstream, "cursor=0") as client:
            client.ping(b"busy?")
            kinds = [client.recv_data(control_frame=True)[0] for _ in range(20_001)]
            assert kinds.count(PONG) == 1

    def test_a_close_frame_of_the_client_is_answered(self, jetstream: Simulator) -> None:
        client = create_connection(jetstream.subscribe_url, timeout=5)
        begin = time.monotonic()
        client.close(status=1000)
        assert time.monotonic() - begin < 1
        assert recorded_end(jetstream) == "closed by client 1000"


class TestRestart:
    def test_a_clean_restart_closes_with_1001_and_keeps_events(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        before = jetstream.frames
        with connect(jetstream, "cursor=0") as client:
            read(client, 10)
            jetstream.restart()
            assert end_of(client) == "1001 server shutting down"
        jetstream.generate(5)
        assert fetch(jetstream, "cursor=6", 10) == jetstream.frames[5:]
        assert jetstream.frames[:10] == before

    def test_a_killed_server_reuses_cursors(self, jetstream: Simulator) -> None:
        jetstream.generate(1000)
        before = jetstream.frames
        with connect(jetstream, "cursor=0") as client:
            read(client, 1000)
            jetstream.restart(unclean=500)
            assert end_of(client) == "eof"
        after = fetch(jetstream, "cursor=0", 1000)
        assert cursors(after) == cursors(before) == list(range(1, 1001))
        assert after[:500] == before[:500]
        assert after[500:] != before[500:]

        def without_cursor(frames: list[bytes]) -> list[str]:
            return sorted(str(orjson.loads(frame) | {"cursor": 0}) for frame in frames)

        assert without_cursor(after) == without_cursor(before)

    def test_a_wiped_server_restarts_its_cursors_at_one(self, jetstream: Simulator) -> None:
        jetstream.generate(100)
        jetstream.restart(wiped=True)
        with connect(jetstream, "cursor=80") as client:  # beyond the newest event: live, without a notice
            jetstream.generate(3)
            assert cursors(read(client, 3)) == [1, 2, 3]
        assert jetstream.published == 103

    def test_a_client_that_does_not_read_does_not_delay_a_stop(self) -> None:
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)]
        with Simulator(server=ServerOptions(send_buffer=16_384)) as jetstream:
            jetstream.generate(5000)
            with connect(jetstream, "cursor=0", sockopt=options):
                jetstream.wait_until(lambda j: j.behind is not None and j.behind < 5000)
                begin = time.monotonic()
                jetstream.stop()
                assert time.monotonic() - begin < 3
            assert recorded_end(jetstream) == "closed without a close frame"

    def test_a_stopped_server_refuses_connections_and_keeps_its_port(self, jetstream: Simulator) -> None:
        port = jetstream.port
        jetstream.stop()
        with pytest.raises(ConnectionRefusedError):
            create_connection(jetstream.subscribe_url, timeout=1)
        jetstream.start()
        assert jetstream.port == port
        with connect(jetstream):
            pass

    def test_many_restarts_under_load(self, jetstream: Simulator) -> None:
        jetstream.run_at(2000)
        for number in range(5):
            with connect(jetstream, "cursor=0") as client:
                read(client, 10)
                jetstream.restart(unclean=100 if number % 2 else 0)
                assert end_of(client) in ("eof", "1001 server shutting down", "reset")
