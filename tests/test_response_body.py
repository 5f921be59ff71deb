"""HTTP responses are limited in size and time: a broken or hostile proxy may send an endless one."""

from __future__ import annotations

import contextlib
import gzip
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import urllib3

from slurp.config import parse
from slurp.elastic import http_node
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.logs import Secrets
from slurp.response_body import BadResponse, read_body

HEAD = b"HTTP/1.1 200 OK\r\nX-Elastic-Product: Elasticsearch\r\nContent-Type: application/json\r\n"
HEALTH = b'{"status":"green"}'


@contextmanager
def sending(*responses: bytes, endless: bool = False) -> Iterator[str]:
    """Start a server that sends the next of these bytes for each request, the last ones repeatedly.

    With `endless` an endless number of spaces follows.
    """
    remaining = list(responses)
    stop = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while self.request.recv(65_536):
                    self.request.sendall(remaining.pop(0) if len(remaining) > 1 else remaining[0])
                    while endless and not stop.is_set():
                        self.request.sendall(b" " * 65_536)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            stop.set()
            server.shutdown()


def sized(body: bytes, *more: bytes) -> bytes:
    """Return a response with Content-Length and more header lines."""
    return HEAD + b"".join(line + b"\r\n" for line in more) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    """Return a response in one chunk, without Content-Length."""
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def test_a_response_of_the_maximum_size_is_read_and_its_connection_reused() -> None:
    body = b"x" * 200_000
    with sending(sized(body), chunked(body)) as url, urllib3.PoolManager(maxsize=1, block=True) as pool:
        for _ in range(2):
            response = pool.request("GET", url, preload_content=False)
            assert read_body(response, len(body), 1.0, lambda: 0.0) == body
        assert pool.connection_from_url(url).num_connections == 1


@pytest.mark.parametrize("response", [sized(b"x" * 1001), chunked(b"x" * 1001)])
def test_reading_a_response_that_is_too_large_is_aborted(response: bytes) -> None:
    with sending(response, sized(b"ok")) as url, urllib3.PoolManager(maxsize=1, block=True) as pool:
        with pytest.raises(BadResponse, match="more than 1,000 bytes"):
            read_body(pool.request("GET", url, preload_content=False), 1000, 1.0, lambda: 0.0)
        # The only connection of the pool was returned.
        assert pool.request("GET", url).data == b"ok"


def test_the_size_limit_applies_to_the_decompressed_body() -> None:
    body = gzip.compress(b"x" * 50_000_000)
    assert len(body) < 60_000
    compressed = sized(body, b"Content-Encoding: gzip")
    with sending(compressed) as url, urllib3.PoolManager() as pool, pytest.raises(BadResponse):
        read_body(pool.request("GET", url, preload_content=False), 10**6, 1.0, lambda: 0.0)


def test_reading_a_response_that_takes_too_long_is_aborted() -> None:
    times = iter(range(100))
    with (
        sending(HEAD + b"\r\n", endless=True) as url,
        urllib3.PoolManager() as pool,
        pytest.raises(BadResponse, match="not complete in time"),
    ):
        read_body(pool.request("GET", url, preload_content=False), 10**9, 3.0, lambda: next(times))


def connect(url: str) -> Elastic:
    return Elastic(parse(["--es", url, "--indexers", "1"], {}), Secrets(()))


def test_an_endless_response_of_elasticsearch_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_node, "MAX_RESPONSE_BYTES", 10**6)
    with sending(HEAD + b"\r\n", endless=True) as url:
        elastic = connect(url)
        for _ in range(8):  # more often than there are connections
            with pytest.raises(FAILURES) as raised:
                elastic.client.cluster.health()
            assert describe(raised.value) == "more than 1,000,000 bytes"
        elastic.close()


def test_responses_of_elasticsearch_are_read() -> None:
    with sending(sized(HEALTH), chunked(HEALTH), sized(HEALTH)) as url:
        elastic = connect(url)
        for _ in range(3):
            assert elastic.client.cluster.health().body == {"status": "green"}
        elastic.close()


def test_a_response_that_is_cut_off_raises_an_error() -> None:
    with sending(HEAD + b"Content-Length: 100\r\n\r\n" + HEALTH) as url:
        elastic = connect(url)
        with pytest.raises(FAILURES):
            elastic.client.options(request_timeout=0.3).cluster.health()
        elastic.close()
