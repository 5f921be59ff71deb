"""The reader on the v2 wire: what it takes, what it falls back to, what it refuses. Real sockets."""

from __future__ import annotations

import contextlib
import http.server
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
import zstandard

from slurp.config import parse as options
from slurp.events.frames import MAX_FRAME, STUB, BadFrame, parse
from slurp.jetstream import dialer as dialing
from slurp.jetstream import zstd_dictionary as dictionaries
from slurp.jetstream.servers import probe
from slurp.jetstream.subscription import Subscription
from slurp.jetstream.zstd_dictionary import Dictionary, NoDictionary, fetch
from slurp.simulator import wire2
from slurp.simulator.connection import Manners
from slurp.simulator.dictionaries import Dictionary as TheirDictionary
from slurp.simulator.jetstream import Simulator
from tests.harness import Reading, until
from tests.test_simulator_v2 import publish_resync


@contextmanager
def reading(
    *servers: Simulator, start: int | None = 0, options: tuple[str, ...] = ("--protocol", "auto")
) -> Iterator[Reading]:
    running = Reading([server.url for server in servers], start, *options)
    try:
        yield running
    finally:
        running.end()


def events(run: Reading) -> list[dict[str, Any]]:
    return [parse(frame) for frame in run.frames]


def published(jetstream: Simulator) -> list[dict[str, Any]]:
    return [orjson.loads(frame) for frame in jetstream.frames]


def paths(jetstream: Simulator) -> list[str]:
    return [record.path.rpartition(".")[2].strip("/") for record in jetstream.connections]


ZSTD = ("--protocol", "auto", "--compress", "on")


