"""Compressed frames of the v2 protocol: dictionaries, their absence, and zstd bombs. Real sockets."""

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
from slurp.events.frames import MAX_FRAME_BYTES, OVERSIZED_TYPE, BadFrame, parse
from slurp.jetstream import dialer as dialer_module
from slurp.jetstream import zstd_dictionary
from slurp.jetstream.subscription import Subscription
from slurp.jetstream.zstd_dictionary import Dictionary, NoDictionary, fetch_dictionary
from slurp.simulator.dictionaries import Dictionary as SimulatedDictionary
from slurp.simulator.jetstream import Simulator
from tests.harness import until
from tests.v2_reading import ZSTD, events, paths, published, reading


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
        assert "protocol v2 with zstd" in caplog.text
        assert run.batches[0].size == sum(map(len, run.batches[0].frames)), (
            "the queue counts decompressed bytes"
        )

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
        assert jetstream.connections[3].params == {"id": ["20260812"]}, "not the one a cache may still have"
        assert "zstd dictionary 20260812, fetched again" in caplog.text

    def test_auto_is_uncompressed_on_this_machine(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert "zstdDictionary" not in jetstream.connections[0].params

    def test_auto_is_compressed_from_another_machine(
        self, jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dialer_module, "_is_local", lambda server: False)
        jetstream.generate(10)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert jetstream.connections[-1].params["zstdDictionary"] == ["20260811"]

    def test_off_is_uncompressed(self, jetstream: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dialer_module, "_is_local", lambda server: False)
        jetstream.generate(10)
        with reading(jetstream, options=("--protocol", "v2", "--compress", "off")) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents"]

    @pytest.mark.parametrize(
        ("server", "is_local"),
        [
            ("ws://localhost:6008", True),
            ("ws://127.0.0.1:6008", True),
            ("ws://[::1]:6008", True),
            ("wss://jetstream.us-east.bsky.network", False),
            ("ws://10.0.0.7:6008", False),
        ],
    )
    def test_loopback_addresses_are_this_machine(self, server: str, is_local: bool) -> None:
        assert dialer_module._is_local(server) is is_local

    def test_without_a_dictionary_the_stream_is_uncompressed(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(zstd_dictionary, "PATH", "/nowhere")
        jetstream.generate(10)
        with reading(jetstream, options=ZSTD) as run:
            until(lambda: len(run.frames) == 10)
        assert "no zstd dictionary: HTTP 404, reading plain frames" in caplog.text

    def test_the_absence_of_a_dictionary_is_remembered(
        self, jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(zstd_dictionary, "PATH", "/nowhere")
        jetstream.generate(10)
        jetstream.faults.cut_after(5)
        with reading(jetstream, options=ZSTD) as run:
            until(lambda: run.frames and events(run)[-1] == published(jetstream)[-1])
        assert paths(jetstream) == ["nowhere", "subscribeEvents", "subscribeEvents"]

    @pytest.mark.parametrize("status", [403, 429, 500, 503])
    def test_a_failed_fetch_of_a_dictionary_is_retried_by_the_next_connection(
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

    def test_a_404_for_every_request_is_not_remembered_for_the_dictionary(
        self, jetstream: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(404, "<html>no backend</html>")
        options = ("--protocol", "v2", "--compress", "on")
        with first_fetch_answered(404, monkeypatch), reading(jetstream, options=options) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents", "getZstdDictionary", "subscribeEvents"]
        assert jetstream.connections[-1].params["zstdDictionary"] == ["20260811"]

    def test_a_host_that_was_unreachable_at_first_is_read_with_zstd(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        dialer = dialer_module.Dialer(options([*ZSTD], {}), Subscription("i"))
        with pytest.raises(OSError, match="refused"):
            dialer.connect(f"ws://127.0.0.1:{port}", None)
        with Simulator(port=port, seed=1) as jetstream:
            stream = dialer.connect(jetstream.url, None)
            stream.connection.shutdown()
        assert stream.name == "v2 with zstd"

    @pytest.mark.parametrize("protocol", ["auto", "v1"])
    def test_on_warns_that_v1_is_uncompressed(self, caplog: pytest.LogCaptureFixture, protocol: str) -> None:
        with Simulator(port=0, seed=1, protocols="v1") as jetstream:
            jetstream.generate(10)
            with reading(jetstream, options=("--protocol", protocol, "--compress", "on")) as run:
                until(lambda: len(run.frames) == 10)
        assert "is read with v1, which is not compressed" in caplog.text


@contextmanager
def first_fetch_answered(status: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer the first fetch of a dictionary with `status`, like a gateway; later ones reach the server."""

    class Gateway(_Handler):
        def do_GET(self) -> None:
            self.send_error(status)

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hosts = [f"ws://127.0.0.1:{server.server_port}"]
        monkeypatch.setattr(
            dialer_module,
            "fetch_dictionary",
            lambda host, id, ca: fetch_dictionary(hosts.pop() if hosts else host, id, ca),
        )
        yield
        server.shutdown()


class Bombs:
    """Compressors for frames that are small on the protocol and large when decompressed."""

    def __init__(self) -> None:
        self.dictionary = SimulatedDictionary(20260811)
        content = zstandard.ZstdCompressionDict(self.dictionary.data, dict_type=zstandard.DICT_TYPE_FULLDICT)
        self.sized = zstandard.ZstdCompressor(dict_data=content)
        self.unsized = zstandard.ZstdCompressor(dict_data=content, write_content_size=False)


@pytest.fixture(scope="module")
def bombs() -> Bombs:
    return Bombs()


class TestBombs:
    def test_a_frame_that_exceeds_the_limit_is_replaced(self, bombs: Bombs) -> None:
        dictionary = Dictionary(bombs.dictionary.data)
        for compressor in (bombs.sized, bombs.unsized):
            assert (
                dictionary.decompress(compressor.compress(b"x" * MAX_FRAME_BYTES)) == b"x" * MAX_FRAME_BYTES
            )
            kept = orjson.loads(dictionary.decompress(compressor.compress(b"x" * (MAX_FRAME_BYTES + 1))))
            assert kept["$type"] == OVERSIZED_TYPE
            assert kept["decompressed"] == (MAX_FRAME_BYTES + 1 if compressor is bombs.sized else None)

    def test_a_wrong_declared_size_does_not_exceed_the_limit(self, bombs: Bombs) -> None:
        correct = bombs.sized.compress(b"x" * 3_000_000)
        at = correct.index((3_000_000).to_bytes(4, "little"))
        for claimed in (2**31, 5, 2_999_999, 3_000_001):
            wrong = correct[:at] + claimed.to_bytes(4, "little") + correct[at + 4 :]
            decompressed = Dictionary(bombs.dictionary.data).decompress(wrong)
            assert decompressed == wrong or orjson.loads(decompressed)["decompressed"] == 2**31

    def test_a_window_beyond_the_limit_is_not_allocated(self, bombs: Bombs) -> None:
        window = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
        packed = zstandard.ZstdCompressor(compression_params=window).compressobj()
        frame = packed.compress(b"x" * 1000) + packed.flush()
        assert zstandard.get_frame_parameters(frame).window_size > 100_000_000
        assert Dictionary(bombs.dictionary.data).decompress(frame) == frame

    def test_a_damaged_frame_is_returned_unchanged(self, bombs: Bombs) -> None:
        dictionary, good = Dictionary(bombs.dictionary.data), bombs.dictionary.compress(b'{"a":1}' * 100)
        for bad in (good[:-3], good[:5], b"\x28\xb5\x2f\xfd", good[:20] + b"\xff\xff" + good[22:], b"", b"{"):
            decompressed = dictionary.decompress(bad)
            assert decompressed == bad or len(decompressed) == 700
            with pytest.raises(BadFrame):
                parse(decompressed)

    def test_bombs_become_dead_letters_and_the_stream_continues(
        self, jetstream: Simulator, bombs: Bombs
    ) -> None:
        jetstream.generate(1000)
        bomb = bombs.sized.compress(b"[" * 500_000_000)
        assert len(bomb) < 60_000
        jetstream.faults.garbage(
            bomb, bombs.unsized.compress(b" " * 100_000_000), b"\x28\xb5\x2f\xfd!", after=5
        )
        with reading(jetstream, options=ZSTD) as run:
            until(lambda: len(run.frames) == 1003)
        assert max(map(len, run.frames)) < 100_000
        kept = orjson.loads(run.frames[5])
        assert kept["decompressed"] == 500_000_000
        assert kept["received"] == len(bomb)
        with pytest.raises(BadFrame, match=r"more than 33,554,432 bytes when decompressed"):
            parse(run.frames[5])
        assert orjson.loads(run.frames[6])["decompressed"] is None
        assert run.frames[7] == b"\x28\xb5\x2f\xfd!"

    def test_a_batch_of_large_frames_is_closed_early(self, jetstream: Simulator, bombs: Bombs) -> None:
        frames = [bombs.sized.compress(b"%d" % n + b" " * 3_000_000) for n in range(10)]
        jetstream.faults.garbage(*frames)
        with reading(jetstream, options=(*ZSTD, "--flush", "30s")) as run:
            until(lambda: len(run.frames) == 10)
        assert [len(batch.frames) for batch in run.batches] == [2] * 5


class _Handler(http.server.BaseHTTPRequestHandler):
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
        (b"<html>welcome</html>", "is not a zstd dictionary"),
        (b"", "is not a zstd dictionary"),
        (b"\x37\xa4\x30\xec" + b"\x07\0\0\0" + b"nonsense" * 100, "is damaged"),
        (b"\x37\xa4\x30\xec" + bytes(5_000_000), "more than 2,000,000 bytes"),
    ],
)
def test_an_invalid_dictionary_is_rejected(body: bytes, reason: str) -> None:
    handler = type("Handler", (_Handler,), {"body": body})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(NoDictionary, match=reason):
            fetch_dictionary(f"ws://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_slow_download_of_a_dictionary_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd_dictionary, "_DEADLINE", 0.5)
    stopped = threading.Event()

    class Trickle(_Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not stopped.wait(0.05):
                    self.wfile.write(b"x")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(NoDictionary, match="within"):
            fetch_dictionary(f"ws://127.0.0.1:{server.server_port}")
        stopped.set()
        server.shutdown()


def test_an_unreachable_server_gives_no_dictionary() -> None:
    with pytest.raises(NoDictionary, match="ConnectionError"):
        fetch_dictionary("ws://127.0.0.1:1")
