"""Products related to Elasticsearch are rejected at startup. The responses are based on real ones."""

from __future__ import annotations

import threading

import pytest

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.readiness import wait_until_ready
from slurp.errors import Exit, Fatal
from slurp.logs import Secrets
from tests.stub_server import ELASTICSEARCH, Response, StubServer

_JSON = {"Content-Type": "application/json; charset=UTF-8"}
_HEALTH = {"cluster_name": "docker-cluster", "status": "green", "number_of_nodes": 1}
_OPENSEARCH_HEALTH = _HEALTH | {"discovered_master": True, "discovered_cluster_manager": True}
_REASON = "Request for uri [/_cluster/health] with method [GET] exists but is not available when running in "
_SERVERLESS_ERROR = {"type": "api_not_available_exception", "reason": f"{_REASON}serverless mode"}


def unauthorized(realm: str) -> Response:
    headers = {"Content-Type": "text/plain; charset=UTF-8", "WWW-Authenticate": f'Basic realm="{realm}"'}
    return Response(401, b"Unauthorized", headers)


def wait_for(response: Response, wait: str) -> Fatal:
    """Wait for a server that sends only this response; return the error that ends the wait."""
    with StubServer(lambda request: response) as server:
        config = parse(["--es", server.url, "--wait", wait], {"HOME": "/"})
        elastic = Elastic(config, Secrets(()))
        with pytest.raises(Fatal) as stopped:
            wait_until_ready(elastic, config, threading.Event())
        elastic.close()
        return stopped.value


@pytest.mark.parametrize(
    ("response", "product"),
    [
        (Response(200, _OPENSEARCH_HEALTH, _JSON), "OpenSearch"),
        (unauthorized("OpenSearch Security"), "OpenSearch"),
        (
            Response(
                410,
                {"error": {"root_cause": [_SERVERLESS_ERROR], **_SERVERLESS_ERROR}, "status": 410},
                ELASTICSEARCH,
            ),
            "Elastic Cloud Serverless",
        ),
    ],
)
def test_an_unsupported_product_is_named_without_waiting(response: Response, product: str) -> None:
    error = wait_for(response, "3s")
    assert str(error).startswith(f"--es: {product} is not supported: ")
    assert "; use Elasticsearch 8.9" in str(error)
    assert error.code is Exit.FAILED


def test_an_unknown_server_is_named_after_the_wait() -> None:
    assert "is not Elasticsearch" in str(wait_for(unauthorized("gateway"), "300ms"))
