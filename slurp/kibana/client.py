"""Kibana gets a data view as soon as it is up; nothing waits for it."""

from __future__ import annotations

import logging
import threading
from typing import Any, cast
from urllib.parse import quote

import requests

from slurp.config import Config
from slurp.pacing import Backoff

log = logging.getLogger(__name__)

_TIMEOUT = 15.0


class NotReady(Exception):
    """Kibana is down or still starting; the text says which."""


class Refused(Exception):
    """Kibana answered that it will not; trying again as we are is of no use."""


class Kibana:
    """The little of Kibana's HTTP API that we need."""

    def __init__(self, config: Config) -> None:
        assert config.kibana is not None  # noqa: S101
        self.url = config.kibana
        self._session = requests.Session()
        # Credentials in ~/.netrc are for somebody else.
        self._session.trust_env = False
        self._session.headers["kbn-xsrf"] = "skeetslurper"
        self._session.verify = str(config.es_ca) if config.es_ca else True
        if config.es_api_key:
            self._session.headers["Authorization"] = f"ApiKey {config.es_api_key}"
        else:
            # As bytes: requests would encode text as Latin-1, and not every password is.
            self._session.auth = cast(Any, (config.es_user.encode(), config.es_pass.encode()))

    def check(self) -> str:
        """Kibana's version once it is available. Raises NotReady or Refused."""
        body = self._ask("GET", "/api/status")
        status, about = body.get("status"), body.get("version")
        if not isinstance(status, dict) or not isinstance(about, dict):
            raise NotReady("what answers there does not describe itself as Kibana does")
        overall = status.get("overall")
        level = overall.get("level") if isinstance(overall, dict) else None
        if level not in ("available", "degraded"):
            raise NotReady(f"its status is {level or 'unknown'}")
        return str(about.get("number", "of unknown version"))

    def ensure_data_view(self, index: str) -> bool:
        """Create the data view `<index>` over `<index>-*`; False when there is one already."""
        path = f"/api/data_views/data_view/{quote(index, safe='')}"
        if self._ask("GET", path, missing_ok=True).get("data_view"):
            return False
        data_view = {
            "id": index,
            "title": f"{index}-*",
            "name": "Bluesky events",
            "timeFieldName": "@timestamp",
        }
        self._ask("POST", "/api/data_views/data_view", {"data_view": data_view, "override": False})
        return True

    def close(self) -> None:
        self._session.close()

    def _ask(
        self, method: str, path: str, body: dict[str, object] | None = None, missing_ok: bool = False
    ) -> dict[str, Any]:
        try:
            answer = self._session.request(method, self.url + path, json=body, timeout=_TIMEOUT)
        except requests.RequestException as error:
            raise NotReady(f"no answer ({type(error).__name__})") from None
        if answer.status_code == 404 and missing_ok:
            return {}
        if answer.status_code in (401, 403):
            raise Refused(f"it refuses our credentials or rights ({answer.status_code})")
        if answer.status_code >= 500 or answer.status_code == 429:
            raise NotReady(f"it answers {answer.status_code}")
        try:
            parsed = answer.json()
        except requests.JSONDecodeError:
            raise NotReady("what answers there does not speak JSON as Kibana does") from None
        if not answer.ok or not isinstance(parsed, dict):
            raise Refused(f"{method} {path} was answered with {answer.status_code}: {answer.text[:200]}")
        return parsed


def prepare(config: Config, stop: threading.Event) -> None:
    """Wait for Kibana as long as it takes, then give it the data view. The kibana thread."""
    kibana = Kibana(config)
    backoff = Backoff(first=2.0, cap=60.0)
    try:
        while not stop.is_set():
            try:
                version = kibana.check()
                created = kibana.ensure_data_view(config.index)
            except NotReady as error:
                if backoff.failures == 0:
                    log.info("Kibana at %s is not ready: %s; trying in the background", kibana.url, error)
                stop.wait(backoff.next())
                continue
            except Refused as error:
                log.warning("Kibana at %s: %s; no data view from us", kibana.url, error)
                return
            log.info(
                "Kibana %s at %s: data view %r %s",
                version,
                kibana.url,
                config.index,
                "created" if created else "is there",
            )
            return
    finally:
        kibana.close()
