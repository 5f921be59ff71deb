"""The Elasticsearch client, its credentials, and what may be said of its failures."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from elastic_transport import ConnectionError as NodeUnreachable
from elastic_transport import ConnectionTimeout, NodeConfig, TlsError, TransportError
from elastic_transport.client_utils import url_to_node_config
from elasticsearch import ApiError, AuthenticationException, Elasticsearch

from slurp.addresses import is_loopback
from slurp.config import Config
from slurp.elastic.http_node import BoundedAnswers
from slurp.elastic.node_pool import Node, Nodes, Watcher
from slurp.elastic.response_checks import CheckedElasticsearch, UnexpectedAnswer
from slurp.elastic.tls import pinned
from slurp.errors import Exit, Fatal, Stopped
from slurp.logs import Secrets, cut
from slurp.values import basic_token

log = logging.getLogger(__name__)

T = TypeVar("T")

MIN_VERSION = (8, 9)

# A bulk may take its 30 s server-side and still be answered; the client's default of 10 s would
# turn a slow cluster into a storm of repeats.
REQUEST_TIMEOUT = 90.0
BULK_TIMEOUT = "30s"

# A starting cluster answers 401 for a moment, a rotated password may reach us late.
BELIEVE_DENIED_AT_START = 8.0
BELIEVE_DENIED = 60.0
_RED_AT_START = 15.0

_BRIEF = 2.0
_UNKNOWN = "unknown"
# Characters of a reason: it may be somebody's whole error page.
_REASON = 300

FAILURES = (ApiError, TransportError)


class WholeAnswers(BoundedAnswers, Node):
    """Refuses a success without a body: cut within its head an answer has a status and no more, and nobody
    below minds. Elasticsearch always says something, but to HEAD."""

    def perform_request(self, method: str, *args: Any, **options: Any) -> Any:
        answer = super().perform_request(method, *args, **options)
        meta, body = answer
        if 200 <= meta.status < 300 and not body and method != "HEAD":
            raise NodeUnreachable("the answer was cut short")
        return answer


class Elastic:
    """One client for all threads. Credentials are read again when the cluster refuses them."""

    def __init__(self, config: Config, secrets: Secrets) -> None:
        self._config = config
        self._secrets = secrets
        self._lock = threading.Lock()
        self._secret = config.es_api_key or config.es_pass
        self._denied_since: float | None = None
        self._client: Elasticsearch = CheckedElasticsearch(
            [_node_config(url, config) for url in config.es],
            request_timeout=REQUEST_TIMEOUT,
            max_retries=0,
            retry_on_timeout=False,
            connections_per_node=config.indexers + 4,
            node_pool_class=Nodes,
            node_class=WholeAnswers,
            **self._auth(),
        )
        self._watcher = Watcher(cast(Nodes, self._client.transport.node_pool).nodes)
        self._watcher.start()

    @property
    def client(self) -> Elasticsearch:
        return self._client

    def close(self) -> None:
        self._watcher.stop()
        self._client.close()

    def denied(self) -> float:
        """The cluster refused the credentials: read them again. Seconds for which it has done so."""
        with self._lock:
            now = time.monotonic()
            self._denied_since = self._denied_since or now
            if (file := self._config.es_secret_file) is not None:
                try:
                    secret = file.read()
                except ValueError as error:
                    log.warning("%s", error)
                else:
                    if secret != self._secret:
                        log.info("%s holds another secret now, using it", file.option)
                        self._secrets.add(secret, basic_token(self._config.es_user, secret))
                        self._secret = secret
                        self._client = self._client.options(**self._auth())
            return now - self._denied_since

    def granted(self) -> None:
        """The cluster took the credentials."""
        if self._denied_since is not None:
            with self._lock:
                self._denied_since = None

    def refused(self, detail: str = "") -> Fatal:
        """The end of our patience with a refusal; `detail` is what the cluster said."""
        if self._config.es_api_key:
            who, options = "API key", "--es-api-key or --es-api-key-file"
        else:
            who, options = f"password of user {self._config.es_user!r}", "--es-user and --es-pass-file"
        return Fatal(
            f"Elasticsearch refuses the {who}: check {options}, "
            f"and its privileges{f' ({detail})' if detail else ''}",
            Exit.USAGE,
        )

    def _auth(self) -> dict[str, Any]:
        if self._config.es_api_key:
            return {"api_key": self._secret}
        # Encoded here: the client takes ASCII only, Elasticsearch UTF-8.
        return {"basic_auth": basic_token(self._config.es_user, self._secret)}


def wait_until_ready(elastic: Elastic, config: Config, stop: threading.Event) -> str:
    """Wait for a cluster that is at least yellow; return its description.

    Raises Fatal after `--wait`, at once for what waiting does not change, and Stopped.
    """
    started = time.monotonic()
    waiter = _Waiter(elastic, config)
    while not stop.is_set():
        try:
            return waiter.look()
        except FAILURES as error:
            waited = time.monotonic() - started
            reason = waiter.explain(error)
            if waited >= config.wait:
                if isinstance(error, AuthenticationException):
                    raise elastic.refused() from None
                if _is_stranger(error):
                    raise Fatal(
                        f"what answers at {' '.join(config.es)} is not Elasticsearch: free the port or set "
                        f"--es ({reason})"
                    ) from None
                raise Fatal(
                    f"Elasticsearch at {' '.join(config.es)} is not ready after {config.wait:.0f} s: {reason}"
                ) from None
            waiter.say(f"waiting for Elasticsearch at {' '.join(config.es)}: {reason}")
        stop.wait(min(1.0, max(0.05, config.wait - (time.monotonic() - started))))
    raise Stopped


def insist(elastic: Elastic, step: Callable[[], T], wait: float, stop: threading.Event) -> T:
    """Do a step of the set-up, again and again while the cluster is in trouble; return what it returns.

    Raises Fatal after `wait` seconds, sooner when our credentials are rejected for long, at once when we
    lack a privilege, and Stopped.
    """
    deadline = time.monotonic() + wait
    while not stop.is_set():
        try:
            done = step()
        except FAILURES as error:
            late = time.monotonic() >= deadline
            if isinstance(error, AuthenticationException) and (
                elastic.denied() >= BELIEVE_DENIED_AT_START or late
            ):
                raise elastic.refused() from None
            if isinstance(error, ApiError) and error.status_code == 403:
                raise Fatal(f"Elasticsearch denies us a privilege: {describe(error)}", Exit.USAGE) from None
            if isinstance(error, ApiError) and error.status_code == 400:
                raise Fatal(f"Elasticsearch refuses our set-up: {describe(error)}") from None
            if late:
                raise Fatal(f"Elasticsearch does not take our set-up: {describe(error)}") from None
            log.warning("Elasticsearch: %s; trying the set-up again", describe(error))
        else:
            elastic.granted()
            return done
        stop.wait(2)
    raise Stopped


class _Waiter:
    def __init__(self, elastic: Elastic, config: Config) -> None:
        self._elastic = elastic
        self._said = -1e9
        self._red_since: float | None = None

    def look(self) -> str:
        client = self._elastic.client.options(request_timeout=5)
        health = client.cluster.health()
        self._elastic.granted()
        if health["status"] == "red":
            # Starting, most likely; but an index of somebody else may be red for good.
            self._red_since = self._red_since or time.monotonic()
            if time.monotonic() - self._red_since < _RED_AT_START:
                raise NodeUnreachable(f"cluster {health.get('cluster_name')} is red")
            log.warning("cluster %s stays red, going on all the same", health.get("cluster_name"))
        version = _version(client)
        return (
            f"cluster {health.get('cluster_name')!r}, version {version}, {health['status']}, "
            f"{health.get('number_of_nodes')} node(s)"
        )

    def explain(self, error: Exception) -> str:
        """Why it is not ready; raises Fatal when it never will be."""
        if isinstance(error, AuthenticationException):
            if self._elastic.denied() >= BELIEVE_DENIED_AT_START:
                raise self._elastic.refused() from None
            return "it refuses our credentials (so does a cluster that is still starting)"
        if product := unsupported_product(error):
            raise Fatal(
                f"--es: {product}; use Elasticsearch {'.'.join(map(str, MIN_VERSION))} or later"
            ) from None
        if isinstance(error, ApiError) and error.status_code == 403:
            raise Fatal(
                f"Elasticsearch denies the cluster privilege 'monitor' to us: {describe(error)}", Exit.USAGE
            ) from None
        return describe(error)

    def say(self, message: str) -> None:
        now = time.monotonic()
        if now - self._said >= 5:
            self._said = now
            log.warning("%s", message)


def _version(client: Elasticsearch) -> str:
    """The lowest version among the nodes; older than we support is Fatal."""
    # GET / would tell as well, but answers 405 on the embedded node.
    nodes = client.nodes.info(filter_path="nodes.*.version")["nodes"].values()
    versions = [node["version"] for node in nodes]
    if not all(re.match(r"\d+\.\d+", version) for version in versions):
        raise UnexpectedAnswer(f"a node of version {', '.join(versions)}")
    version = min(versions, key=_numbers)
    if _numbers(version) < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        raise Fatal(f"Elasticsearch {version} is too old, {least} or later is needed")
    return str(version)


def unsupported_product(error: Exception) -> str:
    """Return which relative of Elasticsearch has answered so, '' when it is none."""
    if isinstance(error, ApiError) and error_of(error)[0] == "api_not_available_exception":
        return "Elastic Cloud Serverless is not supported: it has no API for cluster health and shards"
    if isinstance(error, UnexpectedAnswer) and error.is_opensearch:
        return "OpenSearch is not supported: its API is not Elasticsearch's any more"
    return ""


def _is_stranger(error: Exception) -> bool:
    """Return whether the answer came from anything but Elasticsearch."""
    if isinstance(error, UnexpectedAnswer):
        # A proxy says 429 or 5xx while Elasticsearch starts behind it.
        status = error.foreign_status
        return status is not None and status not in (408, 429) and status < 500
    return "BadStatusLine" in describe(error)  # not even HTTP


def _node_config(url: str, config: Config) -> NodeConfig:
    """How to talk to one node: TLS where its URL is https, compression where it is far away or asked for."""
    node = url_to_node_config(url)
    options: dict[str, Any] = {
        "http_compress": config.es_compress == "on"
        or (config.es_compress == "auto" and not is_loopback(node.host))
    }
    if node.scheme == "https" and config.es_ca_fingerprint is not None:
        options["ssl_context"] = pinned(config.es_ca_fingerprint, config.es_cert, config.es_key)
    elif node.scheme == "https":
        files = {"ca_certs": config.es_ca, "client_cert": config.es_cert, "client_key": config.es_key}
        options |= {name: str(file) for name, file in files.items() if file is not None}
    return node.replace(**options)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def describe(error: Exception) -> str:
    """One line about a failure, without the request and its headers."""
    if isinstance(error, ApiError):
        kind, reason = error_of(error)
        return f"{error.status_code} {kind}: {reason}"
    if isinstance(error, ConnectionTimeout):
        return "no answer in time"
    if isinstance(error, TlsError):
        return f"TLS: {_innermost(error)} (a CA of your own: --es-ca)"
    if isinstance(error, TransportError):
        return _innermost(error)
    return str(error)


def error_of(error: ApiError) -> tuple[str, str]:
    """`error.type` and `error.reason` of a request that failed as a whole."""
    body = error.body
    cause = body.get("error") if isinstance(body, dict) else None
    if isinstance(cause, dict):
        return str(cause.get("type", _UNKNOWN)), cut(str(cause.get("reason", "")), _REASON)
    return _UNKNOWN, cut(str(cause or body), _REASON)


def _innermost(error: TransportError) -> str:
    cause: BaseException = error
    while isinstance(cause, TransportError) and cause.errors:
        cause = cause.errors[0]
    text = str(getattr(cause, "message", cause))
    # urllib3 puts the object's address before the reason.
    return cut(text.rsplit(">: ", 1)[-1].removesuffix(")"), _REASON)


class OutageLog:
    """Tells trouble once when it begins, again now and then, and once when it is over.

    What comes and goes many times a second, as rejections do, is told now and then as well: after the
    last word, only what has lasted for more than `_BRIEF` is told at once.
    """

    def __init__(
        self,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        trouble: str = "Elasticsearch: {}; holding what we have and trying again",
        over: str = "Elasticsearch takes documents again",
    ) -> None:
        """`trouble` is what to say, with {} for the reason, and `over` what to say when it is over."""
        self._lock = threading.Lock()
        self._clock = clock
        self._every = every
        self._trouble = trouble
        self._over = over
        self._since: float | None = None
        self._reason = ""
        self._told = False
        self._said = float("-inf")

    def trouble(self, reason: str) -> None:
        with self._lock:
            now = self._clock()
            self._since = now if self._since is None else self._since
            self._reason = reason
            recent = now - self._said < self._every
            if recent and (self._told or now - self._since < _BRIEF):
                return
            lasting = f", for {now - self._since:.0f} s now" if self._told else ""
            self._told, self._said = True, now
            log.warning("%s%s", self._trouble.format(reason), lasting)

    def over(self) -> None:
        if self._since is None:
            return
        with self._lock:
            if self._told and self._since is not None:
                log.info("%s after %.1f s", self._over, self._clock() - self._since)
            self._since, self._told = None, False

    @property
    def troubled(self) -> bool:
        return self._since is not None

    @property
    def lasting(self) -> tuple[float, str] | None:
        """For how many seconds there has been trouble, and the last reason; None while all is well, or
        the trouble is of the kind that comes and goes."""
        with self._lock:
            if self._since is None or self._clock() - self._since < _BRIEF:
                return None
            return self._clock() - self._since, self._reason
