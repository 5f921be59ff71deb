"""The v2 protocol of the simulator on a real socket, with websocket-client as the client."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import websocket
import zstandard

from slurp.simulator import protocol_v2
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.conftest import SHARED
from tests.harness import create_connection
from tests.simulator_client import BINARY, TEXT, connect, cursors, end_of, fetch, receives_nothing

HOUR = 3600.0
DID = "did:plc:resynced"


def url(jetstream: Simulator, query: str = "") -> str:
    return f"{jetstream.url}{protocol_v2.PATH}?{query}"


@contextlib.contextmanager
def subscribe(jetstream: Simulator, query: str = "") -> Iterator[Any]:
    client: Any = create_connection(url(jetstream, query), timeout=5, skip_utf8_validation=True)
    try:
        yield client
    finally:
        client.shutdown()


def read(client: Any, count: int) -> list[dict[str, Any]]:
    frames = []
    for _ in range(count):
        opcode, data = client.recv_data()
        assert opcode == TEXT
        frames.append(orjson.loads(data))
    return frames


def payloads(jetstream: Simulator, query: str, count: int) -> list[dict[str, Any]]:
    with subscribe(jetstream, query) as client:
        return [frame["payload"] for frame in read(client, count)]


def rejection(jetstream: Simulator, query: str) -> dict[str, str]:
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        create_connection(url(jetstream, query), timeout=5)
    assert caught.value.status_code == 400
    return dict(orjson.loads(caught.value.resp_body or b""))


def dictionary(jetstream: Simulator, query: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(jetstream.host, jetstream.port, timeout=5)
    connection.request("GET", f"{protocol_v2.DICTIONARY_PATH}?{query}")
    response = connection.getresponse()
    return response.status, response.read()


def publish_resync(jetstream: Simulator, rows: int = 3) -> None:
    """Publish a #sync and the creates that follow it, between other events."""
    rev = "3mptbypluud2a"
    create = {"rev": rev, "operation": "create", "collection": "app.bsky.feed.like", "record": {"a": 1}}
    jetstream.generate(5)
    jetstream.publish(
        [
            {"did": DID, "kind": "sync", "sync": {"did": DID, "rev": rev, "seq": 9, "time": ""}},
            *({"did": DID, "kind": "commit", "commit": create | {"rkey": f"row{n}"}} for n in range(rows)),
        ]
    )
    jetstream.generate(5)


def test_both_protocols_send_the_same_events(jetstream: Simulator) -> None:
    jetstream.generate(1000)
    on_v2 = payloads(jetstream, "cursor=0", 1000)
    assert [protocol_v2.to_v1_event({"payload": payload}) for payload in on_v2] == [
        orjson.loads(frame) for frame in fetch(jetstream, "cursor=0", 1000)
    ]
    assert on_v2[-1]["seq"] == cursors(jetstream.frames)[-1]


def test_recorded_frames_are_sent_unchanged(jetstream: Simulator) -> None:
    path = SHARED / "corpus" / "jetstream-v2-simulated.jsonl"
    if not path.is_file():
        pytest.skip("the recorded events are not available")
    jetstream.load(path)
    lines = path.read_bytes().splitlines()
    with subscribe(jetstream, "cursor=0") as client:
        # Compared as JSON: a real server escapes some characters for browsers.
        assert read(client, 2000) == [orjson.loads(line) for line in lines]
    assert len(fetch(jetstream, "cursor=0", 1991)) == 1991, "v1 hides a #sync and eight creates"


def test_v1_hides_a_resync(jetstream: Simulator) -> None:
    publish_resync(jetstream)
    assert [frame["$type"].rpartition("#")[2] for frame in payloads(jetstream, "cursor=0", 14)[5:9]] == [
        *("sync", "commit", "commit", "commit")
    ]
    assert cursors(fetch(jetstream, "cursor=0", 10)) == [1, 2, 3, 4, 5, 10, 11, 12, 13, 14]
    assert cursors(fetch(jetstream, "cursor=7", 5)) == [10, 11, 12, 13, 14]
    assert len(jetstream.frames) == 14


