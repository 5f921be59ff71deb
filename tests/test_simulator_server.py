"""The simulator on the wire: a real socket, websocket-client at the other end."""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import websocket

from slurp.simulator.connection import Manners
from slurp.simulator.jetstream import Simulator
from tests.harness import create_connection

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
HOUR = 3600.0


@contextlib.contextmanager
def connect(jetstream: Simulator, query: str = "", timeout: float = 5.0, **options: Any) -> Iterator[Any]:
    client: Any = create_connection(
        f"{jetstream.subscribe_url}?{query}", timeout=timeout, skip_utf8_validation=True, **options
    )
    try:
        yield client
    finally:
        client.shutdown()


def read(client: Any, count: int) -> list[bytes]:
    frames = []
    for _ in range(count):
        opcode, data = client.recv_data()
        assert opcode == TEXT
        frames.append(data)
    return frames


def take(jetstream: Simulator, query: str, count: int) -> list[bytes]:
    with connect(jetstream, query) as client:
        return read(client, count)


def hears_nothing(client: Any, seconds: float = 0.2) -> bool:
    client.settimeout(seconds)
    try:
        client.recv_data()
    except websocket.WebSocketTimeoutException:
        return True
    return False


def refused(jetstream: Simulator, query: str) -> tuple[int, str]:
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        create_connection(f"{jetstream.subscribe_url}?{query}", timeout=5)
    return caught.value.status_code, (caught.value.resp_body or b"").decode()


