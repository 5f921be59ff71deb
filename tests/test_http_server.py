"""The HTTP server of `--http` on real sockets: responses, and limits for slow or malicious clients."""

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
from slurp.web import http_server
from slurp.web.http_server import HttpServer, Request, Response, text_response

ANY = Address("127.0.0.1", 0)


@contextmanager
def serving(
    handle: Callable[[Request], Response] = lambda request: text_response(repr(request)),
    address: Address = ANY,
) -> Iterator[HttpServer]:
    stop = threading.Event()
    server = HttpServer(address, handle)
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(5)
        assert not thread.is_alive()


def get(server: HttpServer, path: str = "/", method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", server.address.port, timeout=10)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def send_raw(server: HttpServer, data: bytes) -> bytes:
    """Send these bytes and return everything that is received."""
    with socket.create_connection(("127.0.0.1", server.address.port), timeout=10) as sock:
        sock.sendall(data)
        received = b""
        while piece := sock.recv(65_536):
            received += piece
    return received


def test_a_request_is_parsed() -> None:
    seen: list[Request] = []

    def handle(request: Request) -> Response:
        seen.append(request)
        return text_response("yes")

    with serving(handle) as server:
        response, text = get(server, "/a%20b?q=x%26y&q=2&e=", Accept="text/html")
    assert (response.status, text) == (200, "yes\n")
    assert seen == [Request("/a%20b", {"q": "x&y"}, "text/html")]


def test_security_headers_are_sent() -> None:
    with serving() as server:
        response, _ = get(server)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Server"] == "skeetslurper"
    assert "python" not in str(response.headers).lower()


def test_head_is_get_without_the_body() -> None:
    with serving(lambda request: text_response("four")) as server:
        response, text = get(server, method="HEAD")
        assert (response.status, response.headers["Content-Length"], text) == (200, "5", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "SLURP"])
def test_other_methods_are_rejected(method: str) -> None:
    with serving() as server:
        response, text = get(server, method=method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"
    assert "Request(" not in text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9", "127.5.5.5:80", "[::1]:8642", "a.localhost"])
def test_names_of_this_machine_are_accepted(host: str) -> None:
    with serving() as server:
        assert get(server, Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "192.168.1.1", "", "[", "::1"]
)
def test_other_names_for_loopback_are_rejected(host: str) -> None:
    with serving() as server:
        response, text = get(server, Host=host)
        assert response.status == 403
        assert "Request(" not in text


