"""The Elasticsearch client: nodes, time-outs, credentials, and descriptions of its errors."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from elastic_transport import ConnectionError as NodeUnreachable
from elastic_transport import ConnectionTimeout, NodeConfig, TlsError, TransportError
from elastic_transport.client_utils import url_to_node_config
from elasticsearch import ApiError, AuthorizationException, Elasticsearch

from slurp.addresses import is_loopback
from slurp.config import Config
from slurp.elastic.http_node import BoundedNode
from slurp.elastic.node_pool import LeastLoadedPool, MonitoredNode, NodeMonitor
from slurp.elastic.response_checks import CheckedElasticsearch
from slurp.elastic.tls import pinned_context
from slurp.errors import Exit, Fatal
from slurp.logs import Secrets, cut
from slurp.options.values import basic_token

log = logging.getLogger(__name__)

# Seconds. Elasticsearch may work on a bulk request for BULK_TIMEOUT and still respond. With the client's
# default of 10 s, a slow cluster would receive the same requests again and again.
REQUEST_TIMEOUT = 90.0
BULK_TIMEOUT = "30s"

# Seconds for which rejected credentials are retried: a starting cluster responds with 401 for a moment, and
# the file with a rotated password may be updated late.
CREDENTIALS_TIMEOUT_AT_START = 8.0
CREDENTIALS_TIMEOUT = 60.0

_UNKNOWN_TYPE = "unknown"
# Characters of an error reason, which may be a whole error page of a proxy.
_MAX_REASON = 300
_GRANTED_BY = re.compile(r"granted by the (cluster|index) privileges \[([a-z_]+)")

FAILURES = (ApiError, TransportError)


class ElasticsearchNode(BoundedNode, MonitoredNode):
    """A node that rejects a successful response without a body.

    A response that is cut off within its headers has a status and no body, and the libraries below accept it.
    Elasticsearch sends a body with each success, except for HEAD.
    """

    def perform_request(self, method: str, *args: Any, **options: Any) -> Any:
        response = super().perform_request(method, *args, **options)
        meta, body = response
        if 200 <= meta.status < 300 and not body and method != "HEAD":
            raise NodeUnreachable("the response was cut off")
        return response


class Elastic:
    """One client for all threads, which reads changed credentials from their file. Thread-safe."""

    def __init__(self, config: Config, secrets: Secrets, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._secrets = secrets
        self._clock = clock
        self._lock = threading.Lock()
        self._secret = config.es_api_key or config.es_pass
        self._rejected_since: float | None = None
        self._client: Elasticsearch = CheckedElasticsearch(
            [_node_config(url, config) for url in config.es],
            request_timeout=REQUEST_TIMEOUT,
            max_retries=0,
            retry_on_timeout=False,
            connections_per_node=config.indexers + 4,
            node_pool_class=LeastLoadedPool,
            node_class=ElasticsearchNode,
            **self._authentication(),
        )
        self._node_monitor = NodeMonitor(cast(LeastLoadedPool, self._client.transport.node_pool).nodes)
        self._node_monitor.start()

    @property
    def client(self) -> Elasticsearch:
        """The client with the current credentials. Get it for each request; do not keep it."""
        return self._client

    def close(self) -> None:
        self._node_monitor.stop()
        self._client.close()

    def credentials_rejected(self) -> float:
        """Record a rejection of the credentials and read them again from their file.

        Return the seconds since the first rejection after the last success.
        """
        with self._lock:
            now = self._clock()
            self._rejected_since = now if self._rejected_since is None else self._rejected_since
            if (file := self._config.es_secret_file) is not None:
                try:
                    secret = file.read()
                except ValueError as error:
                    log.warning("%s", error)
                else:
                    if secret != self._secret:
                        log.info("the secret in %s has changed, using the new one", file.option)
                        self._secrets.add(secret, basic_token(self._config.es_user, secret))
                        self._secret = secret
                        self._client = self._client.options(**self._authentication())
            return now - self._rejected_since

    def credentials_accepted(self) -> None:
        """Record that Elasticsearch accepted the credentials."""
        if self._rejected_since is not None:
            with self._lock:
                self._rejected_since = None

    def credentials_error(self, detail: str = "") -> Fatal:
        """Return the error that ends the program; `detail` is the error message of Elasticsearch."""
        if self._config.es_api_key:
            credentials, options = "API key", "--es-api-key or --es-api-key-file"
        else:
            credentials = f"password of user {self._config.es_user!r}"
            options = "--es-user and --es-pass-file"
        return Fatal(
            f"Elasticsearch rejects the {credentials}: check {options}, "
            f"and its privileges{f' ({detail})' if detail else ''}",
            Exit.USAGE,
        )

    def _authentication(self) -> dict[str, Any]:
        if self._config.es_api_key:
            return {"api_key": self._secret}
        # Encoded here, because the client accepts only ASCII in a user name and password; Elasticsearch
        # accepts UTF-8.
        return {"basic_auth": basic_token(self._config.es_user, self._secret)}


def _node_config(url: str, config: Config) -> NodeConfig:
    """Return the connection options of one node: TLS for an https URL, and compression by --es-compress."""
    node = url_to_node_config(url)
    options: dict[str, Any] = {
        "http_compress": config.es_compress == "on"
        or (config.es_compress == "auto" and not is_loopback(node.host))
    }
    if node.scheme == "https" and config.es_ca_fingerprint is not None:
        options["ssl_context"] = pinned_context(config.es_ca_fingerprint, config.es_cert, config.es_key)
    elif node.scheme == "https":
        files = {"ca_certs": config.es_ca, "client_cert": config.es_cert, "client_key": config.es_key}
        options |= {name: str(file) for name, file in files.items() if file is not None}
    return node.replace(**options)


def describe(error: Exception) -> str:
    """Return one line about an error of a request, without the request and its headers."""
    if isinstance(error, ApiError):
        error_type, reason = error_details(error)
        return f"{error.status_code} {error_type}: {reason}"
    if isinstance(error, ConnectionTimeout):
        return "no response in time"
    if isinstance(error, TlsError):
        return f"TLS: {_root_cause(error)} (use --es-ca for a private CA)"
    if isinstance(error, TransportError):
        return _root_cause(error)
    return str(error)


def error_details(error: ApiError) -> tuple[str, str]:
    """Return `error.type` and `error.reason` of a request that failed as a whole."""
    body = error.body
    details = body.get("error") if isinstance(body, dict) else None
    if isinstance(details, dict):
        return str(details.get("type", _UNKNOWN_TYPE)), cut(str(details.get("reason", "")), _MAX_REASON)
    return _UNKNOWN_TYPE, cut(str(details or body), _MAX_REASON)


def missing_privilege(error: AuthorizationException) -> str:
    """Return the missing privilege; of several sufficient ones the first, which is the least powerful."""
    reason = error_details(error)[1]
    match = _GRANTED_BY.search(reason)
    return f"the {match[1]} privilege {match[2]!r}" if match else f"a privilege ({describe(error)})"


def _root_cause(error: TransportError) -> str:
    cause: BaseException = error
    while isinstance(cause, TransportError) and cause.errors:
        cause = cause.errors[0]
    text = str(getattr(cause, "message", cause))
    # urllib3 puts the representation of the connection object before the reason.
    return cut(text.rsplit(">: ", 1)[-1].removesuffix(")"), _MAX_REASON)