def plain_get(jetstream: Simulator, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(jetstream.host, jetstream.port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def end_of(client: Any) -> str:
    """How the stream ends for a client that reads on."""
    try:
        while True:
            opcode, data = client.recv_data()
            if opcode == CLOSE:
                return f"{struct.unpack('!H', data[:2])[0]} {data[2:].decode()}".rstrip()
    except websocket.WebSocketConnectionClosedException:
        return "eof"
    except ConnectionResetError:
        return "reset"


def ended(jetstream: Simulator, number: int = 0) -> str:
    jetstream.wait_until(lambda j: len(j.connections) > number and j.connections[number].ended)
    return jetstream.connections[number].ended or ""


def cursors(frames: list[bytes]) -> list[int]:
    return [orjson.loads(frame)["cursor"] for frame in frames]


class TestCursors:
    def test_without_one_only_what_comes_next(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        with connect(jetstream) as client:
            jetstream.generate(5)
            assert read(client, 5) == jetstream.frames[10:]

    def test_zero_is_everything_byte_for_byte(self, jetstream: Simulator) -> None:
        jetstream.generate(3000)
        assert take(jetstream, "cursor=0", 3000) == jetstream.frames

    def test_history_goes_over_into_live_without_a_seam(self, jetstream: Simulator) -> None:
        jetstream.generate(1000)
        with connect(jetstream, "cursor=1") as client:
            jetstream.run_at(500, limit=100)
            assert cursors(read(client, 1100)) == list(range(1, 1101))

    def test_a_sequence_number_is_inclusive(self, jetstream: Simulator) -> None:
        jetstream.generate(100)
        assert take(jetstream, "cursor=42", 59) == jetstream.frames[41:]

    def test_a_time_is_inclusive(self, jetstream: Simulator) -> None:
        jetstream.generate(100, span=HOUR)
        times = [orjson.loads(frame)["time_us"] for frame in jetstream.frames]
        first = times.index(times[60])
        assert take(jetstream, f"cursor={times[60]}", 100 - first) == jetstream.frames[first:]

    def test_the_future_is_silently_live(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        for cursor in (11_000, int((time.time() + 600) * 1e6)):
            with connect(jetstream, f"cursor={cursor}") as client:
                jetstream.generate(1)
                assert read(client, 1) == jetstream.frames[-1:]

    def test_what_is_older_than_the_lookback_is_silently_clamped(self) -> None:
        with Simulator(manners=Manners(lookback=HOUR)) as jetstream:
            jetstream.generate(200, span=2 * HOUR)
            floor = cursors(take(jetstream, "cursor=0", 1))[0]
            assert 80 < floor < 120
            assert cursors(take(jetstream, "cursor=5", 1)) == [floor]
            assert cursors(take(jetstream, f"cursor={int((time.time() - 90 * 60) * 1e6)}", 1)) == [floor]

    def test_a_recent_time_replays_the_active_segment(self) -> None:
        with Simulator(manners=Manners(active_segment=1800)) as jetstream:
            jetstream.generate(200, span=HOUR)
            first = cursors(take(jetstream, f"cursor={int((time.time() - 10) * 1e6)}", 1))[0]
            assert 80 < first < 120

    @pytest.mark.parametrize("cursor", ["-1", "soon", "1e3"])
    def test_nonsense_is_a_400_with_a_text(self, jetstream: Simulator, cursor: str) -> None:
        status, text = refused(jetstream, f"cursor={cursor}")
        assert status == 400
        assert "cursor" in text

    def test_older_servers_send_none(self) -> None:
        with Simulator(cursors=False) as jetstream:
            jetstream.generate(10)
            jetstream.publish([{"did": "did:plc:a", "kind": "identity", "identity": {}}])
            frames = take(jetstream, "cursor=0", 11)
            assert not any("cursor" in orjson.loads(frame) for frame in frames)


class TestFilters:
    def expected(self, jetstream: Simulator, *prefixes: str) -> list[bytes]:
        def passes(event: dict[str, Any]) -> object:
            return event["kind"] != "commit" or event["commit"]["collection"].startswith(prefixes)

        return [frame for frame in jetstream.frames if passes(orjson.loads(frame))]

    def test_collections_and_prefixes_let_account_events_through(self, jetstream: Simulator) -> None:
        jetstream.generate(5000)
        expected = self.expected(jetstream, "app.bsky.graph.", "xyz.statusphere.status")
        assert {orjson.loads(frame)["kind"] for frame in expected} == {"commit", "account", "identity"}
        query = "cursor=0&wantedCollections=app.bsky.graph.*&wantedCollections=xyz.statusphere.status"
        assert take(jetstream, query, len(expected)) == expected

    def test_dids_hold_back_account_events_too(self, jetstream: Simulator) -> None:
        jetstream.generate(3000)
        did = orjson.loads(jetstream.frames[0])["did"]
        expected = [frame for frame in jetstream.frames if orjson.loads(frame)["did"] == did]
        assert take(jetstream, f"cursor=0&wantedDids={did}", len(expected)) == expected

    def test_ten_thousand_dids_fit_into_the_url(self, jetstream: Simulator) -> None:
        dids = "&".join(f"wantedDids=did:plc:{n:024d}" for n in range(10_000))
        with connect(jetstream, dids) as client:
            jetstream.generate(10)
            jetstream.publish([{"did": f"did:plc:{9999:024d}", "kind": "identity", "identity": {}}])
            assert read(client, 1) == jetstream.frames[-1:]

    def test_too_many_or_bad_ones_are_a_400(self, jetstream: Simulator) -> None:
        assert refused(jetstream, "&".join(["wantedCollections=a.b.c"] * 101))[0] == 400
        assert refused(jetstream, "wantedCollections=a.b.c,d.e.f")[0] == 400
        assert refused(jetstream, "&".join(["wantedDids=did:plc:a"] * 10_001))[0] == 400

    def test_larger_messages_are_dropped(self, jetstream: Simulator) -> None:
        jetstream.generate(1000)
        expected = [frame for frame in jetstream.frames if len(frame) <= 400]
        assert take(jetstream, "cursor=0&maxMessageSizeBytes=400", len(expected)) == expected

    def test_compression_is_refused_clearly(self, jetstream: Simulator) -> None:
        status, text = refused(jetstream, "compress=true")
        assert status == 400
        assert "dictionary" in text


class TestHello:
    def test_nothing_comes_before_it(self, jetstream: Simulator) -> None:
        jetstream.generate(100)
        expected = [f for f in jetstream.frames if b'"collection":"app.bsky.feed.post"' in f]
        with connect(jetstream, "requireHello=true&cursor=0") as client:
            assert hears_nothing(client)
            client.settimeout(5)
            client.send(
                '{"type":"options_update","payload":{"wantedCollections":["app.bsky.feed.post"],'
                '"maxMessageSizeBytes":0}}'
            )
            got = read(client, len(expected))
        assert [frame for frame in got if b'"kind":"commit"' in frame] == expected

    def test_an_update_replaces_the_filter(self, jetstream: Simulator) -> None:
        with connect(jetstream, "wantedCollections=app.bsky.feed.post&wantedDids=did:plc:a") as client:
            client.send('{"type":"options_update","payload":{"wantedDids":["did:plc:b"]}}')
            client.ping()  # its pong says that the update has been read
            assert client.recv_data(control_frame=True)[0] == PONG
            event = {"kind": "commit", "commit": {"collection": "app.bsky.feed.like"}}
            jetstream.publish([{"did": "did:plc:a", **event}, {"did": "did:plc:b", **event}])
            assert orjson.loads(read(client, 1)[0])["did"] == "did:plc:b"

    @pytest.mark.parametrize(
        ("message", "code"),
        [
            ("hello?", "1007"),
            ('{"type":"options_update","payload":{"wantedCollections":["*"]}}', "1008"),
        ],
    )
    def test_a_bad_one_closes(self, jetstream: Simulator, message: str, code: str) -> None:
        with connect(jetstream, "requireHello=true") as client:
            client.send(message)
            assert end_of(client).startswith(code)


class TestHttp:
    def test_a_plain_get_needs_an_upgrade(self, jetstream: Simulator) -> None:
        assert plain_get(jetstream, "/subscribe")[0] == 426

    def test_a_booting_server_says_503(self, jetstream: Simulator) -> None:
        jetstream.faults.refuse(503, "booting", times=2)
        assert plain_get(jetstream, "/subscribe") == (503, "booting\n")
        assert refused(jetstream, "")[0] == 503
        with connect(jetstream):
            pass

    def test_other_paths_are_unknown(self, jetstream: Simulator) -> None:
        assert plain_get(jetstream, "/")[0] == 404
        assert plain_get(jetstream, "/xrpc/network.bsky.jetstream.planSnapshot")[0] == 404

    def test_other_methods_are_refused(self, jetstream: Simulator) -> None:
        connection = http.client.HTTPConnection(jetstream.host, jetstream.port, timeout=5)
        connection.request("POST", "/subscribe")
        assert connection.getresponse().status == 405

    def test_what_is_no_http_is_a_400(self, jetstream: Simulator) -> None:
        with socket.create_connection((jetstream.host, jetstream.port), timeout=5) as sock:
            sock.sendall(b"good morning\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 400")


class TestFaults:
    def test_a_cut_comes_without_a_close_frame(self, jetstream: Simulator) -> None:
        jetstream.generate(1000)
        jetstream.faults.cut_after(400)
        with connect(jetstream, "cursor=0") as client:
            assert read(client, 400) == jetstream.frames[:400]
            assert end_of(client) == "eof"
        assert ended(jetstream) == "cut"
        assert jetstream.connections[0].frames == 400
        # Only once: the next one is served.
        assert cursors(take(jetstream, "cursor=400", 601)) == list(range(400, 1001))

    def test_a_reset_is_an_error_for_the_client(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.cut_after(10, reset=True)
        with connect(jetstream, "cursor=0") as client:
            assert end_of(client) == "reset"
        assert ended(jetstream) == "reset"

    def test_a_torn_frame_is_only_half_there(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.cut_after(3, torn=True)
        with connect(jetstream, "cursor=0") as client:
            assert read(client, 3) == jetstream.frames[:3]
            assert end_of(client) == "eof"

    def test_a_cut_hits_an_open_connection_too(self, jetstream: Simulator) -> None:
        with connect(jetstream) as client:
            jetstream.faults.cut_after()
            assert end_of(client) == "eof"

    def test_probes_use_no_fault_up(self, jetstream: Simulator) -> None:
        jetstream.faults.cut_after()
        with connect(jetstream, "requireHello=true") as probe:
            assert hears_nothing(probe)
        with connect(jetstream) as client:
            assert end_of(client) == "eof"

    def test_a_close_has_code_and_reason(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.close(1011, "out of luck", after=5)
        with connect(jetstream, "cursor=0") as client:
            assert read(client, 5) == jetstream.frames[:5]
            assert end_of(client) == "1011 out of luck"
        assert ended(jetstream) == "closed 1011 out of luck"

    def test_a_stalled_server_still_answers_pings(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.stall(after=3)
        with connect(jetstream, "cursor=0") as client:
            read(client, 3)
            client.ping(b"there?")
            assert client.recv_data(control_frame=True) == (PONG, b"there?")
            assert hears_nothing(client)
            jetstream.faults.clear()
            client.settimeout(5)
            assert read(client, 7) == jetstream.frames[3:]

    def test_a_dead_server_answers_nothing(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.stall(after=3, pongs=False)
        with connect(jetstream, "cursor=0") as client:
            read(client, 3)
            client.ping()
            client.settimeout(0.2)
            with pytest.raises(websocket.WebSocketTimeoutException):
                client.recv_data(control_frame=True)
            jetstream.faults.clear()
            client.settimeout(5)
            assert read(client, 7) == jetstream.frames[3:]

    def test_garbage_is_told_apart_from_events(self, jetstream: Simulator) -> None:
        jetstream.generate(20)
        jetstream.faults.garbage("no JSON", b"\x00\xff", after=5)
        jetstream.faults.garbage(after=10)
        with connect(jetstream, "cursor=0") as client:
            assert read(client, 5) == jetstream.frames[:5]
            assert client.recv_data() == (TEXT, b"no JSON")
            assert client.recv_data() == (BINARY, b"\x00\xff")
            assert read(client, 5) == jetstream.frames[5:10]
            zoo = [client.recv_data()[1] for _ in jetstream.faults.injected[2:]]
            assert zoo == jetstream.faults.injected[2:]
            assert len(zoo) > 5
            assert read(client, 10) == jetstream.frames[10:]
        assert len(jetstream.frames) == 20

    def test_a_late_handshake_and_one_that_never_comes(self, jetstream: Simulator) -> None:
        jetstream.faults.delay(0.2)
        jetstream.faults.delay(math.inf)
        begin = time.monotonic()
        with connect(jetstream):
            assert time.monotonic() - begin >= 0.2
        with pytest.raises(websocket.WebSocketTimeoutException):
            create_connection(jetstream.subscribe_url, timeout=0.3)


class TestPatience:
    def test_a_slow_reader_is_cut_without_a_close_frame(self) -> None:
        manners = Manners(write_timeout=0.3, send_buffer=16_384)
        with Simulator(manners=manners) as jetstream:
            jetstream.generate(5000)
            options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)]
            with connect(jetstream, "cursor=0", sockopt=options) as client:
                assert ended(jetstream) == "too slow"
                # What was on its way can still be read, in order, then it just ends.
                frames = read(client, 10)
                assert frames == jetstream.frames[:10]
                assert end_of(client) == "eof"

    def test_a_client_that_answers_pings_stays(self) -> None:
        with Simulator(manners=Manners(ping_interval=0.1, pong_timeout=0.2)) as jetstream:
            with connect(jetstream) as client:
                for _ in range(5):
                    assert client.recv_data(control_frame=True)[0] == PING
            assert ended(jetstream).startswith(("closed by client", "lost"))

    def test_a_client_without_pongs_is_cut(self) -> None:
        manners = Manners(ping_interval=0.1, pong_timeout=0.2)
        with Simulator(manners=manners) as jetstream, connect(jetstream):
            assert ended(jetstream) == "no pong"

    def test_pings_are_answered_while_data_flows(self, jetstream: Simulator) -> None:
        jetstream.generate(20_000)
        with connect(jetstream, "cursor=0") as client:
            client.ping(b"busy?")
            kinds = [client.recv_data(control_frame=True)[0] for _ in range(20_001)]
            assert kinds.count(PONG) == 1

    def test_a_client_may_say_goodbye(self, jetstream: Simulator) -> None:
        client = create_connection(jetstream.subscribe_url, timeout=5)
        begin = time.monotonic()
        client.close(status=1000)
        assert time.monotonic() - begin < 1
        assert ended(jetstream) == "closed by client 1000"


class TestRestart:
    def test_an_orderly_one_says_goodbye_and_goes_on(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        before = jetstream.frames
        with connect(jetstream, "cursor=0") as client:
            read(client, 10)
            jetstream.restart()
            assert end_of(client) == "1001 server shutting down"
        jetstream.generate(5)
        assert take(jetstream, "cursor=6", 10) == jetstream.frames[5:]
        assert jetstream.frames[:10] == before

    def test_a_killed_server_uses_cursors_again(self, jetstream: Simulator) -> None:
        jetstream.generate(1000)
        before = jetstream.frames
        with connect(jetstream, "cursor=0") as client:
            read(client, 1000)
            jetstream.restart(unclean=500)
            assert end_of(client) == "eof"
        after = take(jetstream, "cursor=0", 1000)
        assert cursors(after) == cursors(before) == list(range(1, 1001))
        assert after[:500] == before[:500]
        assert after[500:] != before[500:]

        def without_cursor(frames: list[bytes]) -> list[str]:
            return sorted(str(orjson.loads(frame) | {"cursor": 0}) for frame in frames)

        assert without_cursor(after) == without_cursor(before)

    def test_a_wiped_server_counts_from_one(self, jetstream: Simulator) -> None:
        jetstream.generate(100)
        jetstream.restart(wiped=True)
        with connect(jetstream, "cursor=80") as client:  # beyond the tip: live, without a word
            jetstream.generate(3)
            assert cursors(read(client, 3)) == [1, 2, 3]
        assert jetstream.published == 103

    def test_a_client_that_does_not_read_holds_nothing_up(self) -> None:
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)]
        with Simulator(manners=Manners(send_buffer=16_384)) as jetstream:
            jetstream.generate(5000)
            with connect(jetstream, "cursor=0", sockopt=options):
                jetstream.wait_until(lambda j: j.behind is not None and j.behind < 5000)
                begin = time.monotonic()
                jetstream.stop()
                assert time.monotonic() - begin < 3
            assert ended(jetstream) == "left without goodbye"

    def test_the_port_stays_and_nobody_answers_in_between(self, jetstream: Simulator) -> None:
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


class TestRecords:
    def test_connections_tell_what_was_asked_for(self, jetstream: Simulator) -> None:
        jetstream.generate(5)
        take(jetstream, "cursor=3&wantedCollections=app.bsky.feed.*", 1)
        refused(jetstream, "cursor=x")
        ended(jetstream, 0)
        assert ended(jetstream, 1).startswith("refused 400")
        first = jetstream.connections[0]
        assert first.path == "/subscribe"
        assert first.cursor == 3
        assert first.params == {"cursor": ["3"], "wantedCollections": ["app.bsky.feed.*"]}

    def test_behind_is_what_the_slowest_has_to_get(self, jetstream: Simulator) -> None:
        assert jetstream.behind is None
        jetstream.generate(100)
        jetstream.faults.stall(after=0)
        with connect(jetstream, "cursor=0"):
            jetstream.wait_until(lambda j: j.behind == 100)
            jetstream.faults.clear()
            jetstream.wait_until(lambda j: j.behind == 0)

    def test_waiting_has_an_end(self, jetstream: Simulator) -> None:
        with pytest.raises(TimeoutError):
            jetstream.wait_until(lambda j: j.connections, timeout=0.05)