def test_exactly_one_host_header_is_required() -> None:
    with serving() as server:
        assert send_raw(server, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        two = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
        assert send_raw(server, two).startswith(b"HTTP/1.1 403 ")
        # HTTP/1.0 has no Host header, and no browser uses it.
        assert send_raw(server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_other_sites_may_only_link_to_the_page() -> None:
    with serving() as server:

        def status(site: str, dest: str) -> int:
            return get(server, Sec_Fetch_Site=site, Sec_Fetch_Dest=dest)[0].status

        assert [status("cross-site", dest) for dest in ("document", "empty", "iframe", "image")] == [
            *(200, 403, 403, 403)
        ]
        assert [status(site, "empty") for site in ("same-origin", "none", "same-site")] == [200, 200, 403]


def test_beyond_loopback_any_host_name_is_accepted() -> None:
    with serving(address=Address("0.0.0.0", 0)) as server:
        assert get(server, Host="metrics.example")[0].status == 200
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
def test_malformed_requests_get_a_short_error(request_: bytes, status: int) -> None:
    with serving() as server:
        response = send_raw(server, request_)
    assert f" {status} ".encode() in response[:60]
    assert len(response) < 1000
    assert b"frame-ancestors 'none'" in response


def test_a_connection_serves_one_request() -> None:
    with serving(lambda request: text_response("once")) as server:
        twice = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n" * 2
        assert send_raw(server, twice).count(b"once") == 1


def test_a_bug_is_logged_once_and_the_next_request_is_served(caplog: pytest.LogCaptureFixture) -> None:
    def handle(request: Request) -> Response:
        if request.path == "/":
            raise ZeroDivisionError("the bug, with a secret")
        return text_response("well")

    with serving(handle) as server:
        for _ in range(3):
            response, text = get(server)
            assert response.status == 500
            assert "secret" not in text
        assert get(server, "/else")[1] == "well\n"
    assert caplog.text.count("which is a bug") == 1


def test_slow_clients_are_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_CONNECTION_TIMEOUT", 2.0)
    before = threading.active_count()
    with serving() as server:
        slow = [socket.create_connection(("127.0.0.1", server.address.port), timeout=10) for _ in range(4)]
        for sock in slow:
            sock.sendall(b"GET / HT")
        deadline = time.monotonic() + 10
        while len(server._connections) < 4:
            assert time.monotonic() < deadline
        # Sending a byte now and then does not extend the time-out.
        while server._connections:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            for sock in slow:
                with suppress(OSError):
                    sock.sendall(b"x")
        for sock in slow:
            sock.close()
    assert threading.active_count() <= before + 4


def test_idle_connections_are_closed_for_new_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 4)
    with serving() as server:
        silent = [socket.create_connection(("127.0.0.1", server.address.port), timeout=10) for _ in range(9)]
        began = time.monotonic()
        assert get(server)[0].status == 200
        assert time.monotonic() - began < 2
        assert len(server._connections) <= 4
        for sock in silent:
            sock.close()


def test_requests_above_the_limit_get_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 3)
    released = threading.Event()

    def handle(request: Request) -> Response:
        released.wait(10)
        return text_response("done")

    found: list[str] = []
    with serving(handle) as server:
        threads = [threading.Thread(target=lambda: found.append(get(server)[1])) for _ in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 5
        while len(server._received) < 3:
            assert time.monotonic() < deadline
        for _ in range(20):
            response, text = get(server)
            assert (response.status, text) == (503, "busy\n")
        released.set()
        for thread in threads:
            thread.join()
    assert found == ["done\n"] * 3


def test_shutdown_waits_for_requests_in_progress() -> None:
    started, found = threading.Event(), []

    def handle(request: Request) -> Response:
        started.set()
        time.sleep(0.5)
        return text_response("yet")

    with serving(handle) as server:
        thread = threading.Thread(target=lambda: found.append(get(server)[1]))
        thread.start()
        assert started.wait(5)
    thread.join()
    assert found == ["yet\n"]


def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_CONNECTION_TIMEOUT", 1.0)
    with (
        serving(lambda request: Response(b"x" * 50_000_000)) as server,
        socket.create_connection(("127.0.0.1", server.address.port)) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 10
        while not server._connections:
            assert time.monotonic() < deadline
        while server._connections:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_hundred_requests_get_200_or_503() -> None:
    statuses: list[int] = []
    with serving() as server:

        def many() -> None:
            for _ in range(10):
                statuses.append(get(server)[0].status)

        threads = [threading.Thread(target=many) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(statuses) == 100
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 50


def test_shutdown_does_not_wait_for_a_slow_client() -> None:
    with serving() as server:
        sock = socket.create_connection(("127.0.0.1", server.address.port))
        sock.sendall(b"GET /")
        began = time.monotonic()
    assert time.monotonic() - began < 2
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.address.port), timeout=1)
    sock.close()


def test_a_port_in_use_is_a_usage_error() -> None:
    with HTTPServer(("127.0.0.1", 0), None) as other, pytest.raises(Fatal) as stopped:  # type: ignore[arg-type]
        HttpServer(Address("127.0.0.1", other.server_port), lambda request: text_response(""))
    assert stopped.value.code is Exit.USAGE
    assert str(stopped.value) == (
        f"--http 127.0.0.1:{other.server_port}: address already in use; choose another port, "
        "or 0 for any free one"
    )


@pytest.mark.parametrize("host", ["a..b", "..", "a" * 64])
def test_an_invalid_host_name_is_a_usage_error(host: str) -> None:
    with pytest.raises(Fatal, match="is not an address of this machine") as stopped:
        HttpServer(Address(host, 0), lambda request: text_response(""))
    assert stopped.value.code is Exit.USAGE


def test_an_address_of_another_machine_is_a_usage_error() -> None:
    with pytest.raises(Fatal, match=r"^--http 192\.0\.2\.1:0: cannot assign requested address$"):
        HttpServer(Address("192.0.2.1", 0), lambda request: text_response(""))


def test_it_listens_on_ipv6() -> None:
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


def test_no_name_service_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(name: str = "") -> str:
        raise AssertionError("a name service may block for a long time")

    monkeypatch.setattr(socket, "getfqdn", never)
    with serving() as server:
        assert get(server)[0].status == 200


def test_requests_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving() as server:
        get(server)
        send_raw(server, b"\x00\x1b[31m\r\n\r\n")
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
def test_valid_addresses(text: str, address: Address | None) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "on", "127.0.0.1", ":1", "a:b", "127.0.0.1:65536", "http://x:1", "::1:1", "1 2"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid listen address .*such as 127\.0\.0\.1:8642, or off"):
        parse_address(text)


def test_loopback_names() -> None:
    assert all(map(is_loopback, ["localhost", "LOCALHOST.", "x.localhost", "127.9.9.9", "::1", "[::1]"]))
    assert not any(
        map(is_loopback, ["", "localhost.evil.example", "0.0.0.0", "10.0.0.1", "127.0.0.1.nip.io"])
    )


def test_a_lone_surrogate_is_replaced() -> None:
    assert text_response("\ud800").body == b"?\n"
