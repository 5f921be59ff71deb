"""Runs of the Kibana installer for tests, and their fixtures."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from slurp.backoff import Backoff
from slurp.config import Config, parse
from slurp.elastic.client import Elastic
from slurp.elastic.setup import create_index
from slurp.elastic.templates import STATE_INDEX, asset
from slurp.embedded.node import EmbeddedNode
from slurp.kibana import objects
from slurp.kibana.install import Installer
from slurp.logs import Secrets
from tests.kibana_examples import example_objects
from tests.stub_kibana import StubKibana

Json = dict[str, Any]


class InstallerRuns:
    """Runs the installer against the stub of Kibana and a real Elasticsearch."""

    def __init__(self, kibana: StubKibana, url: str, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kibana = kibana
        self.index = index
        self.es_url = url
        self.elastic: Any = Elastic(self.config(), Secrets(()))
        self._monkeypatch = monkeypatch
        self.set_objects(example_objects())

    def set_objects(self, built: list[Json]) -> None:
        """Set the objects of this version, as an upgrade does."""
        self._monkeypatch.setattr(objects, "build", lambda index, space="", has_links=True: built)

    def config(self, *options: str) -> Config:
        return parse(["--es", self.es_url, "--index", self.index, "--kibana", self.kibana.url, *options], {})

    def installer(self, *options: str, version: str = "0.1.0") -> Installer:
        return Installer(
            self.config(*options),
            self.elastic,
            Secrets(()),
            short=Backoff(0.01, 0.02),
            long=Backoff(0.01, 0.02),
            version=version,
        )

    def __call__(self, *options: str, version: str = "0.1.0") -> None:
        """Run the installer to its end."""
        thread, stop = self.start(*options, version=version)
        thread.join(60)
        stop.set()
        assert not thread.is_alive(), self.kibana.calls

    def start(self, *options: str, version: str = "0.1.0") -> tuple[threading.Thread, threading.Event]:
        """Start the installer; return its thread and the event that stops it."""
        stop = threading.Event()
        installer = self.installer(*options, version=version)
        thread = threading.Thread(target=installer.run, args=(stop,), daemon=True)
        thread.start()
        return thread, stop

    def delete_record(self) -> None:
        self.elastic.client.delete(index=STATE_INDEX, id=f"kibana:{self.index}:default")

    def panel_title(self, name: str) -> str:
        """Return the first word of the title of a dashboard's first panel."""
        panels = json.loads(self.kibana.body("dashboard", name)["attributes"]["panelsJSON"])
        return str(panels[0]["title"]).split()[0]


@pytest.fixture
def kibana() -> Iterator[StubKibana]:
    with StubKibana() as stub:
        yield stub


@pytest.fixture
def install(
    kibana: StubKibana,
    es_node: EmbeddedNode,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> InstallerRuns:
    caplog.set_level("INFO", "slurp.kibana")
    monkeypatch.setenv("HOME", str(tmp_path))
    create_index(es, STATE_INDEX, **asset("state"))
    return InstallerRuns(kibana, es_node.url, fresh_index_prefix, monkeypatch)


def rename(attributes: Json) -> None:
    """Edit the title of a panel, as a user does."""
    attributes["panelsJSON"][0]["title"] = "edited"
