"""The import into Kibana during outages and with wrong credentials, missing privileges or spaces."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
from elastic_transport import ConnectionError as NodeUnreachable
from elasticsearch import AuthorizationException

from slurp.backoff import Backoff
from slurp.elastic.client import Elastic
from slurp.kibana.install import Installer
from slurp.logs import Secrets
from tests.harness import until
from tests.kibana_examples import example_objects
from tests.kibana_runs import InstallerRuns, install, kibana
from tests.stub_kibana import StubKibana

# Fixtures.
__all__ = ["install", "kibana"]


def test_the_error_of_an_import_is_logged_once(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    references = [{"type": "index-pattern", "id": "gone"}]
    kibana.import_errors = [
        {"type": "search", "id": "s", "error": {"type": "missing_references", "references": references}}
    ]
    thread, _ = install.start()
    until(lambda: len(kibana.imports) > 3)
    assert not kibana.objects
    kibana.import_errors = []
    thread.join(60)
    assert caplog.text.count("nothing was imported: search s: missing_references (index-pattern gone)") == 1
    assert len(kibana.objects) == 4


def test_a_wrong_password_is_logged_once_and_retried(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.password = "geheim"
    thread, _ = install.start("--kibana-pass", "falsch")
    until(lambda: len(kibana.requests) > 5)
    assert set(kibana.calls) == {"GET /api/status"}
    kibana.password = "falsch"
    thread.join(60)
    assert len(kibana.objects) == 4
    assert caplog.text.count("password of user 'elastic' rejected") == 1
    assert "falsch" not in caplog.text


def test_the_password_file_is_read_again(install: InstallerRuns, kibana: StubKibana, tmp_path: Path) -> None:
    kibana.password, kibana.user = "geheim", "kib"
    file = tmp_path / "password"
    file.write_text("falsch\n")
    thread, _ = install.start("--kibana-user", "kib", "--kibana-pass-file", str(file))
    until(lambda: len(kibana.requests) > 2)
    file.write_text("geheim\n")
    thread.join(60)
    assert len(kibana.objects) == 4


def test_the_api_key_of_elasticsearch_is_used(install: InstallerRuns, kibana: StubKibana) -> None:
    kibana.api_key = "a2V5"
    install("--es-api-key", "a2V5")
    assert len(kibana.objects) == 4


def test_the_api_key_file_is_read_again(install: InstallerRuns, kibana: StubKibana, tmp_path: Path) -> None:
    kibana.api_key = "a2V5"
    file = tmp_path / "key"
    file.write_text("YWx0\n")
    thread, _ = install.start("--es-api-key-file", str(file))
    until(lambda: len(kibana.requests) > 2)
    file.write_text("a2V5\n")
    thread.join(60)
    assert len(kibana.objects) == 4


def test_a_kibana_user_takes_precedence_over_the_api_key(install: InstallerRuns, kibana: StubKibana) -> None:
    kibana.user, kibana.password = "kib", "пароль"
    install("--es-api-key", "a2V5", "--kibana-user", "kib", "--kibana-pass", "пароль")
    assert len(kibana.objects) == 4


def test_an_id_of_another_space_is_reported(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    install()
    _, stop = install.start("--kibana-space", "team")
    until(lambda: "conflict (" in caplog.text)
    stop.set()
    assert "index-pattern view exists in another space, so Kibana imported it as" in caplog.text


def test_a_missing_space_is_reported(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    thread, _ = install.start("--kibana-space", "nowhere")
    until(lambda: "space 'nowhere' does not exist" in caplog.text)
    assert not kibana.imports
    kibana.spaces.add("nowhere")
    thread.join(60)
    assert len(kibana.objects) == 4


def test_a_base_path_is_supported(install: InstallerRuns, caplog: pytest.LogCaptureFixture) -> None:
    with StubKibana(base_path="/kibana") as kibana:
        install.kibana = kibana
        install()
        assert len(kibana.objects) == 4
        root = kibana.url.removesuffix("/kibana")
        _, stop = install.start("--kibana", root)
        until(lambda: "no Kibana at this path" in caplog.text)
        stop.set()


def test_a_starting_kibana_is_retried(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.starting = True
    thread, _ = install.start()
    until(lambda: len(kibana.requests) > 3)
    kibana.starting, kibana.level = False, "critical"
    until(lambda: "status critical" in caplog.text)
    kibana.level = "degraded"
    thread.join(60)
    assert len(kibana.objects) == 4
    assert caplog.text.count("not ready: status unavailable") == 1


def test_an_old_kibana_is_reported(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.version = "8.8.2"
    thread, _ = install.start()
    until(lambda: "version 8.8.2 is not supported (required: 8.9 or later)" in caplog.text)
    kibana.version = "8.10.0"
    thread.join(60)
    assert len(kibana.objects) == 4


def test_a_missing_privilege_for_the_default_data_view_is_no_failure(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.forbidden_paths = ("data_views",)
    install()
    assert "the default data view was not set: missing privilege: 403 Forbidden by the test" in caplog.text
    assert "2 dashboards created" in caplog.text


def test_a_missing_privilege_is_reported(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.forbidden_paths = ("_export",)
    thread, _ = install.start()
    until(lambda: "missing privilege: 403 Forbidden by the test" in caplog.text)
    kibana.forbidden_paths = ()
    thread.join(60)
    assert len(kibana.objects) == 4


class FailingElastic:
    """An Elasticsearch whose first requests fail with an error."""

    def __init__(self, elastic: Elastic, error: Exception, times: int) -> None:
        self._elastic = elastic
        self._error = error
        self._times = times

    @property
    def client(self) -> Any:
        return self

    def options(self, **options: Any) -> Any:
        if self._times:
            self._times -= 1
            return self
        return self._elastic.client.options(**options)

    def get(self, **request: Any) -> Any:
        raise self._error

    index = get


def test_without_the_privilege_for_the_record_the_import_succeeds(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    meta = ApiResponseMeta(403, "1.1", HttpHeaders(), 0.0, NodeConfig("http", "localhost", 9200))
    denied = AuthorizationException("security_exception", meta, {"error": {"reason": "no"}})
    install.elastic = FailingElastic(cast(Elastic, install.elastic), denied, 1000)
    install()
    assert len(kibana.objects) == 4
    assert caplog.text.count("cannot record the objects imported into Kibana") == 1
    install.set_objects(example_objects("second"))
    install()
    assert install.panel_title("view-a") == "first"


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_an_outage_of_elasticsearch_is_retried(
    install: InstallerRuns, kibana: StubKibana, failures: int
) -> None:
    kibana.migrates = True
    install.elastic = FailingElastic(cast(Elastic, install.elastic), NodeUnreachable("down"), failures)
    install()
    install.set_objects(example_objects("second"))
    install()
    assert len(kibana.imports) == 2
    assert install.panel_title("view-a") == "second"


def test_stopping_interrupts_the_delay(install: InstallerRuns, kibana: StubKibana) -> None:
    kibana.starting = True
    installer = Installer(
        install.config(), install.elastic, Secrets(()), short=Backoff(60, 60), long=Backoff(60, 60)
    )
    stop = threading.Event()
    thread = threading.Thread(target=installer.run, args=(stop,), daemon=True)
    thread.start()
    until(lambda: kibana.requests)
    stop.set()
    thread.join(2)
    assert not thread.is_alive()
