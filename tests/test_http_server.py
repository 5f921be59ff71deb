"""The server of `--http` on real sockets: what it answers, and what it does with bad clients."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import HTTPServer

import pytest

from slurp.addresses import Address, is_loopback, parse_address
from slurp.errors import Exit, Fatal
from slurp.web import http_server as module
from slurp.web.http_server import Answer, Request, Server, plain

ANY = Address("127.0.0.1", 0)


@contextmanager
def serving(
    answer: Callable[[Request], Answer] = lambda request: plain(repr(request)), address: Address = ANY
) -> Iterator[Server]:
    over = threading.Event()
    server = Server(address, answer)
    thread = threading.Thread(target=server.run, args=(over,))
    thread.start()
    try:
        yield server
    finally:
        over.set()
        thread.join(5)
        assert not thread.is_alive()


def ask(server: Server, path: str = "/", method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", server.address.port, timeout=10)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def raw(server: Server, data: bytes) -> bytes:
    """All that comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", server.address.port), timeout=10) as sock:
        sock.sendall(data)
        received = b""
        while piece := sock.recv(65_536):
            received += piece
    return received


def test_a_request_is_taken_apart() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Answer:
        seen.append(request)
        return plain("yes")

    with serving(answer) as server:
        response, text = ask(server, "/a%20b?q=x%26y&q=2&e=", Accept="text/html")
    assert (response.status, text) == (200, "yes\n")
    assert seen == [Request("/a%20b", {"q": "x&y"}, "text/html")]


def test_nothing_of_it_is_for_other_sites() -> None:
    with serving() as server:
        response, _ = ask(server)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Server"] == "skeetslurper"
    assert "python" not in str(response.headers).lower()


def test_head_is_get_without_its_body() -> None:
    with serving(lambda request: plain("four")) as server:
        response, text = ask(server, method="HEAD")
        assert (response.status, response.headers["Content-Length"], text) == (200, "5", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "SLURP"])
def test_other_methods_are_refused(method: str) -> None:
    with serving() as server:
        response, text = ask(server, method=method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"
    assert "Request(" not in text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9", "127.5.5.5:80", "[::1]:8642", "a.localhost"])
def test_names_of_this_machine_are_ours(host: str) -> None:
    with serving() as server:
        assert ask(server, Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "192.168.1.1", "", "[", "::1"]
)
def test_a_name_that_somebody_points_at_loopback_is_refused(host: str) -> None:
    with serving() as server:
        response, text = ask(server, Host=host)
        assert response.status == 403
        assert "Request(" not in text


