"""The HTTP server of `--http`: its pages, and the two threads that serve them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus

from slurp.addresses import Address
from slurp.config import Config
from slurp.elastic.client import Elastic
from slurp.logs import Secrets
from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.monitoring.health import Health
from slurp.monitoring.metrics import Metrics
from slurp.monitoring.worker_status import WorkerStatus
from slurp.web.history import History
from slurp.web.http_server import HttpServer, Request, Response, text_response
from slurp.web.page import Page, static_files
from slurp.web.queries import PageQueries

log = logging.getLogger(__name__)

# Seconds after which a thread counts as stuck. The accepting thread beats several times a second; a check of
# Elasticsearch takes up to 5 s for each node.
_HTTP_LIMIT = 30.0
_PROBE_LIMIT = 120.0


class Pages:
    """The paths of the server: page, health, readiness, metrics and static files."""

    def __init__(self, health: Health, metrics: Metrics, page: Page) -> None:
        self._files = static_files()
        self._paths: dict[str, Callable[[Request], Response]] = {
            "/": page.render,
            "/healthz": lambda request: _health_response(
                "\n".join(["alive", *health.impaired()]), health.stuck()
            ),
            "/readyz": lambda request: _health_response("ready", health.unready()),
            "/metrics": lambda request: Response(*metrics.render(request.accept)),
        }

    def handle(self, request: Request) -> Response:
        """Return the response for the path of the request, 404 for an unknown one."""
        if (file := self._files.get(request.path)) is not None:
            return file
        if (handle := self._paths.get(request.path)) is not None:
            return handle(request)
        return text_response("page not found", HTTPStatus.NOT_FOUND)


def _health_response(healthy: str, problems: Sequence[str]) -> Response:
    if problems:
        return text_response("\n".join(problems), HTTPStatus.SERVICE_UNAVAILABLE)
    return text_response(healthy)


class WebServer:
    """The HTTP server and the probe of Elasticsearch; a thread each runs `serve` and `probe`."""

    def __init__(
        self, address: Address, config: Config, status: WorkerStatus, secrets: Secrets, version: str
    ) -> None:
        """Listen at `address`. Raises Fatal when it is not available."""
        # A client of its own: the page must not wait for a connection that a hanging bulk request occupies.
        self._elastic = Elastic(config, secrets)
        self._probe = ElasticProbe(self._elastic, len(config.es), secrets.scrub)
        health = Health(status, self._probe, secrets.scrub)
        self.metrics = Metrics(status, health, self._probe, version)
        history = History(status)
        queries = PageQueries(self._elastic, self._probe, config.index, secrets.scrub, status.wanted_names)
        page = Page(status, health, history, queries, version)
        serve_heartbeat = status.watchdog.heartbeat("http", _HTTP_LIMIT, vital=False)
        self._probe_heartbeat = status.watchdog.heartbeat("http-probe", _PROBE_LIMIT, vital=False)

        def tick() -> None:
            serve_heartbeat.beat()
            history.step()

        self._server = HttpServer(address, Pages(health, self.metrics, page).handle, tick)
        self.stop = threading.Event()
        self.address = self._server.address
        log.info("page, health and metrics: http://%s", self.address)
        if not self._server.on_loopback:
            log.warning(
                "--http %s: every client that can reach this address sees all pages; there is no password",
                self.address,
            )

    def serve(self) -> None:
        """Serve requests until `stop` is set."""
        self._server.run(self.stop)

    def probe(self) -> None:
        """Check Elasticsearch periodically until `stop` is set."""
        self._probe.run(self.stop, self._probe_heartbeat)
        self._elastic.close()