class TestWhichWire:
    def test_auto_takes_v2(self, jetstream: Simulator, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        jetstream.generate(1000)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 1000)
        assert events(run) == published(jetstream)
        assert paths(jetstream) == ["subscribeEvents"]
        assert "reading from cursor 0, v2 wire" in caplog.text

    def test_auto_falls_back_to_v1_and_remembers(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        with Simulator(port=0, seed=1, protocols="v1") as jetstream:
            jetstream.generate(1000)
            jetstream.faults.cut_after(500)
            with reading(jetstream) as run:
                until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
            assert paths(jetstream) == ["subscribeEvents", "subscribe", "subscribe"]
            assert set(run.frames) == set(jetstream.frames)
        assert caplog.text.count("has no v2 wire (HTTP 404), reading v1") == 1

    @pytest.mark.parametrize("status", [403, 405, 426, 501])
    def test_what_else_means_that_there_is_no_v2(self, jetstream: Simulator, status: int) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(status)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents", "subscribe"]

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_server_in_trouble_is_asked_for_v2_again(self, jetstream: Simulator, status: int) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(status)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents", "subscribeEvents"]

    @pytest.mark.parametrize("page", ["<html>400 Bad Request</html>", '{"message": "InvalidRequest"}', ""])
    def test_a_400_that_is_not_the_servers_is_read_by_v1_and_forgotten(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture, page: str
    ) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(400, page)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
            jetstream.faults.cut_after()
            until(lambda: len(jetstream.connections) == 3)
        assert paths(jetstream) == ["subscribeEvents", "subscribe", "subscribeEvents"]
        assert "refuses the v2 wire (HTTP 400" in caplog.text

    def test_a_404_of_a_gateway_before_a_host_that_is_down_is_forgotten(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(404, "<html>", times=2)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents", "subscribe", "subscribeEvents"]

    def test_v2_alone_never_falls_back(self) -> None:
        with Simulator(port=0, seed=1, protocols="v1") as jetstream:
            with reading(jetstream, options=("--protocol", "v2")):
                until(lambda: len(jetstream.connections) == 2)
            assert set(paths(jetstream)) == {"subscribeEvents"}

    def test_v1_alone_never_asks(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        with reading(jetstream, options=("--protocol", "v1")) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribe"]

    @pytest.mark.parametrize(("protocol", "path"), [("auto", "subscribe"), ("v2", "subscribeEvents")])
    def test_many_dids_need_v1_or_a_long_url(self, jetstream: Simulator, protocol: str, path: str) -> None:
        jetstream.generate(2000)
        wanted = sorted({event["did"] for event in published(jetstream)})[:500]
        dids = ("--protocol", protocol, "--dids", ",".join(wanted))
        with reading(jetstream, options=dids) as run:
            expected = [event for event in published(jetstream) if event["did"] in wanted]
            until(lambda: len(run.frames) == len(expected))
        assert events(run) == expected
        assert paths(jetstream) == [path]

    def test_filters_are_those_of_v2(self, jetstream: Simulator) -> None:
        jetstream.generate(2000)
        filters = ("--protocol", "v2", "--collections", "app.bsky.graph.*,app.bsky.feed.post")
        with reading(jetstream, options=filters) as run:
            until(lambda: run.frames)
        assert jetstream.connections[0].params["collections"] == ["app.bsky.feed.post", "app.bsky.graph.*"]

    def test_a_server_of_v2_alone_is_reachable(self) -> None:
        with Simulator(port=0, seed=1, protocols="v2") as jetstream:
            (one,) = probe([jetstream.url])
        assert (len(one.times), one.v2) == (3, True)

    def test_the_url_of_the_endpoint_is_the_server(self) -> None:
        path = "/xrpc/network.bsky.jetstream.subscribeEvents"
        assert options(["--jetstream", f"wss://a.example{path}"], {}).jetstream == ("wss://a.example",)


class TestCursors:
    def test_a_resume_changes_wires_with_one_sequence(self, jetstream: Simulator) -> None:
        jetstream.generate(10_000)
        with reading(jetstream, options=("--protocol", "v1")) as run:
            until(lambda: len(run.frames) == 10_000)
            known = run.batches[-1].position
        assert known is not None
        with reading(jetstream, start=known.cursor) as run:
            until(lambda: run.frames)
        assert events(run) == published(jetstream)[-1:]

    @pytest.mark.parametrize("compress", ["on", "off"])
    def test_too_old_a_cursor_is_a_gap_and_goes_on_at_the_floor(
        self, caplog: pytest.LogCaptureFixture, compress: str
    ) -> None:
        with Simulator(port=0, seed=1, retain_bytes=300_000) as jetstream:
            jetstream.generate(2000)
            with reading(jetstream, start=7, options=(*ZSTD[:3], compress)) as run:
                until(lambda: run.frames and events(run)[-1] == published(jetstream)[-1])
            assert events(run) == published(jetstream)
        floor = events(run)[0]["cursor"]
        assert f"no longer has what came after cursor 7, reading from its floor, {floor}" in caplog.text
        assert "WARNING" in caplog.text

    def test_a_rewind_below_the_floor_is_no_gap(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        with Simulator(port=0, seed=1, retain_bytes=1_000_000) as jetstream:
            jetstream.generate(5000)
            floor = published(jetstream)[0]["cursor"]
            known = published(jetstream)[10]["cursor"]
            dialer = dialing.Dialer(options([], {}), Subscription("i"))
            line = dialer.connect(jetstream.url, 1, known)
            line.connection.shutdown()
        assert line.cursor == floor
        assert f"goes back to cursor {floor}, which is enough" in caplog.text
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_a_floor_that_is_not_told_is_asked_for_by_time(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(400, wire2.refusal("CursorTooOld", "sorry"))
        with reading(jetstream, start=7) as run:
            until(lambda: len(run.frames) == 10)
        assert [record.cursor for record in jetstream.connections] == [None, 10**15]

    def test_a_server_that_always_says_too_old_is_left_in_the_end(self, jetstream: Simulator) -> None:
        jetstream.faults.refuse(400, wire2.refusal("CursorTooOld", "floor 9"), times=4)
        jetstream.generate(10)
        with reading(jetstream, start=7, options=("--protocol", "v2")) as run:
            until(lambda: run.frames)
        assert len(jetstream.connections) == 5

    def test_a_time_below_the_floor_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        manners = Manners(lookback=3600)
        with Simulator(port=0, seed=1, retain_bytes=300_000, manners=manners) as jetstream:
            jetstream.generate(2000)
            with reading(jetstream, start=10**15) as run:
                until(lambda: run.frames and events(run)[-1] == published(jetstream)[-1])
            assert events(run) == published(jetstream)
        assert "says: OutdatedCursor: cursor below the lookback floor" in caplog.text
        assert run.counters.snapshot().received == len(jetstream.frames), "a notice is no event"


class TestNotices:
    @pytest.mark.parametrize("compress", ["on", "off"])
    def test_an_error_ends_the_stream_with_its_name(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture, compress: str
    ) -> None:
        jetstream.generate(1000)
        jetstream.faults.error("ConsumerTooSlow", "far behind", after=700)
        with reading(jetstream, options=(*ZSTD[:3], compress)) as run:
            until(lambda: len({*run.frames}) == 1000)
        assert "ConsumerTooSlow: far behind; reconnecting" in caplog.text
        assert jetstream.connections[-1].cursor == 0, "rewound, as after any disorder"

    def test_an_error_alone_ends_it_too(self, jetstream: Simulator, caplog: pytest.LogCaptureFixture) -> None:
        jetstream.faults.garbage(wire2.error("InternalError", "disk").decode())
        with reading(jetstream):
            until(lambda: len(jetstream.connections) == 2)
        assert "InternalError: disk; reconnecting" in caplog.text

    def test_an_info_is_logged(self, jetstream: Simulator, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        jetstream.generate(10)
        jetstream.faults.info("Weather", "rain", after=5)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        (record,) = [record for record in caplog.records if "Weather: rain" in record.message]
        assert record.levelname == "INFO"


class TestResyncs:
    def test_batches_know_what_is_announced_again(self, jetstream: Simulator) -> None:
        publish_resync(jetstream)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 14)
        assert dict(run.batches[-1].announced) == {("did:plc:resynced", "3mptbypluud2a"): 6}

    def test_the_place_to_go_on_waits_at_the_sync(self, jetstream: Simulator) -> None:
        publish_resync(jetstream, rows=900)
        with reading(jetstream, options=("--protocol", "v2", "--batch", "100")) as run:
            until(lambda: len(run.frames) == 911)
        for batch in run.batches:
            last = parse(batch.frames[-1])["cursor"]
            assert batch.position is not None
            assert batch.position.cursor == (6 if 6 <= last <= 906 else last)
        assert len(run.batches) >= 10


class TestCompression:
    def test_frames_are_read_with_the_servers_dictionary(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        jetstream.generate(1000)
        jetstream.faults.cut_after(500)
        with reading(jetstream, options=ZSTD) as run:
            until(lambda: run.frames and events(run)[-1] == published(jetstream)[-1])
        assert {*map(repr, events(run))} == {*map(repr, published(jetstream))}
        assert paths(jetstream) == ["getZstdDictionary", "subscribeEvents", "subscribeEvents"]
        assert jetstream.connections[-1].params["zstdDictionary"] == ["20260811"]
        assert "v2 with zstd wire" in caplog.text
        assert run.batches[0].size == sum(map(len, run.batches[0].frames)), "the buffer counts what it holds"

    def test_a_stale_dictionary_is_fetched_again(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        jetstream.generate(1000)
        with reading(jetstream, options=ZSTD) as run:
            until(lambda: len(run.frames) == 1000)
            jetstream.rotate_dictionary()
            jetstream.faults.cut_after()
            until(lambda: len(jetstream.connections) == 5)
            jetstream.generate(10)
            until(lambda: events(run)[-1] == published(jetstream)[-1])
        assert paths(jetstream)[2:] == ["subscribeEvents", "getZstdDictionary", "subscribeEvents"]
        assert jetstream.connections[3].params == {"id": ["20260812"]}, "not what a cache still has"
        assert "zstd dictionary 20260812, fetched again" in caplog.text

    def test_auto_is_plain_on_this_machine(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert "zstdDictionary" not in jetstream.connections[0].params

    def test_auto_is_zstd_from_elsewhere(self, jetstream: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dialing, "_is_near", lambda server: False)
        jetstream.generate(10)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert jetstream.connections[-1].params["zstdDictionary"] == ["20260811"]

    def test_off_is_off(self, jetstream: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dialing, "_is_near", lambda server: False)
        jetstream.generate(10)
        with reading(jetstream, options=("--protocol", "v2", "--compress", "off")) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents"]

    @pytest.mark.parametrize(
        ("server", "near"),
        [
            ("ws://localhost:6008", True),
            ("ws://127.0.0.1:6008", True),
            ("ws://[::1]:6008", True),
            ("wss://jetstream.us-east.bsky.network", False),
            ("ws://10.0.0.7:6008", False),
        ],
    )
    def test_what_is_this_machine(self, server: str, near: bool) -> None:
        assert dialing._is_near(server) is near

    def test_without_a_dictionary_the_stream_is_plain(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dictionaries, "PATH", "/nowhere")
        jetstream.generate(10)
        with reading(jetstream, options=ZSTD) as run:
            until(lambda: len(run.frames) == 10)
        assert "no zstd dictionary: HTTP 404, reading plain frames" in caplog.text

    def test_a_host_without_a_dictionary_is_not_asked_again(
        self, jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dictionaries, "PATH", "/nowhere")
        jetstream.generate(10)
        jetstream.faults.cut_after(5)
        with reading(jetstream, options=ZSTD) as run:
            until(lambda: run.frames and events(run)[-1] == published(jetstream)[-1])
        assert paths(jetstream) == ["nowhere", "subscribeEvents", "subscribeEvents"]

    @pytest.mark.parametrize("status", [403, 429, 500, 503])
    def test_a_dictionary_that_cannot_be_fetched_now_is_asked_for_by_the_next_connection(
        self,
        jetstream: Simulator,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        status: int,
    ) -> None:
        caplog.set_level(logging.INFO)
        jetstream.generate(10)
        jetstream.faults.cut_after(5)
        with first_fetch_answered(status, monkeypatch), reading(jetstream, options=ZSTD) as run:
            until(lambda: run.frames and events(run)[-1] == published(jetstream)[-1])
        assert paths(jetstream) == ["subscribeEvents", "getZstdDictionary", "subscribeEvents"]
        assert f"HTTP {status}, reading plain frames until the next connection" in caplog.text
        assert jetstream.connections[-1].params["zstdDictionary"] == ["20260811"]

    def test_a_404_for_everything_says_nothing_of_dictionaries(
        self, jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(404, "<html>no backend</html>")
        options = ("--protocol", "v2", "--compress", "on")
        with first_fetch_answered(404, monkeypatch), reading(jetstream, options=options) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents", "getZstdDictionary", "subscribeEvents"]
        assert jetstream.connections[-1].params["zstdDictionary"] == ["20260811"]

    def test_a_host_that_was_down_at_first_contact_is_read_with_zstd(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        dialer = dialing.Dialer(options([*ZSTD], {}), Subscription("i"))
        with pytest.raises(OSError, match="refused"):
            dialer.connect(f"ws://127.0.0.1:{port}", None)
        with Simulator(port=port, seed=1) as jetstream:
            line = dialer.connect(jetstream.url, None)
            line.connection.shutdown()
        assert line.name == "v2 with zstd"

    @pytest.mark.parametrize("protocol", ["auto", "v1"])
    def test_on_says_that_v1_is_plain(self, caplog: pytest.LogCaptureFixture, protocol: str) -> None:
        with Simulator(port=0, seed=1, protocols="v1") as jetstream:
            jetstream.generate(10)
            with reading(jetstream, options=("--protocol", protocol, "--compress", "on")) as run:
                until(lambda: len(run.frames) == 10)
        assert "read by the v1 wire, which is plain" in caplog.text


@contextmanager
def first_fetch_answered(status: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A gateway that answers `status` to whoever asks first for a dictionary."""

    class Gateway(_Answer):
        def do_GET(self) -> None:
            self.send_error(status)

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hosts = [f"ws://127.0.0.1:{server.server_port}"]
        monkeypatch.setattr(
            dialing, "fetch", lambda host, id, ca: fetch(hosts.pop() if hosts else host, id, ca)
        )
        yield
        server.shutdown()


class Bombs:
    """Frames that are small on the wire."""

    def __init__(self) -> None:
        self.theirs = TheirDictionary(20260811)
        content = zstandard.ZstdCompressionDict(self.theirs.data, dict_type=zstandard.DICT_TYPE_FULLDICT)
        self.told = zstandard.ZstdCompressor(dict_data=content)
        self.untold = zstandard.ZstdCompressor(dict_data=content, write_content_size=False)


@pytest.fixture(scope="module")
def bombs() -> Bombs:
    return Bombs()


class TestBombs:
    def test_no_frame_grows_beyond_the_limit(self, bombs: Bombs) -> None:
        ours = Dictionary(bombs.theirs.data)
        for told in (bombs.told, bombs.untold):
            assert ours.unpack(told.compress(b"x" * MAX_FRAME)) == b"x" * MAX_FRAME
            stub = orjson.loads(ours.unpack(told.compress(b"x" * (MAX_FRAME + 1))))
            assert stub["$type"] == STUB
            assert stub["decompressed"] == (MAX_FRAME + 1 if told is bombs.told else None)

    def test_a_lie_about_the_size_allocates_nothing(self, bombs: Bombs) -> None:
        honest = bombs.told.compress(b"x" * 3_000_000)
        at = honest.index((3_000_000).to_bytes(4, "little"))
        for claimed in (2**31, 5, 2_999_999, 3_000_001):
            lie = honest[:at] + claimed.to_bytes(4, "little") + honest[at + 4 :]
            unpacked = Dictionary(bombs.theirs.data).unpack(lie)
            assert unpacked == lie or orjson.loads(unpacked)["decompressed"] == 2**31

    def test_a_window_of_a_gigabyte_is_not_opened(self, bombs: Bombs) -> None:
        window = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
        packed = zstandard.ZstdCompressor(compression_params=window).compressobj()
        frame = packed.compress(b"x" * 1000) + packed.flush()
        assert zstandard.get_frame_parameters(frame).window_size > 100_000_000
        assert Dictionary(bombs.theirs.data).unpack(frame) == frame

    def test_what_is_damaged_stays_as_it_is(self, bombs: Bombs) -> None:
        ours, good = Dictionary(bombs.theirs.data), bombs.theirs.compress(b'{"a":1}' * 100)
        for bad in (good[:-3], good[:5], b"\x28\xb5\x2f\xfd", good[:20] + b"\xff\xff" + good[22:], b"", b"{"):
            unpacked = ours.unpack(bad)
            assert unpacked == bad or len(unpacked) == 700
            with pytest.raises(BadFrame):
                parse(unpacked)

    def test_they_become_dead_letters_and_the_stream_goes_on(
        self, jetstream: Simulator, bombs: Bombs
    ) -> None:
        jetstream.generate(1000)
        bomb = bombs.told.compress(b"[" * 500_000_000)
        assert len(bomb) < 60_000
        jetstream.faults.garbage(
            bomb, bombs.untold.compress(b" " * 100_000_000), b"\x28\xb5\x2f\xfd!", after=5
        )
        with reading(jetstream, options=ZSTD) as run:
            until(lambda: len(run.frames) == 1003)
        assert max(map(len, run.frames)) < 100_000
        stub = orjson.loads(run.frames[5])
        assert stub["decompressed"] == 500_000_000
        assert stub["received"] == len(bomb)
        with pytest.raises(BadFrame, match=r"more than 33,554,432 bytes when decompressed"):
            parse(run.frames[5])
        assert orjson.loads(run.frames[6])["decompressed"] is None
        assert run.frames[7] == b"\x28\xb5\x2f\xfd!"

    def test_a_batch_of_large_frames_is_closed_early(self, jetstream: Simulator, bombs: Bombs) -> None:
        frames = [bombs.told.compress(b"%d" % n + b" " * 3_000_000) for n in range(10)]
        jetstream.faults.garbage(*frames)
        with reading(jetstream, options=(*ZSTD, "--flush", "30s")) as run:
            until(lambda: len(run.frames) == 10)
        assert [len(batch.frames) for batch in run.batches] == [2] * 5


class _Answer(http.server.BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>welcome</html>", "is no zstd dictionary"),
        (b"", "is no zstd dictionary"),
        (b"\x37\xa4\x30\xec" + b"\x07\0\0\0" + b"nonsense" * 100, "is damaged"),
        (b"\x37\xa4\x30\xec" + bytes(5_000_000), "more than 2,000,000 bytes"),
    ],
)
def test_what_is_no_dictionary_is_refused(body: bytes, reason: str) -> None:
    handler = type("Handler", (_Answer,), {"body": body})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(NoDictionary, match=reason):
            fetch(f"ws://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_dictionary_that_trickles_in_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionaries, "_DEADLINE", 0.5)
    over = threading.Event()

    class Trickle(_Answer):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not over.wait(0.05):
                    self.wfile.write(b"x")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(NoDictionary, match="within"):
            fetch(f"ws://127.0.0.1:{server.server_port}")
        over.set()
        server.shutdown()


def test_a_server_that_is_not_there_has_no_dictionary() -> None:
    with pytest.raises(NoDictionary, match="ConnectionError"):
        fetch("ws://127.0.0.1:1")
