"""WebSocket data from a server: parsed within bounded memory, for frames of any declared length."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import orjson
import psutil
import pytest
from elasticsearch import Elasticsearch
from hypothesis import given
from hypothesis import strategies as st
from websocket import (
    ABNF,
    WebSocketException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)
from websockets.frames import Opcode

from slurp.embedded.node import EmbeddedNode
from slurp.events.frames import MAX_FRAME_BYTES, OVERSIZED_TYPE, BadFrame, parse
from slurp.jetstream.connection import Connection, close_connection, connect
from slurp.jetstream.message_parser import MessageParser
from slurp.jetstream.servers import probe_servers
from slurp.simulator.jetstream import Simulator
from tests.harness import InProcess, commit, reading, until
from tests.hostile_server import Hostile, frame, head_of, text
from tests.tiers import slow_except
from tests.worker import Worker, documents, expected

# Memory for the largest message that is kept: it is buffered, joined and returned.
BOUND = 4 * MAX_FRAME_BYTES
PIECE = b"x" * 65_536


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def read(pieces: Iterable[bytes]) -> list[tuple[int, bytes]]:
    parser = MessageParser()
    found: list[tuple[int, bytes]] = []
    for piece in pieces:
        parser.feed(piece)
        found += parser.next_messages()
    assert all(isinstance(data, bytes) for _, data in found)
    return found


def cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@given(
    st.lists(
        st.tuples(st.integers(0, 70_000), st.integers(1, 4), st.booleans()).map(
            lambda drawn: (bytes(drawn[0]), drawn[1], drawn[2])
        ),
        max_size=4,
    ),
    st.lists(st.integers(1, 40_000), max_size=12),
)
def test_parsed_messages_equal_those_sent(sent: list[tuple[bytes, int, bool]], sizes: list[int]) -> None:
    stream, wanted = b"", []
    for payload, parts, has_ping in sent:
        step = -(-len(payload) // parts) or 1
        chunks = [payload[at : at + step] for at in range(0, len(payload), step)] or [b""]
        for number, chunk in enumerate(chunks):
            stream += frame(Opcode.CONT if number else Opcode.TEXT, chunk, last=number == len(chunks) - 1)
            if has_ping and number == 0:
                stream += frame(Opcode.PING, b"p")
                wanted.append((int(Opcode.PING), b"p"))
        # A ping between fragments is returned before their message, one behind a complete message after it.
        wanted.insert(len(wanted) - (has_ping and len(chunks) == 1), (int(Opcode.TEXT), payload))
    assert read(cut(stream, sizes)) == wanted


def test_a_message_of_the_limit_is_kept_and_one_byte_more_is_replaced() -> None:
    largest = b"x" * MAX_FRAME_BYTES
    assert read([text(largest)]) == [(ABNF.OPCODE_TEXT, largest)]
    ((opcode, data),) = read([frame(Opcode.BINARY, largest + b"x")])
    assert opcode == ABNF.OPCODE_BINARY
    assert orjson.loads(data) == {
        "$type": OVERSIZED_TYPE,
        "received": MAX_FRAME_BYTES + 1,
        "blake2b": digest(largest + b"x"),
    }
    with pytest.raises(BadFrame, match=r"^more than 33,554,432 bytes; only size and hash are kept$"):
        parse(data)


def test_fragments_are_limited_together_and_pings_between_them_are_kept() -> None:
    part = b"y" * 12_000_000
    stream = (
        frame(Opcode.TEXT, part, last=False)
        + frame(Opcode.CONT, part, last=False)
        + frame(Opcode.PING, b"1")
        + frame(Opcode.CONT, part, last=False)
        + frame(Opcode.PING, b"2")
        + frame(Opcode.CONT, b"", last=True)
        + text(b"next")
    )
    first, second, large, after = read(cut(stream, [65_536] * 600))
    assert (first, second) == ((ABNF.OPCODE_PING, b"1"), (ABNF.OPCODE_PING, b"2"))
    assert orjson.loads(large[1])["received"] == 36_000_000
    assert orjson.loads(large[1])["blake2b"] == digest(part * 3)
    assert after == (ABNF.OPCODE_TEXT, b"next")


def one_frame() -> Iterator[bytes]:
    yield head_of(Opcode.TEXT, 2**62)
    while True:
        yield PIECE


def fragments(size: int) -> Iterator[bytes]:
    yield frame(Opcode.TEXT, b"x", last=False)
    some = frame(Opcode.CONT, b"x" * size, last=False)
    while True:
        yield some * (65_536 // len(some) or 1)


ENDLESS = {"one frame": one_frame, "large fragments": lambda: fragments(100_000)} | {
    f"fragments of {size}": lambda size=size: fragments(size) for size in (0, 1)
}


@pytest.mark.parametrize("kind", slow_except(ENDLESS, "one frame", "large fragments"))
def test_an_endless_message_needs_bounded_memory(kind: str) -> None:
    parser, fed = MessageParser(), 0
    tracemalloc.start()
    try:
        for piece in ENDLESS[kind]():
            parser.feed(piece)
            assert not parser.next_messages()
            fed += len(piece)
            if fed > (100_000_000 if kind in ("one frame", "large fragments") else 1_000_000):
                break
        assert tracemalloc.get_traced_memory()[1] < BOUND
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "bad",
    [
        b"\x81\x80\0\0\0\0",  # masked
        b"\xc1\x01x",  # compressed, which was not negotiated
        b"\x83\x01x",
        frame(Opcode.CONT, b"x"),
        frame(Opcode.TEXT, b"x", last=False) + text(b"y"),
        b"\x89\x7e\x00\x7f" + bytes(127),  # a ping of 127 bytes
        b"\x09\x00",  # a ping in fragments
        b"\x88\x01x",  # half a close code
    ],
)
def test_invalid_websocket_data_is_rejected(bad: bytes) -> None:
    with pytest.raises(WebSocketProtocolException):
        read([bad])


def test_a_server_that_never_completes_a_frame_is_stalled_and_the_reader_can_stop(
    jetstream: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    def trickle(sock: socket.socket) -> None:
        sock.sendall(head_of(Opcode.TEXT, 2**62))
        while True:
            sock.sendall(b"x")
            time.sleep(0.01)

    options = ("--stall-timeout", "500ms", "--protocol", "v1")
    jetstream.generate(50)
    with Hostile(trickle) as hostile:
        with reading(hostile.url, options=options) as run:
            until(lambda: run.reader.connected)
            run.stop.set()
            run.threads[0].join(5)
            assert not run.threads[0].is_alive()
        with reading(hostile.url, jetstream, options=options) as run:
            until(lambda: len(run.frames) == 50, timeout=30)
    assert "no data for 0." in caplog.text


def test_messages_before_invalid_data_are_returned_first() -> None:
    parser = MessageParser()
    parser.feed(text(b"1") + text(b"2") + frame(Opcode.PING, b"p" * 125) + bytes([0xF1, 0]))
    kinds = [ABNF.OPCODE_TEXT, ABNF.OPCODE_TEXT, ABNF.OPCODE_PING]
    assert [opcode for opcode, _ in parser.next_messages()] == kinds
    for _ in range(2):
        with pytest.raises(WebSocketProtocolException, match="extension"):
            parser.next_messages()


@pytest.mark.parametrize("failure", [WebSocketTimeoutException("full"), BrokenPipeError(32, "Broken pipe")])
def test_a_failed_pong_ends_the_connection_after_all_messages_are_returned(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(text(b"1") + frame(Opcode.PING, b"p") + text(b"2"))

    def fail(self: Connection, payload: bytes) -> None:
        raise failure

    # A test cannot fill the send buffer: pongs are small, and the kernel's buffers large.
    monkeypatch.setattr(Connection, "pong", fail)
    with Hostile(talk) as hostile:
        connection = connect(hostile.url, timeout=5)
        received = connection.receive()
        while len(received) < 2:
            received += connection.receive()
        assert received == [(ABNF.OPCODE_TEXT, b"1"), (ABNF.OPCODE_TEXT, b"2")]
        # Not a time-out, which would count as silence.
        with pytest.raises(WebSocketException, match="cannot send a pong") as caught:
            connection.receive()
        assert not isinstance(caught.value, WebSocketTimeoutException)
        close_connection(connection)


# The handshake response


def test_a_cookie_of_one_server_is_not_sent_to_another() -> None:
    cookie = b'HTTP/1.1 503 No\r\nSet-Cookie: a="x\\015\\012X-Injected: 1"; domain=127.0.0.1\r\n\r\n'
    with Hostile(answer=cookie) as first, Hostile() as second:
        with pytest.raises(WebSocketException):
            connect(first.url, timeout=5)
        close_connection(connect(second.url, timeout=5))
        (head,) = second.heads
    assert not {name.lower() for name, _ in head.headers.raw_items()} & {"cookie", "x-injected"}


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SWITCH + b"X: " + b"x" * 70_000, "more than 65,536 bytes"),
        (SWITCH + b"X: y\r\n" * 12_000, "more than 65,536 bytes"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 70_000, "more than 65,536 bytes"),
        (b"HTTP/1.1 500 No\r\nContent-Length: -5\r\n\r\n", "500"),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n", "Redirect"),
        (b"HTTP/1.1 302 Found\r\nSet-Cookie: a@b=c\r\n\r\n", "Redirect"),
        (b"HTTP/1.1 abc\r\n\r\n", "abc"),
        (b"\r\n", "status None"),
    ],
)
def test_an_invalid_handshake_response_is_a_failed_connection(answer: bytes, reason: str) -> None:
    with Hostile(answer=answer) as hostile:
        with pytest.raises((OSError, WebSocketException), match=reason):
            connect(hostile.url, timeout=5)
        (found,) = probe_servers([hostile.url])
        assert found.error
        assert not found.times


def test_an_endless_handshake_response_ends_at_the_timeout() -> None:
    def trickle() -> Iterator[bytes]:
        yield SWITCH
        while True:
            yield b"x"

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                for piece in trickle():
                    try:
                        sock.sendall(piece)
                    except OSError:
                        return
                    time.sleep(0.02)

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(WebSocketTimeoutException):
            connect(f"ws://127.0.0.1:{server.getsockname()[1]}", timeout=0.5)
        assert time.monotonic() - began < 5


# From socket to index


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_an_oversized_frame_is_a_dead_letter_and_its_neighbors_are_indexed(
    jetstream: Simulator, indexer: InProcess, protocol: str
) -> None:
    jetstream.generate(200, span=0.5)
    large = commit(1, {"text": "x" * 40_000_000})
    jetstream.faults.garbage(large.decode(), after=100)
    with reading(jetstream, options=("--protocol", protocol)) as run:
        until(lambda: len(run.frames) == 201)
        assert max(map(len, run.frames)) < 100_000
    counted = indexer.feed(run.frames)
    assert (counted.indexed, counted.dead_lettered) == (200, 1)
    (letter,) = map(orjson.loads, indexer.letters.path.read_bytes().splitlines())
    assert letter["reason"] == "more than 33,554,432 bytes; only size and hash are kept"
    kept = orjson.loads(letter["frame"])
    assert (kept["received"], kept["blake2b"]) == (len(large), digest(large))


@pytest.mark.slow
def test_the_worker_discards_messages_that_would_fill_its_memory(
    es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, jetstream: Simulator, tmp_path: Path
) -> None:
    jetstream.generate(500, span=0.5)
    frames = list(jetstream.frames)

    def talk(sock: socket.socket) -> None:
        sock.sendall(b"".join(map(text, frames[:250])))
        sock.sendall(head_of(Opcode.TEXT, 3000 * len(PIECE)))
        for _ in range(3000):
            sock.sendall(PIECE)
        sock.sendall(frame(Opcode.TEXT, b"{", last=False))
        for _ in range(3000):
            sock.sendall(frame(Opcode.CONT, PIECE, last=False))
        sock.sendall(frame(Opcode.CONT, b"}"))
        sock.sendall(b"".join(map(text, frames[250:])))

    with (
        Hostile(talk) as hostile,
        Worker(
            *("--jetstream", hostile.url, "--es", es_node.url, "--index", fresh_index_prefix),
            *(
                "--no-kibana",
                "--protocol",
                "v1",
                "--since",
                "0",
                "--flush",
                "200ms",
                "--stats-interval",
                "1s",
            ),
            home=tmp_path,
        ) as worker,
    ):
        worker.wait_for("received 502 = indexed 500 .* dead-lettered 2 ", timeout=60)
        status = Path(f"/proc/{worker.process.pid}/status")
        peak = (
            int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
            if status.exists()
            else psutil.Process(worker.process.pid).memory_info().rss
        )
        assert worker.stop() == 0
    assert peak < 190_000_000, "each of the two is 197 MB"
    assert documents(es, fresh_index_prefix).keys() == expected(frames).keys()
