"""The simulator on a real socket: cursors, filters, updates and HTTP errors."""

from __future__ import annotations

import http.client
import socket
import time
from typing import Any

import orjson
import pytest

from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions, ServerOptions
from tests.simulator_client import (
    PONG,
    connect,
    cursors,
    end_of,
    fetch,
    plain_get,
    read,
    receives_nothing,
    recorded_end,
    rejection,
)

HOUR = 3600.0


class TestCursors:
    def test_without_a_cursor_only_new_events_are_sent(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        with connect(jetstream) as client:
            jetstream.generate(5)
            assert read(client, 5) == jetstream.frames[10:]

    def test_cursor_zero_replays_every_frame_unchanged(self, jetstream: Simulator) -> None:
        jetstream.generate(3000)
        assert fetch(jetstream, "cursor=0", 3000) == jetstream.frames

    def test_a_replay_continues_with_live_events_without_a_gap(self, jetstream: Simulator) -> None:
        jetstream.generate(1000)
        with connect(jetstream, "cursor=1") as client:
            jetstream.run_at(500, limit=100)
            assert cursors(read(client, 1100)) == list(range(1, 1101))

    def test_a_sequence_number_is_inclusive(self, jetstream: Simulator) -> None:
        jetstream.generate(100)
        assert fetch(jetstream, "cursor=42", 59) == jetstream.frames[41:]

    def test_a_time_is_inclusive(self, jetstream: Simulator) -> None:
        jetstream.generate(100, span=HOUR)
        times = [orjson.loads(frame)["time_us"] for frame in jetstream.frames]
        first = times.index(times[60])
        assert fetch(jetstream, f"cursor={times[60]}", 100 - first) == jetstream.frames[first:]

    def test_a_cursor_in_the_future_starts_live(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        for cursor in (11_000, int((time.time() + 600) * 1e6)):
            with connect(jetstream, f"cursor={cursor}") as client:
                jetstream.generate(1)
                assert read(client, 1) == jetstream.frames[-1:]

    def test_a_cursor_older_than_the_lookback_starts_at_its_floor(self) -> None:
        with Simulator(server=ServerOptions(lookback=HOUR)) as jetstream:
            jetstream.generate(200, span=2 * HOUR)
            floor = cursors(fetch(jetstream, "cursor=0", 1))[0]
            assert 80 < floor < 120
            assert cursors(fetch(jetstream, "cursor=5", 1)) == [floor]
            assert cursors(fetch(jetstream, f"cursor={int((time.time() - 90 * 60) * 1e6)}", 1)) == [floor]

    def test_a_recent_time_replays_the_active_segment(self) -> None:
        with Simulator(server=ServerOptions(active_segment=1800)) as jetstream:
            jetstream.generate(200, span=HOUR)
            first = cursors(fetch(jetstream, f"cursor={int((time.time() - 10) * 1e6)}", 1))[0]
            assert 80 < first < 120

    @pytest.mark.parametrize("cursor", ["-1", "soon", "1e3"])
    def test_an_invalid_cursor_is_a_400_that_names_it(self, jetstream: Simulator, cursor: str) -> None:
        status, text = rejection(jetstream, f"cursor={cursor}")
        assert status == 400
        assert "cursor" in text

    def test_older_servers_send_no_cursor(self) -> None:
        with Simulator(network=NetworkOptions(cursors=False)) as jetstream:
            jetstream.generate(10)
            jetstream.publish([{"did": "did:plc:a", "kind": "identity", "identity": {}}])
            frames = fetch(jetstream, "cursor=0", 11)
            assert not any("cursor" in orjson.loads(frame) for frame in frames)


class TestFilters:
    def expected(self, jetstream: Simulator, *prefixes: str) -> list[bytes]:
        def passes(event: dict[str, Any]) -> object:
            return event["kind"] != "commit" or event["commit"]["collection"].startswith(prefixes)

        return [frame for frame in jetstream.frames if passes(orjson.loads(frame))]

    def test_account_events_pass_a_collection_filter(self, jetstream: Simulator) -> None:
        jetstream.generate(5000)
        expected = self.expected(jetstream, "app.bsky.graph.", "xyz.statusphere.status")
        assert {orjson.loads(frame)["kind"] for frame in expected} == {"commit", "account", "identity"}
        query = "cursor=0&wantedCollections=app.bsky.graph.*&wantedCollections=xyz.statusphere.status"
        assert fetch(jetstream, query, len(expected)) == expected

    def test_a_did_filter_applies_to_account_events(self, jetstream: Simulator) -> None:
        jetstream.generate(3000)
        did = orjson.loads(jetstream.frames[0])["did"]
        expected = [frame for frame in jetstream.frames if orjson.loads(frame)["did"] == did]
        assert fetch(jetstream, f"cursor=0&wantedDids={did}", len(expected)) == expected

    def test_ten_thousand_dids_fit_into_the_url(self, jetstream: Simulator) -> None:
        dids = "&".join(f"wantedDids=did:plc:{n:024d}" for n in range(10_000))
        with connect(jetstream, dids) as client:
            jetstream.generate(10)
            jetstream.publish([{"did": f"did:plc:{9999:024d}", "kind": "identity", "identity": {}}])
            assert read(client, 1) == jetstream.frames[-1:]

    def test_too_many_or_invalid_values_are_a_400(self, jetstream: Simulator) -> None:
        assert rejection(jetstream, "&".join(["wantedCollections=a.b.c"] * 101))[0] == 400
        assert rejection(jetstream, "wantedCollections=a.b.c,d.e.f")[0] == 400
        assert rejection(jetstream, "&".join(["wantedDids=did:plc:a"] * 10_001))[0] == 400

    def test_frames_above_the_size_limit_are_not_sent(self, jetstream: Simulator) -> None:
        jetstream.generate(1000)
        expected = [frame for frame in jetstream.frames if len(frame) <= 400]
        assert fetch(jetstream, "cursor=0&maxMessageSizeBytes=400", len(expected)) == expected

    def test_v1_compression_is_rejected_with_the_reason(self, jetstream: Simulator) -> None:
        status, text = rejection(jetstream, "compress=true")
        assert status == 400
        assert "dictionary" in text


class TestRequireHello:
    def test_no_event_is_sent_before_the_first_update(self, jetstream: Simulator) -> None:
        jetstream.generate(100)
        expected = [
            frame
            for frame in jetstream.frames
            if b'"collection":"app.bsky.feed.post"' in frame or b'"kind":"commit"' not in frame
        ]
        with connect(jetstream, "requireHello=true&cursor=0") as client:
            assert receives_nothing(client)
            client.settimeout(5)
            client.send(
                '{"type":"options_update","payload":{"wantedCollections":["app.bsky.feed.post"],'
                '"maxMessageSizeBytes":0}}'
            )
            got = read(client, len(expected))
        assert got == expected

    def test_an_update_replaces_the_filter(self, jetstream: Simulator) -> None:
        with connect(jetstream, "wantedCollections=app.bsky.feed.post&wantedDids=did:plc:a") as client:
            client.send('{"type":"options_update","payload":{"wantedDids":["did:plc:b"]}}')
            client.ping()  # its pong proves that the update has been read
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
    def test_an_invalid_update_closes_it(self, jetstream: Simulator, message: str, code: str) -> None:
        with connect(jetstream, "requireHello=true") as client:
            client.send(message)
            assert end_of(client).startswith(code)


class TestHttp:
    def test_a_plain_get_needs_an_upgrade(self, jetstream: Simulator) -> None:
        assert plain_get(jetstream, "/subscribe")[0] == 426

    def test_a_starting_server_answers_503(self, jetstream: Simulator) -> None:
        jetstream.faults.refuse(503, "booting", times=2)
        assert plain_get(jetstream, "/subscribe") == (503, "booting\n")
        assert rejection(jetstream, "")[0] == 503
        with connect(jetstream):
            pass

    def test_unknown_paths_are_a_404(self, jetstream: Simulator) -> None:
        assert plain_get(jetstream, "/")[0] == 404
        assert plain_get(jetstream, "/xrpc/network.bsky.jetstream.planSnapshot")[0] == 404

    def test_other_methods_are_a_405(self, jetstream: Simulator) -> None:
        connection = http.client.HTTPConnection(jetstream.host, jetstream.port, timeout=5)
        connection.request("POST", "/subscribe")
        assert connection.getresponse().status == 405

    def test_a_request_that_is_not_http_is_a_400(self, jetstream: Simulator) -> None:
        with socket.create_connection((jetstream.host, jetstream.port), timeout=5) as sock:
            sock.sendall(b"good morning\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 400")


class TestConnectionRecords:
    def test_a_connection_records_its_request(self, jetstream: Simulator) -> None:
        jetstream.generate(5)
        fetch(jetstream, "cursor=3&wantedCollections=app.bsky.feed.*", 1)
        rejection(jetstream, "cursor=x")
        recorded_end(jetstream, 0)
        assert recorded_end(jetstream, 1).startswith("refused 400")
        first = jetstream.connections[0]
        assert first.path == "/subscribe"
        assert first.cursor == 3
        assert first.params == {"cursor": ["3"], "wantedCollections": ["app.bsky.feed.*"]}

    def test_behind_counts_the_events_that_the_slowest_subscriber_lacks(self, jetstream: Simulator) -> None:
        assert jetstream.behind is None
        jetstream.generate(100)
        jetstream.faults.stall(after=0)
        with connect(jetstream, "cursor=0"):
            jetstream.wait_until(lambda j: j.behind == 100)
            jetstream.faults.clear()
            jetstream.wait_until(lambda j: j.behind == 0)

    def test_waiting_for_a_condition_times_out(self, jetstream: Simulator) -> None:
        with pytest.raises(TimeoutError):
            jetstream.wait_until(lambda j: j.connections, timeout=0.05)
