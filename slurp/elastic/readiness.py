"""Waiting for Elasticsearch at startup, and setup steps that are retried until they succeed."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from elastic_transport import ConnectionError as NodeUnreachable
from elasticsearch import ApiError, AuthenticationException, Elasticsearch

from slurp.config import Config
from slurp.elastic.client import CREDENTIALS_TIMEOUT_AT_START, FAILURES, Elastic, describe, error_details
from slurp.elastic.response_checks import UnexpectedResponse
from slurp.errors import Exit, Fatal, Stopped

log = logging.getLogger(__name__)

T = TypeVar("T")

MIN_VERSION = (8, 9)
_MIN_VERSION_TEXT = ".".join(map(str, MIN_VERSION))

# Seconds. A starting cluster is red for a moment, but an unrelated index may keep it red permanently.
_RED_TIMEOUT = 15.0
# Seconds between two log messages while waiting, and between two attempts of a setup step.
_LOG_INTERVAL = 5.0
_RETRY_INTERVAL = 2.0


def wait_until_ready(
    elastic: Elastic, config: Config, stop: threading.Event, clock: Callable[[], float] = time.monotonic
) -> str:
    """Wait for a cluster that is at least yellow; return a description of the cluster.

    Raises Fatal after `--wait`, or immediately for an error that waiting does not fix, and Stopped once
    `stop` is set.
    """
    started = clock()
    probe = _ReadinessProbe(elastic, clock)
    while not stop.is_set():
        try:
            return probe.check()
        except FAILURES as error:
            waited = clock() - started
            reason = probe.explain(error)
            if waited >= config.wait:
                if isinstance(error, AuthenticationException):
                    raise elastic.credentials_error() from None
                if _is_other_server(error):
                    raise Fatal(
                        f"the server at {' '.join(config.es)} is not Elasticsearch: free the port or set "
                        f"--es ({reason})"
                    ) from None
                raise Fatal(
                    f"Elasticsearch at {' '.join(config.es)} is not ready after {config.wait:.0f} s: {reason}"
                ) from None
            probe.log_waiting(f"waiting for Elasticsearch at {' '.join(config.es)}: {reason}")
        stop.wait(min(1.0, max(0.05, config.wait - (clock() - started))))
    raise Stopped


def retry_setup(
    elastic: Elastic,
    step: Callable[[], T],
    wait: float,
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Run a setup step and retry it while the cluster is unavailable; return the result of the step.

    Raises Fatal after `wait` seconds, earlier if the credentials are rejected for
    CREDENTIALS_TIMEOUT_AT_START, and immediately if a privilege is missing or the request is invalid. Raises
    Stopped once `stop` is set.
    """
    deadline = clock() + wait
    while not stop.is_set():
        try:
            result = step()
        except FAILURES as error:
            is_late = clock() >= deadline
            if isinstance(error, AuthenticationException) and (
                elastic.credentials_rejected() >= CREDENTIALS_TIMEOUT_AT_START or is_late
            ):
                raise elastic.credentials_error() from None
            if isinstance(error, ApiError) and error.status_code == 403:
                raise Fatal(
                    f"a privilege in Elasticsearch is missing: {describe(error)}", Exit.USAGE
                ) from None
            if isinstance(error, ApiError) and error.status_code == 400:
                raise Fatal(f"Elasticsearch rejects the setup: {describe(error)}") from None
            if is_late:
                raise Fatal(f"the setup of Elasticsearch failed: {describe(error)}") from None
            log.warning("Elasticsearch: %s; retrying the setup", describe(error))
        else:
            elastic.credentials_accepted()
            return result
        stop.wait(_RETRY_INTERVAL)
    raise Stopped


class _ReadinessProbe:
    """Repeated checks of one cluster during a start."""

    def __init__(self, elastic: Elastic, clock: Callable[[], float]) -> None:
        self._elastic = elastic
        self._clock = clock
        self._logged_at = float("-inf")
        self._red_since: float | None = None

    def check(self) -> str:
        """Return a description of the cluster. Raises an error of the client if it is not ready."""
        client = self._elastic.client.options(request_timeout=5)
        health = client.cluster.health()
        self._elastic.credentials_accepted()
        if health["status"] == "red":
            now = self._clock()
            self._red_since = now if self._red_since is None else self._red_since
            if now - self._red_since < _RED_TIMEOUT:
                raise NodeUnreachable(f"cluster {health.get('cluster_name')} is red")
            log.warning("cluster %s is still red; continuing", health.get("cluster_name"))
        version = _lowest_version(client)
        return (
            f"cluster {health.get('cluster_name')!r}, version {version}, {health['status']}, "
            f"{health.get('number_of_nodes')} node(s)"
        )

    def explain(self, error: Exception) -> str:
        """Return why the cluster is not ready. Raises Fatal for an error that waiting does not fix."""
        if isinstance(error, AuthenticationException):
            if self._elastic.credentials_rejected() >= CREDENTIALS_TIMEOUT_AT_START:
                raise self._elastic.credentials_error() from None
            return "it rejects the credentials (as does a cluster that is still starting)"
        if product := unsupported_product(error):
            raise Fatal(f"--es: {product}; use Elasticsearch {_MIN_VERSION_TEXT} or later") from None
        if isinstance(error, ApiError) and error.status_code == 403:
            raise Fatal(
                f"the cluster privilege 'monitor' in Elasticsearch is missing: {describe(error)}", Exit.USAGE
            ) from None
        return describe(error)

    def log_waiting(self, message: str) -> None:
        now = self._clock()
        if now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            log.warning("%s", message)


def _lowest_version(client: Elasticsearch) -> str:
    """Return the lowest version among the nodes. Raises Fatal if it is older than MIN_VERSION."""
    # GET / returns the version as well, but its response is 405 on the embedded node.
    nodes = client.nodes.info(filter_path="nodes.*.version")["nodes"].values()
    versions = [node["version"] for node in nodes]
    if not all(re.match(r"\d+\.\d+", version) for version in versions):
        raise UnexpectedResponse(f"a node of version {', '.join(versions)}")
    version = min(versions, key=_major_minor)
    if _major_minor(version) < MIN_VERSION:
        raise Fatal(f"Elasticsearch {version} is too old, {_MIN_VERSION_TEXT} or later is needed")
    return str(version)


def _major_minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def unsupported_product(error: Exception) -> str:
    """Return a sentence about the unsupported product that sent this error, '' if there is no sign of one."""
    if isinstance(error, ApiError) and error_details(error)[0] == "api_not_available_exception":
        return "Elastic Cloud Serverless is not supported: it has no API for cluster health and shards"
    if isinstance(error, UnexpectedResponse) and error.is_opensearch:
        return "OpenSearch is not supported: its API is no longer that of Elasticsearch"
    return ""


def _is_other_server(error: Exception) -> bool:
    """Return whether the response is certainly from a server other than Elasticsearch."""
    if isinstance(error, UnexpectedResponse):
        # A proxy responds with 408, 429 or 5xx while Elasticsearch is starting behind it.
        status = error.foreign_status
        return status is not None and status not in (408, 429) and status < 500
    return "BadStatusLine" in describe(error)  # not an HTTP response
