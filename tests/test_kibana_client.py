"""The Kibana client at the level of requests, and the comparison of saved objects."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from slurp.config import parse
from slurp.kibana import client
from slurp.kibana.comparison import digest
from slurp.logs import Secrets
from tests.kibana_examples import example_objects
from tests.stub_kibana import ErrorResponse, StubKibana


@pytest.fixture
def kibana() -> Iterator[StubKibana]:
    with StubKibana() as stub:
        yield stub


def client_of(kibana: StubKibana) -> client.KibanaClient:
    return client.KibanaClient(parse(["--kibana", kibana.url], {}), Secrets(()))


def credentials(kibana: StubKibana) -> list[str | None]:
    """Return the Authorization header of each request."""
    return [one.headers.get("authorization") for one in kibana.requests]


@contextmanager
def responding(*responses: bytes, endless: bytes = b"") -> Iterator[tuple[client.KibanaClient, list[bytes]]]:
    """Serve these bytes to the requests in turn, `endless` after each; yield a client and the requests."""
    sent: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            received: bytes = self.request.recv(65_536)
            sent.append(received)
            with contextlib.suppress(OSError):
                self.request.sendall(responses[min(len(sent), len(responses)) - 1])
                while endless and not stop.is_set():
                    self.request.sendall(endless)

    stop = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield client.KibanaClient(parse(["--kibana", url], {}), Secrets(())), sent
        finally:
            stop.set()
            server.shutdown()


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


AVAILABLE = b'{"status":{"overall":{"level":"available"}}}'


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", b"<html>"),
        http("200 OK", b"{}"),
        http("401 Unauthorized", b"", 'WWW-Authenticate: Basic realm="x"'),
        http("403 Forbidden"),
        http("404 Not Found"),
        http("302 Found", b"", "Location: /login"),
        http("302 Found", b"", "Location: http://elsewhere.example/", "kbn-nam: e"),
        http("502 Bad Gateway", AVAILABLE),
        http("503 Service Unavailable", b"Kibana server is not ready yet"),
        http("503 Service Unavailable", b"", "kbn-name: kibana"),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
def test_other_servers_receive_no_credentials(answer: bytes) -> None:
    with responding(answer) as (kibana, sent):
        for _ in range(3):
            with pytest.raises((client.NotReady, client.Rejected)):
                kibana.status()
        kibana.close()
    assert len(sent) == 3
    assert all(one.startswith(b"GET /api/status ") for one in sent)
    assert b"uthorization" not in b"".join(sent)


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", AVAILABLE),
        http("401 Unauthorized", b"", "kbn-name: kibana"),
        http("302 Found", b"", "Location: /login?next=%2F", "Kbn-Name: kibana"),
    ],
)
def test_kibana_receives_credentials(answer: bytes) -> None:
    full = b'{"version":{"number":"9.5.3"},' + AVAILABLE[1:]
    with responding(answer, http("200 OK", full)) as (kibana, sent):
        assert kibana.status() == "9.5.3"
        kibana.close()
    assert b"uthorization" not in sent[0]
    assert b"\r\nAuthorization: Basic ZWxhc3RpYzpjaGFuZ2VtZQ==\r\n" in sent[1]


def test_each_attempt_begins_without_credentials(kibana: StubKibana) -> None:
    kibana_client = client_of(kibana)
    for anonymous in (True, False):
        kibana.anonymous_status = anonymous
        assert kibana_client.status() == "9.5.3"
    assert [one is None for one in credentials(kibana)] == [True, False, True, False]
    kibana.anonymous_status, kibana.starting = True, True
    with pytest.raises(client.NotReady, match="unavailable"):
        kibana_client.status()
    assert credentials(kibana)[4:] == [None]


def test_a_response_without_end_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MAX_BYTES", 10**6)
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    with responding(head, endless=b" " * 65_536) as (kibana, _):
        with pytest.raises(client.NotReady, match="incomplete response: more than 1,000,000 bytes"):
            kibana.status()
        kibana.close()


def test_a_slow_response_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_BODY_TIMEOUT", 0.0)
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    with responding(head, endless=b" ") as (kibana, _):
        with pytest.raises(client.NotReady, match="incomplete response: response not complete in time"):
            kibana.status()
        kibana.close()


@pytest.mark.parametrize("answer", [b"<html>", {"status": "ok"}, {}, {"status": {"overall": 1}}, []])
def test_a_response_of_another_program_is_retried(
    kibana: StubKibana, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(kibana, "_status", lambda request: answer)
    with pytest.raises(client.NotReady, match="is not a status of Kibana"):
        client_of(kibana).status()


@pytest.mark.parametrize("lists_missing", [True, False])
def test_an_export_returns_the_existing_objects(kibana: StubKibana, lists_missing: bool) -> None:
    kibana.lists_missing = lists_missing
    objects = example_objects()
    keys = [(one["type"], one["id"]) for one in objects]
    assert client_of(kibana).export(keys) == {}
    client_of(kibana).import_objects(objects[:2], overwrite=False)
    assert set(client_of(kibana).export(keys)) == set(keys[:2])


def test_objects_without_read_privilege_do_not_count_as_missing(
    kibana: StubKibana, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"statusCode": 403, "error": "Forbidden", "message": "Unable to bulk_get search:view-posts"}
    attributes = {"objects": [{"type": "search", "id": "view-posts", "error": error}]}

    def forbidden(space: str, body: Any) -> Any:
        raise ErrorResponse.of(400, "Error fetching objects to export", attributes=attributes)

    monkeypatch.setattr(kibana, "_export", forbidden)
    with pytest.raises(client.Rejected, match="Unable to bulk_get search:view-posts"):
        client_of(kibana).export([("search", "view-posts")])


@pytest.mark.parametrize("status", [302, 400, 404, 413])
def test_a_rejection_quotes_kibana(kibana: StubKibana, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    def reject(space: str, lines: bytes, overwrite: bool) -> Any:
        raise ErrorResponse.of(status, "some\nreason")

    monkeypatch.setattr(kibana, "_import", reject)
    with pytest.raises(client.Rejected, match=f"POST /api/saved_objects/_import: {status} some reason"):
        client_of(kibana).import_objects(example_objects(), overwrite=False)


def test_an_import_without_overwrite_replaces_nothing(kibana: StubKibana) -> None:
    client_of(kibana).import_objects(example_objects()[:1], overwrite=False)
    with pytest.raises(client.Conflict, match="index-pattern view: conflict"):
        client_of(kibana).import_objects(example_objects(), overwrite=False)
    assert len(kibana.objects) == 1


def test_a_long_error_is_shortened(kibana: StubKibana) -> None:
    kibana.import_errors = [{"type": "search", "id": "x" * 10_000, "error": {"type": "unknown"}}] * 50
    with pytest.raises(client.Rejected, match="and 47 more") as rejected:
        client_of(kibana).import_objects(example_objects()[:1], overwrite=False)
    assert len(str(rejected.value)) < 2000


def test_the_digest_depends_on_the_content_only() -> None:
    one = example_objects()[2]
    same = json.loads(json.dumps(one)) | {"updated_at": "now", "managed": False, "namespaces": ["default"]}
    same["references"].reverse()
    same["attributes"]["panelsJSON"] = json.dumps(json.loads(one["attributes"]["panelsJSON"]), indent=1)
    same["attributes"]["description"] = ""
    assert digest(one) == digest(same)
    same["references"].pop()
    assert digest(one) != digest(same)
