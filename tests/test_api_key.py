"""API keys, against a stub server: the embedded node cannot create API keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch import AuthenticationException

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.errors import Fatal
from slurp.logs import Secrets
from tests.stub_server import ELASTICSEARCH, Request, Response, StubServer

VALID_KEY = "aWQ6Z2VoZWlt"
OTHER_KEY = "b3RoZXI6a2V5"


def respond(request: Request) -> Response:
    if request.headers["Authorization"] == f"ApiKey {VALID_KEY}":
        return Response(200, {"status": "green"}, ELASTICSEARCH)
    return Response(401, {"error": {"type": "security_exception"}, "status": 401}, ELASTICSEARCH)


@pytest.fixture
def url() -> Iterator[str]:
    with StubServer(respond) as server:
        yield server.url


def connect(url: str, key: str, option: str = "--es-api-key") -> Elastic:
    config = parse(["--es", url, option, key], {})
    return Elastic(config, Secrets(config.secrets))


def test_an_api_key_is_sent_instead_of_user_and_password(url: str) -> None:
    assert connect(url, VALID_KEY).client.cluster.health()["status"] == "green"


def test_the_error_about_a_rejected_api_key_does_not_contain_it(url: str) -> None:
    elastic = connect(url, OTHER_KEY)
    with pytest.raises(AuthenticationException):
        elastic.client.cluster.health()
    error = elastic.credentials_error()
    assert isinstance(error, Fatal)
    assert "API key" in str(error)
    assert OTHER_KEY not in str(error)


def test_the_file_of_a_rejected_api_key_is_read_again(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key"
    file.write_text(OTHER_KEY)
    elastic = connect(url, str(file), "--es-api-key-file")
    with pytest.raises(AuthenticationException):
        elastic.client.cluster.health()
    file.write_text("no key")
    elastic.credentials_rejected()
    assert "--es-api-key-file" in caplog.text
    assert "invalid API key" in caplog.text
    assert "no key" not in caplog.text
    file.write_text(f"{VALID_KEY}\n")
    elastic.credentials_rejected()
    assert elastic.client.cluster.health()["status"] == "green"
    assert VALID_KEY not in caplog.text
