"""Kibana at the level of requests, and what counts as the same object."""

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
from tests.stub_kibana import Answer, StubKibana, built


@pytest.fixture
def kibana() -> Iterator[StubKibana]:
    with StubKibana() as stub:
        yield stub


def asking(kibana: StubKibana) -> client.Kibana:
    return client.Kibana(parse(["--kibana", kibana.url], {}), Secrets(()))


def credentials(kibana: StubKibana) -> list[str | None]:
    """What each request had of them."""
    return [one.headers.get("authorization") for one in kibana.asked]


@contextmanager
def speaking(*answer: bytes, endless: bytes = b"") -> Iterator[tuple[client.Kibana, list[bytes]]]:
    """What answers each request with these bytes, then `endless` again and again, and what it was sent."""
    sent: list[bytes] = []

    class Speaks(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked: bytes = self.request.recv(65_536)
            sent.append(asked)
            with contextlib.suppress(OSError):
                self.request.sendall(answer[min(len(sent), len(answer)) - 1])
                while endless and not over.is_set():
                    self.request.sendall(endless)

    over = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Speaks) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield client.Kibana(parse(["--kibana", url], {}), Secrets(())), sent
        finally:
            over.set()
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
def test_what_does_not_answer_as_kibana_is_sent_no_credentials(answer: bytes) -> None:
    with speaking(answer) as (kibana, sent):
        for _ in range(3):
            with pytest.raises((client.NotReady, client.Refused)):
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
def test_what_answers_as_kibana_is_sent_credentials(answer: bytes) -> None:
    full = b'{"version":{"number":"9.5.3"},' + AVAILABLE[1:]
    with speaking(answer, http("200 OK", full)) as (kibana, sent):
        assert kibana.status() == "9.5.3"
        kibana.close()
    assert b"uthorization" not in sent[0]
    assert b"\r\nAuthorization: Basic ZWxhc3RpYzpjaGFuZ2VtZQ==\r\n" in sent[1]


def test_each_try_asks_first_who_is_there(kibana: StubKibana) -> None:
    asked = asking(kibana)
    for anonymous in (True, False):
        kibana.anonymous_status = anonymous
        assert asked.status() == "9.5.3"
    assert [one is None for one in credentials(kibana)] == [True, False, True, False]
    kibana.anonymous_status, kibana.starting = True, True
    with pytest.raises(client.NotReady, match="unavailable"):
        asked.status()
    assert credentials(kibana)[4:] == [None]


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MOST_BYTES", 10**6)
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    with speaking(head, endless=b" " * 65_536) as (kibana, _):
        with pytest.raises(
            client.NotReady, match="no whole answer: response body larger than 1,000,000 bytes"
        ):
            kibana.status()
        kibana.close()


def test_an_answer_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_WITHIN", 0.0)
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    with speaking(head, endless=b" ") as (kibana, _):
        with pytest.raises(client.NotReady, match="no whole answer: response body not received in time"):
            kibana.status()
        kibana.close()


@pytest.mark.parametrize("answer", [b"<html>", {"status": "ok"}, {}, {"status": {"overall": 1}}, []])
def test_what_is_no_kibana_is_waited_for(
    kibana: StubKibana, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(kibana, "_status", lambda asked: answer)
    with pytest.raises(client.NotReady, match="does not describe itself as Kibana does"):
        asking(kibana).status()


@pytest.mark.parametrize("told", [True, False])
def test_an_export_is_of_what_is_there(kibana: StubKibana, told: bool) -> None:
    kibana.tells_what_is_missing = told
    ours = built()
    keys = [(one["type"], one["id"]) for one in ours]
    assert asking(kibana).export(keys) == {}
    asking(kibana).import_objects(ours[:2], overwrite=False)
    assert set(asking(kibana).export(keys)) == set(keys[:2])


def test_an_export_that_is_kept_from_us_is_not_taken_for_missing(
    kibana: StubKibana, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"statusCode": 403, "error": "Forbidden", "message": "Unable to bulk_get search:view-posts"}
    attributes = {"objects": [{"type": "search", "id": "view-posts", "error": error}]}

    def forbidden(space: str, body: Any) -> Any:
        raise Answer.error(400, "Error fetching objects to export", attributes=attributes)

    monkeypatch.setattr(kibana, "_export", forbidden)
    with pytest.raises(client.Refused, match="Unable to bulk_get search:view-posts"):
        asking(kibana).export([("search", "view-posts")])


@pytest.mark.parametrize("status", [302, 400, 404, 413])
def test_a_refusal_is_told_in_kibanas_words(
    kibana: StubKibana, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def refuse(space: str, lines: bytes, overwrite: bool) -> Any:
        raise Answer.error(status, "what\nit says")

    monkeypatch.setattr(kibana, "_import", refuse)
    with pytest.raises(client.Refused, match=f"POST /api/saved_objects/_import: {status} what it says"):
        asking(kibana).import_objects(built(), overwrite=False)


def test_an_import_without_overwrite_replaces_nothing(kibana: StubKibana) -> None:
    asking(kibana).import_objects(built()[:1], overwrite=False)
    with pytest.raises(client.Conflict, match="index-pattern view: conflict"):
        asking(kibana).import_objects(built(), overwrite=False)
    assert len(kibana.objects) == 1


def test_an_error_of_any_length_is_cut(kibana: StubKibana) -> None:
    kibana.refuses_import = [{"type": "search", "id": "x" * 10_000, "error": {"type": "unknown"}}] * 50
    with pytest.raises(client.Refused, match="and 47 more") as refused:
        asking(kibana).import_objects(built()[:1], overwrite=False)
    assert len(str(refused.value)) < 2000


def test_the_same_is_the_same_however_it_is_written() -> None:
    one = built()[2]
    same = json.loads(json.dumps(one)) | {"updated_at": "now", "managed": False, "namespaces": ["default"]}
    same["references"].reverse()
    same["attributes"]["panelsJSON"] = json.dumps(json.loads(one["attributes"]["panelsJSON"]), indent=1)
    same["attributes"]["description"] = ""
    assert digest(one) == digest(same)
    same["references"].pop()
    assert digest(one) != digest(same)