def test_later_creates_of_a_resynced_account_are_sent(jetstream: Simulator) -> None:
    publish_resync(jetstream)
    commit = {"rev": "3mptbypluud2z", "operation": "create", "collection": "a.b.c", "rkey": "x", "record": {}}
    jetstream.publish([{"did": DID, "kind": "commit", "commit": commit}])
    assert orjson.loads(fetch(jetstream, "cursor=10", 6)[-1])["did"] == DID


class TestFilters:
    def test_other_kinds_pass_a_collection_filter(self, jetstream: Simulator) -> None:
        jetstream.generate(3000)
        with subscribe(jetstream, "cursor=0&collections=app.bsky.graph.*") as client:
            kinds = {frame["payload"]["$type"].rpartition("#")[2] for frame in read(client, 300)}
        assert kinds == {"commit", "identity", "account"}

    def test_a_kind_filter_selects(self, jetstream: Simulator) -> None:
        publish_resync(jetstream)
        (only,) = payloads(jetstream, "cursor=0&kinds=sync", 1)
        assert only["did"] == DID
        assert only["sync"]["rev"] == "3mptbypluud2a"

    def test_a_did_filter_selects(self, jetstream: Simulator) -> None:
        publish_resync(jetstream)
        assert {one["did"] for one in payloads(jetstream, f"cursor=0&dids={DID}", 4)} == {DID}

    def test_the_size_limit_applies_to_the_whole_frame(self, jetstream: Simulator) -> None:
        jetstream.generate(50)
        with subscribe(jetstream, "cursor=0") as client:
            sizes = [len(client.recv_data()[1]) for _ in range(50)]
        limit = sorted(sizes)[25]
        with subscribe(jetstream, f"cursor=0&maxMessageSizeBytes={limit}") as client:
            kept = [len(client.recv_data()[1]) for _ in [size for size in sizes if size <= limit]]
            assert receives_nothing(client)
        assert kept == [size for size in sizes if size <= limit]

    @pytest.mark.parametrize(
        "query",
        [
            "wantedCollections=app.bsky.feed.post",
            "wantedDids=did:plc:a",
            "requireHello=true",
            "compress=true",
            "kinds=novel",
            "kinds=sync&collections=app.bsky.feed.post",
            "collections=nonsense",
            "dids=nobody",
            "cursor=-5",
            "cursor=yesterday",
            "zstdDictionary=x",
        ],
    )
    def test_invalid_parameters_are_rejected(self, jetstream: Simulator, query: str) -> None:
        assert rejection(jetstream, query)["error"] == "InvalidRequest"


