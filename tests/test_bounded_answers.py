"""Answers to HTTP requests are bounded: a proxy that is broken, or hostile, may send without end."""

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
from slurp.response_body import ResponseLimitExceeded, read_body

HEAD = b"HTTP/1.1 200 OK\r\nX-Elastic-Product: Elasticsearch\r\nContent-Type: application/json\r\n"
HEALTH = b'{"status":"green"}'


@contextmanager
def saying(*answers: bytes, endless: bool = False) -> Iterator[str]:
    """A server that answers each request with the next of these bytes, at last always the same.

    With `endless` blanks without end follow.
    """
    left = list(answers)
    over = threading.Event()

    class Says(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while self.request.recv(65_536):
                    self.request.sendall(left.pop(0) if len(left) > 1 else left[0])
                    while endless and not over.is_set():
                        self.request.sendall(b" " * 65_536)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Says) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()


def sized(body: bytes, *more: bytes) -> bytes:
    return HEAD + b"".join(one + b"\r\n" for one in more) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def test_an_answer_of_the_size_allowed_is_read_whole_and_its_connection_used_again() -> None:
    body = b"x" * 200_000
    with saying(sized(body), chunked(body)) as url, urllib3.PoolManager(maxsize=1, block=True) as pool:
        for _ in range(2):
            answer = pool.request("GET", url, preload_content=False)
            assert read_body(answer, len(body), 1.0, lambda: 0.0) == body
        assert pool.connection_from_url(url).num_connections == 1


@pytest.mark.parametrize("answer", [sized(b"x" * 1001), chunked(b"x" * 1001)])
def test_an_answer_that_is_too_long_is_given_up(answer: bytes) -> None:
    with saying(answer, sized(b"ok")) as url, urllib3.PoolManager(maxsize=1, block=True) as pool:
        with pytest.raises(ResponseLimitExceeded, match="larger than 1,000 bytes"):
            read_body(pool.request("GET", url, preload_content=False), 1000, 1.0, lambda: 0.0)
        # The only place of the pool is free again.
        assert pool.request("GET", url).data == b"ok"


def test_it_is_the_unpacked_size_that_counts() -> None:
    body = gzip.compress(b"x" * 50_000_000)
    assert len(body) < 60_000
    packed = sized(body, b"Content-Encoding: gzip")
    with saying(packed) as url, urllib3.PoolManager() as pool, pytest.raises(ResponseLimitExceeded):
        read_body(pool.request("GET", url, preload_content=False), 10**6, 1.0, lambda: 0.0)


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    times = iter(range(100))
    with (
        saying(HEAD + b"\r\n", endless=True) as url,
        urllib3.PoolManager() as pool,
        pytest.raises(ResponseLimitExceeded, match="not received in time"),
    ):
        read_body(pool.request("GET", url, preload_content=False), 10**9, 3.0, lambda: next(times))


def elastic(url: str) -> Elastic:
    return Elastic(parse(["--es", url, "--indexers", "1"], {}), Secrets(()))


def test_an_elasticsearch_that_answers_without_end_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_node, "MAX_RESPONSE_BYTES", 10**6)
    with saying(HEAD + b"\r\n", endless=True) as url:
        asked = elastic(url)
        for _ in range(8):  # more than there are connections
            with pytest.raises(FAILURES) as failed:
                asked.client.cluster.health()
            assert describe(failed.value) == "response body larger than 1,000,000 bytes"
        asked.close()


def test_answers_of_elasticsearch_are_read_as_before() -> None:
    with saying(sized(HEALTH), chunked(HEALTH), sized(HEALTH)) as url:
        asked = elastic(url)
        for _ in range(3):
            assert asked.client.cluster.health().body == {"status": "green"}
        asked.close()


def test_an_answer_that_is_cut_short_is_a_failure() -> None:
    with saying(HEAD + b"Content-Length: 100\r\n\r\n" + HEALTH) as url:
        asked = elastic(url)
        with pytest.raises(FAILURES):
            asked.client.options(request_timeout=0.3).cluster.health()
        asked.close()
