"""The HTTP server of `--http`: its parts, its paths and its two threads."""

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
from slurp.web.http_server import Answer, Request, Server, plain
from slurp.web.page import Page, assets
from slurp.web.queries import PageQueries


class Pages:
    def __init__(self, health: Health, metrics: Metrics, page: Page) -> None:
        self._files = assets()
        self._paths: dict[str, Callable[[Request], Answer]] = {
            "/": page.render,
            "/healthz": lambda request: _verdict("\n".join(["alive", *health.impaired()]), health.stuck()),
            "/readyz": lambda request: _verdict("ready", health.unready()),
            "/metrics": lambda request: Answer(*metrics.render(request.accept)),
        }

    def answer(self, request: Request) -> Answer:
        if (file := self._files.get(request.path)) is not None:
            return file
        found = self._paths.get(request.path)
        return plain("there is no such page", HTTPStatus.NOT_FOUND) if found is None else found(request)


def _verdict(good: str, wrong: Sequence[str]) -> Answer:
    if wrong:
        return plain("\n".join(wrong), HTTPStatus.SERVICE_UNAVAILABLE)
    return plain(good)


log = logging.getLogger(__name__)

# For so long each may be at one thing before it counts as stuck: the accepting thread comes round several
# times a second, a question to Elasticsearch has 5 s for each node.
_HTTP_LIMIT = 30.0
_PROBE_LIMIT = 120.0


class WebServer:
    """Two threads: `serve` and `probe` work until `over` is set. `metrics` is for the indexers."""

    def __init__(
        self, address: Address, config: Config, status: WorkerStatus, secrets: Secrets, version: str
    ) -> None:
        """Raises Fatal when the address can't be had."""
        # A client of our own: a page must not wait for a connection that a hanging bulk request has.
        self._elastic = Elastic(config, secrets)
        self._probe = ElasticProbe(self._elastic, len(config.es), secrets.scrub)
        health = Health(status, self._probe, secrets.scrub)
        self.metrics = Metrics(status, health, self._probe, version)
        history = History(status)
        questions = PageQueries(self._elastic, self._probe, config.index, secrets.scrub)
        page = Page(status, health, history, questions, version)
        serving = status.watchdog.pulse("http", _HTTP_LIMIT, vital=False)
        self._probing = status.watchdog.pulse("http-probe", _PROBE_LIMIT, vital=False)

        def tick() -> None:
            serving.beat()
            history.step()

        self._server = Server(address, Pages(health, self.metrics, page).answer, tick)
        self.over = threading.Event()
        self.address = self._server.address
        log.info("page, health and metrics: http://%s", self.address)
        if not self._server.on_loopback:
            log.warning(
                "--http %s: whoever reaches this address sees it all, without a password", self.address
            )

    def serve(self) -> None:
        self._server.run(self.over)

    def probe(self) -> None:
        self._probe.run(self.over, self._probing)
        self._elastic.close()