class TestCursors:
    def old(self) -> Simulator:
        """Return a server with fifty events of two hours ago, fifty of now, and an hour of lookback."""
        now = [time.time() - 2 * HOUR]
        simulator = Simulator(port=0, seed=1, server=ServerOptions(lookback=HOUR), clock=lambda: now[0])
        simulator.generate(50, span=1)
        now[0] += 2 * HOUR
        return simulator.generate(50, span=1)

    def test_a_sequence_number_below_the_floor_is_rejected(self) -> None:
        with self.old() as jetstream:
            answer = rejection(jetstream, "cursor=7")
            assert answer["error"] == "CursorTooOld"
            assert answer["message"].endswith("below lookback floor 51")
            assert payloads(jetstream, "cursor=51", 1)[0]["seq"] == 51

    def test_a_time_below_the_floor_is_clamped_with_a_notice(self) -> None:
        with self.old() as jetstream:
            info, first = payloads(jetstream, f"cursor={10**15}", 2)
            assert info["$type"].endswith("#info")
            assert info["name"] == "OutdatedCursor"
            assert first["seq"] == 51

    def test_no_cursor_is_too_old_while_all_events_are_retained(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        assert payloads(jetstream, f"cursor={10**15}", 1)[0]["seq"] == 1
        assert payloads(jetstream, "cursor=0", 1)[0]["seq"] == 1

    def test_dropped_events_are_below_the_floor(self) -> None:
        with Simulator(port=0, seed=1, server=ServerOptions(retain_bytes=100_000)) as jetstream:
            jetstream.generate(1000)
            assert rejection(jetstream, "cursor=1")["error"] == "CursorTooOld"


class TestCompression:
    def test_compressed_frames_equal_the_plain_ones(self, jetstream: Simulator) -> None:
        jetstream.generate(200)
        status, data = dictionary(jetstream)
        assert status == 200
        assert len(data) == 65_536
        content = zstandard.ZstdCompressionDict(data)
        assert content.dict_id() == jetstream.dictionary_id == 20260811
        decoder = zstandard.ZstdDecompressor(dict_data=content)
        plain = payloads(jetstream, "cursor=0", 200)
        with subscribe(jetstream, "cursor=0&zstdDictionary=20260811") as client:
            packed = [client.recv_data() for _ in range(200)]
        assert {opcode for opcode, _ in packed} == {BINARY}
        assert [orjson.loads(decoder.decompress(data))["payload"] for _, data in packed] == plain

    def test_a_replaced_dictionary_is_unknown(self, jetstream: Simulator) -> None:
        jetstream.rotate_dictionary()
        answer = rejection(jetstream, "zstdDictionary=20260811")
        assert answer["error"] == "UnknownZstdDictionary"
        assert answer["message"].endswith("20260812")
        assert dictionary(jetstream, "id=20260811")[0] == 404
        status, data = dictionary(jetstream, "id=20260812")
        assert (status, zstandard.ZstdCompressionDict(data).dict_id()) == (200, 20260812)


def test_a_client_that_sends_data_is_disconnected(jetstream: Simulator) -> None:
    with subscribe(jetstream) as client:
        client.send('{"type":"options_update","payload":{}}')
        assert end_of(client) == "1008 server push only"


def test_an_error_frame_is_the_last_frame(jetstream: Simulator) -> None:
    jetstream.generate(10)
    jetstream.faults.error("ConsumerTooSlow", "far behind", after=10)
    with subscribe(jetstream, "cursor=0") as client:
        assert read(client, 11)[-1] == {
            "$type": "error",
            "error": "ConsumerTooSlow",
            "message": "far behind",
        }
        assert end_of(client) == "1008 ConsumerTooSlow"


def test_an_info_frame_is_sent_between_events(jetstream: Simulator) -> None:
    jetstream.generate(10)
    jetstream.faults.info("Weather", "rain", after=5)
    frames = payloads(jetstream, "cursor=0", 11)
    assert frames[5] == {
        "$type": "network.bsky.jetstream.subscribeEvents#info",
        "message": "rain",
        "name": "Weather",
    }


@pytest.mark.parametrize("protocols", ["v1", "v2"])
def test_a_server_can_offer_one_protocol_only(protocols: str) -> None:
    with Simulator(port=0, seed=1, protocols=protocols) as jetstream:
        missing = protocol_v2.PATH if protocols == "v1" else "/subscribe"
        with pytest.raises(websocket.WebSocketBadStatusException) as caught:
            create_connection(jetstream.url + missing, timeout=5)
        assert caught.value.status_code == 404
        assert dictionary(jetstream)[0] == (404 if protocols == "v1" else 200)
    with pytest.raises(ValueError, match="v1, v2 or both"):
        Simulator(protocols="v3")


def test_a_restamped_resync_is_still_hidden_from_v1(jetstream: Simulator, tmp_path: Path) -> None:
    publish_resync(jetstream)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(jetstream.frames))
    with Simulator(port=0, seed=2) as other:
        other.load(path, restamp=True)
        with connect(other, "cursor=0") as client:
            for _ in range(10):
                client.recv_data()
            assert receives_nothing(client)