def test_one_host_header_and_no_more() -> None:
    with serving() as server:
        assert raw(server, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        two = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
        assert raw(server, two).startswith(b"HTTP/1.1 403 ")
        # Before there were any: no browser is so old.
        assert raw(server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_page_elsewhere_may_link_to_us_and_no_more() -> None:
    with serving() as server:

        def status(site: str, dest: str) -> int:
            return ask(server, Sec_Fetch_Site=site, Sec_Fetch_Dest=dest)[0].status

        assert [status("cross-site", dest) for dest in ("document", "empty", "iframe", "image")] == [
            *(200, 403, 403, 403)
        ]
        assert [status(site, "empty") for site in ("same-origin", "none", "same-site")] == [200, 200, 403]


def test_beyond_loopback_any_name_will_do() -> None:
    with serving(address=Address("0.0.0.0", 0)) as server:
        assert ask(server, Host="metrics.example")[0].status == 200
        assert not server.on_loopback


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Y: " + b"z" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 50 + b"\r\n", 431),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /?" + b"a=b&" * 100 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_nonsense_is_refused_in_few_words(request_: bytes, status: int) -> None:
    with serving() as server:
        answer = raw(server, request_)
    assert f" {status} ".encode() in answer[:60]
    assert len(answer) < 1000
    assert b"frame-ancestors 'none'" in answer


def test_the_answer_ends_the_connection() -> None:
    with serving(lambda request: plain("once")) as server:
        twice = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n" * 2
        assert raw(server, twice).count(b"once") == 1


def test_a_bug_is_told_once_and_the_next_request_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: Request) -> Answer:
        if request.path == "/":
            raise ZeroDivisionError("the bug, with a secret")
        return plain("well")

    with serving(answer) as server:
        for _ in range(3):
            response, text = ask(server)
            assert response.status == 500
            assert "secret" not in text
        assert ask(server, "/else")[1] == "well\n"
    assert caplog.text.count("which is a bug") == 1


def test_slow_clients_are_few_and_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WITHIN", 2.0)
    before = threading.active_count()
    with serving() as server:
        slow = [socket.create_connection(("127.0.0.1", server.address.port), timeout=10) for _ in range(4)]
        for sock in slow:
            sock.sendall(b"GET / HT")
        deadline = time.monotonic() + 10
        while len(server._open) < 4:
            assert time.monotonic() < deadline
        # A byte now and then keeps none of them.
        while server._open:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            for sock in slow:
                with suppress(OSError):
                    sock.sendall(b"x")
        for sock in slow:
            sock.close()
    assert threading.active_count() <= before + 4


def test_whoever_asks_nothing_makes_room_for_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECTIONS", 4)
    with serving() as server:
        silent = [socket.create_connection(("127.0.0.1", server.address.port), timeout=10) for _ in range(9)]
        began = time.monotonic()
        assert ask(server)[0].status == 200
        assert time.monotonic() - began < 2
        assert len(server._open) <= 4
        for sock in silent:
            sock.close()


def test_too_many_at_work_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECTIONS", 3)
    free = threading.Event()

    def answer(request: Request) -> Answer:
        free.wait(10)
        return plain("at last")

    found: list[str] = []
    with serving(answer) as server:
        threads = [threading.Thread(target=lambda: found.append(ask(server)[1])) for _ in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 5
        while len(server._asked) < 3:
            assert time.monotonic() < deadline
        for _ in range(20):
            response, text = ask(server)
            assert (response.status, text) == (503, "busy\n")
        free.set()
        for thread in threads:
            thread.join()
    assert found == ["at last\n"] * 3


def test_the_end_waits_for_what_was_asked() -> None:
    asked, found = threading.Event(), []

    def answer(request: Request) -> Answer:
        asked.set()
        time.sleep(0.5)
        return plain("yet")

    with serving(answer) as server:
        thread = threading.Thread(target=lambda: found.append(ask(server)[1]))
        thread.start()
        assert asked.wait(5)
    thread.join()
    assert found == ["yet\n"]


def test_whoever_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WITHIN", 1.0)
    with (
        serving(lambda request: Answer(b"x" * 50_000_000)) as server,
        socket.create_connection(("127.0.0.1", server.address.port)) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 10
        while not server._open:
            assert time.monotonic() < deadline
        while server._open:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_hundred_at_once_get_an_answer_or_are_told_to_come_again() -> None:
    statuses: list[int] = []
    with serving() as server:

        def many() -> None:
            for _ in range(10):
                statuses.append(ask(server)[0].status)

        threads = [threading.Thread(target=many) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(statuses) == 100
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 50


def test_the_end_does_not_wait_for_a_slow_client() -> None:
    with serving() as server:
        sock = socket.create_connection(("127.0.0.1", server.address.port))
        sock.sendall(b"GET /")
        began = time.monotonic()
    assert time.monotonic() - began < 2
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.address.port), timeout=1)
    sock.close()


def test_a_port_that_is_taken_is_told() -> None:
    with HTTPServer(("127.0.0.1", 0), None) as other, pytest.raises(Fatal) as stopped:  # type: ignore[arg-type]
        Server(Address("127.0.0.1", other.server_port), lambda request: plain(""))
    assert stopped.value.code is Exit.USAGE
    assert str(stopped.value) == (
        f"--http 127.0.0.1:{other.server_port}: address already in use; choose another port, "
        "or 0 for any free one"
    )


@pytest.mark.parametrize("host", ["a..b", "..", "a" * 64])
def test_a_name_that_is_none_is_told(host: str) -> None:
    with pytest.raises(Fatal, match="is no address of this machine") as stopped:
        Server(Address(host, 0), lambda request: plain(""))
    assert stopped.value.code is Exit.USAGE


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(Fatal, match=r"^--http 192\.0\.2\.1:0: cannot assign requested address$"):
        Server(Address("192.0.2.1", 0), lambda request: plain(""))


def test_it_listens_on_ipv6_too() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 here")
    with serving(address=Address("::1", 0)) as server:
        assert str(server.address) == f"[::1]:{server.address.port}"
        assert server.on_loopback
        connection = HTTPConnection("::1", server.address.port)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()


def test_nobody_is_asked_for_our_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(name: str = "") -> str:
        raise AssertionError("a name service may take long")

    monkeypatch.setattr(socket, "getfqdn", never)
    with serving() as server:
        assert ask(server)[0].status == 200


def test_the_log_has_no_line_for_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving() as server:
        ask(server)
        raw(server, b"\x00\x1b[31m\r\n\r\n")
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8642", Address("127.0.0.1", 8642)),
        ("0", Address("127.0.0.1", 0)),
        ("9100", Address("127.0.0.1", 9100)),
        ("localhost:1", Address("localhost", 1)),
        ("[::1]:80", Address("::1", 80)),
        ("off", None),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "on", "127.0.0.1", ":1", "a:b", "127.0.0.1:65536", "http://x:1", "::1:1", "1 2"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid listen address .*such as 127\.0\.0\.1:8642, or off"):
        parse_address(text)


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "LOCALHOST.", "x.localhost", "127.9.9.9", "::1", "[::1]"]))
    assert not any(
        map(is_loopback, ["", "localhost.evil.example", "0.0.0.0", "10.0.0.1", "127.0.0.1.nip.io"])
    )


def test_half_of_a_pair_is_no_reason_for_no_answer() -> None:
    assert plain("\ud800").body == b"?\n"
