"""Kibana gets what is ours, once, and keeps what is somebody else's; a stub stands in for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
from elastic_transport import ConnectionError as NodeUnreachable
from elasticsearch import AuthorizationException, Elasticsearch

from slurp.backoff import Backoff
from slurp.config import Config, parse
from slurp.elastic.client import Elastic
from slurp.elastic.setup import create_index
from slurp.elastic.templates import STATE_INDEX, asset
from slurp.embedded.node import EmbeddedNode
from slurp.kibana import objects
from slurp.kibana.install import Installer
from slurp.logs import Secrets
from tests.stub_kibana import StubKibana, built

Json = dict[str, Any]


class Starts:
    """Starts of the worker's kibana thread, on a real Elasticsearch."""

    def __init__(self, kibana: StubKibana, url: str, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kibana = kibana
        self.index = index
        self.es_url = url
        self.elastic: Any = Elastic(self.config(), Secrets(()))
        self._monkeypatch = monkeypatch
        self.build(built())

    def build(self, ours: list[Json]) -> None:
        self._monkeypatch.setattr(objects, "build", lambda index, space="": ours)

    def config(self, *options: str) -> Config:
        return parse(["--es", self.es_url, "--index", self.index, "--kibana", self.kibana.url, *options], {})

    def installer(self, *options: str, version: str = "0.1.0") -> Installer:
        return Installer(
            self.config(*options),
            self.elastic,
            Secrets(()),
            soon=Backoff(0.01, 0.02),
            rarely=Backoff(0.01, 0.02),
            version=version,
        )

    def __call__(self, *options: str, version: str = "0.1.0") -> None:
        """One start, to its end."""
        thread, stop = self.begin(*options, version=version)
        thread.join(60)
        stop.set()
        assert not thread.is_alive(), self.kibana.calls

    def begin(self, *options: str, version: str = "0.1.0") -> tuple[threading.Thread, threading.Event]:
        stop = threading.Event()
        installer = self.installer(*options, version=version)
        thread = threading.Thread(target=installer.run, args=(stop,), daemon=True)
        thread.start()
        return thread, stop

    def forget(self) -> None:
        self.elastic.client.delete(index=STATE_INDEX, id=f"kibana:{self.index}:default")

    def panel_title(self, name: str) -> str:
        panels = json.loads(self.kibana.body("dashboard", name)["attributes"]["panelsJSON"])
        return str(panels[0]["title"]).split()[0]


@pytest.fixture
def kibana() -> Iterator[StubKibana]:
    with StubKibana() as stub:
        yield stub


@pytest.fixture
def start(
    kibana: StubKibana,
    es_node: EmbeddedNode,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Starts:
    caplog.set_level("INFO", "slurp.kibana")
    monkeypatch.setenv("HOME", str(tmp_path))
    create_index(es, STATE_INDEX, **asset("state"))
    return Starts(kibana, es_node.url, fresh_index_prefix, monkeypatch)


def wait_until(condition: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rename(attributes: Json) -> None:
    attributes["panelsJSON"][0]["title"] = "mine"


def test_a_new_kibana_gets_everything_at_once(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    assert kibana.imports == [(False, [(one["type"], one["id"]) for one in built()])]
    assert kibana.body("dashboard", "view-a")["attributes"] == built()[2]["attributes"]
    assert kibana.defaults == {"": "view"}
    assert "Kibana 9.5.3 at" in caplog.text
    assert "1 data view, 1 search, 2 dashboards created; the first data view is the default" in caplog.text
    assert f"see {kibana.url}/app/dashboards#/view/view-a" in caplog.text
    assert all(one.headers["kbn-xsrf"] for one in kibana.asked)


def test_a_second_start_writes_nothing(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    asked = len(kibana.asked)
    caplog.clear()
    start()
    assert kibana.calls[asked:] == [
        "GET /api/status",
        "GET /api/status",
        "POST /api/saved_objects/_export",
        "GET /api/data_views/default",
    ]
    (record,) = caplog.records
    assert "everything is there, nothing to do" in record.getMessage()


@pytest.mark.parametrize("version", ["0.1.0", "0.10.0"])
@pytest.mark.parametrize("migrates", [False, True])
def test_an_upgrade_replaces_what_nobody_edited(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture, version: str, migrates: bool
) -> None:
    kibana.migrates = migrates
    start(version="0.1.0")
    # A save without a change, and the count of Discover, are no edits.
    kibana.edit("dashboard", "view-a")
    kibana.look_at_fields("view", "did", "text")
    start.build(built("second"))
    start(version=version)
    assert kibana.imports[1:] == [(True, [("dashboard", "view-a"), ("dashboard", "view-b")])]
    assert start.panel_title("view-a") == start.panel_title("view-b") == "second"
    assert "2 dashboards replaced" in caplog.text
    start(version=version)
    assert len(kibana.imports) == 2


def test_popularity_is_no_edit_of_a_data_view(start: Starts, kibana: StubKibana) -> None:
    start()
    kibana.look_at_fields("view", "did", "text")
    renamed = built()
    renamed[0]["attributes"]["name"] = "Other name"
    start.build(renamed)
    start()
    assert kibana.imports[1:] == [(True, [("index-pattern", "view")])]


@pytest.mark.parametrize("migrates", [False, True])
def test_an_edited_one_is_left_alone_and_named(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture, migrates: bool
) -> None:
    kibana.migrates = migrates
    start()
    kibana.edit("dashboard", "view-a", rename)
    start.build(built("second"))
    start()
    assert (start.panel_title("view-a"), start.panel_title("view-b")) == ("mine", "second")
    assert "left alone, edited: dashboard 'Dashboard a' (--kibana-overwrite replaces them)" in caplog.text
    start("--kibana-overwrite")
    assert start.panel_title("view-a") == "second"
    start.build(built("third"))
    start()
    assert start.panel_title("view-a") == "third"


def test_overwrite_replaces_all_whatever_is_there(start: Starts, kibana: StubKibana) -> None:
    start("--kibana-overwrite")
    start("--kibana-overwrite")
    assert [(overwrite, len(keys)) for overwrite, keys in kibana.imports] == [(False, 4), (True, 4)]


def test_versions_of_equal_content_do_not_quarrel(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.migrates = True
    start(version="0.10.0")
    start(version="0.9.0")
    assert "everything is there, nothing to do" in caplog.text


def test_an_older_version_leaves_a_newer_one_alone(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    start(version="0.10.0")
    start.build(built("older"))
    start(version="0.9.0")
    assert len(kibana.imports) == 1
    assert "left alone, of a newer version: dashboard 'Dashboard a', dashboard 'Dashboard b'" in caplog.text


def test_what_was_deleted_comes_back(start: Starts, kibana: StubKibana) -> None:
    start()
    kibana.edit("dashboard", "view-b", rename)
    del kibana.objects["dashboard", "view-a"]
    start()
    assert kibana.imports[1:] == [(False, [("dashboard", "view-a")])]


def test_with_the_memory_lost_equal_ones_are_adopted(start: Starts, kibana: StubKibana) -> None:
    start()
    kibana.edit("dashboard", "view-b", rename)
    start.forget()
    start()
    start.build(built("second"))
    start()
    assert (start.panel_title("view-a"), start.panel_title("view-b")) == ("second", "mine")


def test_an_unknown_one_that_differs_is_left_alone(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    start.forget()
    start.build(built("second"))
    start()
    assert start.panel_title("view-a") == "first"
    assert "left alone, not remembered as ours: dashboard 'Dashboard a'" in caplog.text


def test_the_error_of_an_import_is_told_once(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    references = [{"type": "index-pattern", "id": "gone"}]
    kibana.refuses_import = [
        {"type": "search", "id": "s", "error": {"type": "missing_references", "references": references}}
    ]
    thread, _ = start.begin()
    wait_until(lambda: len(kibana.imports) > 3)
    assert not kibana.objects
    kibana.refuses_import = []
    thread.join(60)
    assert caplog.text.count("nothing was imported: search s: missing_references (index-pattern gone)") == 1
    assert len(kibana.objects) == 4


def test_a_wrong_password_is_told_once_and_can_be_mended(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.password = "geheim"
    thread, _ = start.begin("--kibana-pass", "falsch")
    wait_until(lambda: len(kibana.asked) > 5)
    assert set(kibana.calls) == {"GET /api/status"}
    kibana.password = "falsch"
    thread.join(60)
    assert len(kibana.objects) == 4
    assert caplog.text.count("refuses the password of user 'elastic'") == 1
    assert "falsch" not in caplog.text


def test_a_password_file_is_read_again(start: Starts, kibana: StubKibana, tmp_path: Path) -> None:
    kibana.password, kibana.user = "geheim", "kib"
    file = tmp_path / "password"
    file.write_text("falsch\n")
    thread, _ = start.begin("--kibana-user", "kib", "--kibana-pass-file", str(file))
    wait_until(lambda: len(kibana.asked) > 2)
    file.write_text("geheim\n")
    thread.join(60)
    assert len(kibana.objects) == 4


def test_the_api_key_of_elasticsearch_is_used(start: Starts, kibana: StubKibana) -> None:
    kibana.api_key = "a2V5"
    start("--es-api-key", "a2V5")
    assert len(kibana.objects) == 4


def test_the_file_of_an_api_key_is_read_again(start: Starts, kibana: StubKibana, tmp_path: Path) -> None:
    kibana.api_key = "a2V5"
    file = tmp_path / "key"
    file.write_text("YWx0\n")
    thread, _ = start.begin("--es-api-key-file", str(file))
    wait_until(lambda: len(kibana.asked) > 2)
    file.write_text("a2V5\n")
    thread.join(60)
    assert len(kibana.objects) == 4


def test_a_user_for_kibana_comes_before_the_api_key(start: Starts, kibana: StubKibana) -> None:
    kibana.user, kibana.password = "kib", "пароль"
    start("--es-api-key", "a2V5", "--kibana-user", "kib", "--kibana-pass", "пароль")
    assert len(kibana.objects) == 4


def test_a_lost_answer_is_no_reason_to_import_twice(start: Starts, kibana: StubKibana) -> None:
    kibana.migrates = True
    kibana.loses_answers = 1
    start()
    start.build(built("second"))
    kibana.loses_answers = 1
    start()
    assert [overwrite for overwrite, _ in kibana.imports] == [False, True]
    assert start.panel_title("view-a") == "second"


def test_of_two_at_once_one_imports(start: Starts, kibana: StubKibana) -> None:
    started = [start.begin() for _ in range(3)]
    for thread, _ in started:
        thread.join(60)
        assert not thread.is_alive()
    assert not any(overwrite for overwrite, _ in kibana.imports)
    start.build(built("second"))
    start()
    assert start.panel_title("view-a") == "second"


def test_a_space_has_its_own(start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture) -> None:
    start("--kibana-space", "team")
    assert {saved.space for saved in kibana.objects.values()} == {"team"}
    assert kibana.defaults == {"team": "view"}
    assert f"see {kibana.url}/s/team/app/dashboards#/view/view-a" in caplog.text
    start("--kibana-space", "team")
    assert len(kibana.imports) == 1


def test_ids_do_not_meet_between_spaces(
    start: Starts, kibana: StubKibana, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    start()
    start("--kibana-space", "team")
    spaces = {saved.space for saved in kibana.objects.values()}
    assert spaces == {"", "team"}
    assert not [saved for saved in kibana.objects.values() if saved.origin]


def test_an_id_that_another_space_holds_is_told(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    _, stop = start.begin("--kibana-space", "team")
    wait_until(lambda: "conflict (" in caplog.text)
    stop.set()
    assert "another space holds index-pattern view, so that here it became" in caplog.text


def test_a_space_that_does_not_exist_is_told(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    thread, _ = start.begin("--kibana-space", "nowhere")
    wait_until(lambda: "there is no space 'nowhere'" in caplog.text)
    assert not kibana.imports
    kibana.spaces.add("nowhere")
    thread.join(60)
    assert len(kibana.objects) == 4


def test_a_base_path_is_part_of_the_address(start: Starts, caplog: pytest.LogCaptureFixture) -> None:
    with StubKibana(base_path="/kibana") as kibana:
        start.kibana = kibana
        start()
        assert len(kibana.objects) == 4
        root = kibana.url.removesuffix("/kibana")
        _, stop = start.begin("--kibana", root)
        wait_until(lambda: "there is no Kibana at this path" in caplog.text)
        stop.set()


def test_a_kibana_that_is_starting_is_waited_for(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.starting = True
    thread, _ = start.begin()
    wait_until(lambda: len(kibana.asked) > 3)
    kibana.starting, kibana.level = False, "critical"
    wait_until(lambda: "its status is critical" in caplog.text)
    kibana.level = "degraded"
    thread.join(60)
    assert len(kibana.objects) == 4
    assert caplog.text.count("is not ready: its status is unavailable") == 1


def test_an_old_kibana_is_told(start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture) -> None:
    kibana.version = "8.8.2"
    thread, _ = start.begin()
    wait_until(lambda: "version 8.8.2 is too old, 8.9 or later is needed" in caplog.text)
    kibana.version = "8.10.0"
    thread.join(60)
    assert len(kibana.objects) == 4


def test_a_default_that_somebody_chose_stays(start: Starts, kibana: StubKibana) -> None:
    kibana.defaults[""] = "logs"
    start()
    assert kibana.defaults == {"": "logs"}


def test_a_right_that_is_missing_for_the_default_alone_is_no_failure(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.forbids = ("data_views",)
    start()
    assert "the default data view stays as it is: we lack a right: 403 Forbidden by the test" in caplog.text
    assert "2 dashboards created" in caplog.text


def test_a_missing_right_is_told(start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture) -> None:
    kibana.forbids = ("_export",)
    thread, _ = start.begin()
    wait_until(lambda: "we lack a right: 403 Forbidden by the test" in caplog.text)
    kibana.forbids = ()
    thread.join(60)
    assert len(kibana.objects) == 4


class Failing:
    """Elasticsearch for the kibana thread, failing as told."""

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


def test_without_the_right_to_remember_it_goes_on(
    start: Starts, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    meta = ApiResponseMeta(403, "1.1", HttpHeaders(), 0.0, NodeConfig("http", "localhost", 9200))
    denied = AuthorizationException("security_exception", meta, {"error": {"reason": "no"}})
    start.elastic = Failing(cast(Elastic, start.elastic), denied, 1000)
    start()
    assert len(kibana.objects) == 4
    assert caplog.text.count("can't remember what Kibana got") == 1
    start.build(built("second"))
    start()
    assert start.panel_title("view-a") == "first"


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_elasticsearch_in_trouble_is_waited_for(start: Starts, kibana: StubKibana, failures: int) -> None:
    kibana.migrates = True
    start.elastic = Failing(cast(Elastic, start.elastic), NodeUnreachable("down"), failures)
    start()
    start.build(built("second"))
    start()
    assert len(kibana.imports) == 2
    assert start.panel_title("view-a") == "second"


def test_stopping_ends_the_wait(start: Starts, kibana: StubKibana) -> None:
    kibana.starting = True
    installer = Installer(
        start.config(), start.elastic, Secrets(()), soon=Backoff(60, 60), rarely=Backoff(60, 60)
    )
    stop = threading.Event()
    thread = threading.Thread(target=installer.run, args=(stop,), daemon=True)
    thread.start()
    wait_until(lambda: kibana.asked)
    stop.set()
    thread.join(2)
    assert not thread.is_alive()
