"""All of `--http`: what the service starts, and what it ends."""

from __future__ import annotations

import logging
import threading

from slurp.config import Config
from slurp.elastic.client import Elastic
from slurp.http.address import Address
from slurp.http.health import Health
from slurp.http.history import History
from slurp.http.metrics import Metrics
from slurp.http.page import Page
from slurp.http.probe import Probe
from slurp.http.questions import Questions
from slurp.http.server import Server
from slurp.http.site import Site
from slurp.logs import Secrets
from slurp.vitals import Vitals

log = logging.getLogger(__name__)

# For so long each may be at one thing before it counts as stuck: the accepting thread comes round several
# times a second, a question to Elasticsearch has 5 s for each node.
_HTTP_LIMIT = 30.0
_PROBE_LIMIT = 120.0


class Front:
    """Two threads: `serve` and `probe` work until `over` is set. `metrics` is for the indexers."""

    def __init__(
        self, address: Address, config: Config, vitals: Vitals, secrets: Secrets, version: str
    ) -> None:
        """Raises Fatal when the address can't be had."""
        # A client of our own: a page must not wait for a connection that a hanging bulk request has.
        self._elastic = Elastic(config, secrets)
        self._probe = Probe(self._elastic, len(config.es), secrets.scrub)
        health = Health(vitals, self._probe, secrets.scrub)
        self.metrics = Metrics(vitals, health, self._probe, version)
        history = History(vitals)
        questions = Questions(self._elastic, self._probe, config.index, secrets.scrub)
        page = Page(vitals, health, history, questions, version)
        serving = vitals.watchdog.pulse("http", _HTTP_LIMIT, vital=False)
        self._probing = vitals.watchdog.pulse("http-probe", _PROBE_LIMIT, vital=False)

        def tick() -> None:
            serving.beat()
            history.step()

        self._server = Server(address, Site(health, self.metrics, page).answer, tick)
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
