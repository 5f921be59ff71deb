"""The import into Kibana: which objects are created, replaced or left to the user. Kibana is a stub."""

from __future__ import annotations

import pytest

from tests.kibana_examples import example_objects
from tests.kibana_runs import InstallerRuns, install, kibana, rename
from tests.stub_kibana import StubKibana

# Fixtures.
__all__ = ["install", "kibana"]


def test_all_objects_are_imported_into_a_new_kibana(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    install()
    assert kibana.imports == [(False, [(one["type"], one["id"]) for one in example_objects()])]
    assert kibana.body("dashboard", "view-a")["attributes"] == example_objects()[2]["attributes"]
    assert kibana.defaults == {"": "view"}
    assert "Kibana 9.5.3 at" in caplog.text
    assert (
        "1 data view, 1 search, 2 dashboards created; the first data view is now the default" in caplog.text
    )
    assert f"open {kibana.url}/app/dashboards#/view/view-a" in caplog.text
    assert all(one.headers["kbn-xsrf"] for one in kibana.requests)


@pytest.mark.parametrize(
    ("version", "expected"), [("8.9.0", False), ("8.10.4", False), ("8.11.0", True), ("9.0.0", True)]
)
def test_links_panels_are_imported_if_kibana_has_them(
    install: InstallerRuns,
    kibana: StubKibana,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    expected: bool,
) -> None:
    kibana.version = version
    asked: list[bool] = []

    def build(index: str, space: str, has_links: bool) -> list[dict[str, object]]:
        asked.append(has_links)
        return example_objects()

    monkeypatch.setattr("slurp.kibana.objects.build", build)
    install()
    assert asked == [expected]


def test_a_restart_imports_nothing(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    install()
    before = len(kibana.requests)
    caplog.clear()
    install()
    assert kibana.calls[before:] == [
        "GET /api/status",
        "GET /api/status",
        "POST /api/saved_objects/_export",
        "GET /api/data_views/default",
    ]
    (record,) = caplog.records
    assert "all objects are up to date" in record.getMessage()


@pytest.mark.parametrize("version", ["0.1.0", "0.10.0"])
@pytest.mark.parametrize("migrates", [False, True])
def test_an_upgrade_replaces_unedited_objects(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture, version: str, migrates: bool
) -> None:
    kibana.migrates = migrates
    install(version="0.1.0")
    # Saving without a change and the popularity counts of Discover are no edits.
    kibana.edit("dashboard", "view-a")
    kibana.open_discover("view", "did", "text")
    install.set_objects(example_objects("second"))
    install(version=version)
    assert kibana.imports[1:] == [(True, [("dashboard", "view-a"), ("dashboard", "view-b")])]
    assert install.panel_title("view-a") == install.panel_title("view-b") == "second"
    assert "2 dashboards replaced" in caplog.text
    install(version=version)
    assert len(kibana.imports) == 2


def test_field_popularity_is_no_edit_of_a_data_view(install: InstallerRuns, kibana: StubKibana) -> None:
    install()
    kibana.open_discover("view", "did", "text")
    renamed = example_objects()
    renamed[0]["attributes"]["name"] = "Other name"
    install.set_objects(renamed)
    install()
    assert kibana.imports[1:] == [(True, [("index-pattern", "view")])]


@pytest.mark.parametrize("migrates", [False, True])
def test_an_edited_object_is_not_replaced_and_logged(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture, migrates: bool
) -> None:
    kibana.migrates = migrates
    install()
    kibana.edit("dashboard", "view-a", rename)
    install.set_objects(example_objects("second"))
    install()
    assert (install.panel_title("view-a"), install.panel_title("view-b")) == ("edited", "second")
    assert "not replaced, edited: dashboard 'Dashboard a' (replace with --kibana-overwrite)" in caplog.text
    install("--kibana-overwrite")
    assert install.panel_title("view-a") == "second"
    install.set_objects(example_objects("third"))
    install()
    assert install.panel_title("view-a") == "third"


def test_overwrite_replaces_all_objects(install: InstallerRuns, kibana: StubKibana) -> None:
    install("--kibana-overwrite")
    install("--kibana-overwrite")
    assert [(overwrite, len(keys)) for overwrite, keys in kibana.imports] == [(False, 4), (True, 4)]


def test_versions_with_equal_objects_do_not_replace_each_other(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    kibana.migrates = True
    install(version="0.10.0")
    install(version="0.9.0")
    assert "all objects are up to date" in caplog.text


def test_an_older_version_does_not_replace_newer_objects(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    install(version="0.10.0")
    install.set_objects(example_objects("older"))
    install(version="0.9.0")
    assert len(kibana.imports) == 1
    assert (
        "not replaced, from a newer version: dashboard 'Dashboard a', dashboard 'Dashboard b'" in caplog.text
    )


def test_a_deleted_object_is_imported_again(install: InstallerRuns, kibana: StubKibana) -> None:
    install()
    kibana.edit("dashboard", "view-b", rename)
    del kibana.objects["dashboard", "view-a"]
    install()
    assert kibana.imports[1:] == [(False, [("dashboard", "view-a")])]


def test_without_a_record_equal_objects_are_recorded(install: InstallerRuns, kibana: StubKibana) -> None:
    install()
    kibana.edit("dashboard", "view-b", rename)
    install.delete_record()
    install()
    install.set_objects(example_objects("second"))
    install()
    assert (install.panel_title("view-a"), install.panel_title("view-b")) == ("second", "edited")


def test_without_a_record_different_objects_are_not_replaced(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    install()
    install.delete_record()
    install.set_objects(example_objects("second"))
    install()
    assert install.panel_title("view-a") == "first"
    assert "not replaced, not in the import record: dashboard 'Dashboard a'" in caplog.text


def test_a_lost_response_does_not_cause_a_second_import(install: InstallerRuns, kibana: StubKibana) -> None:
    kibana.migrates = True
    kibana.lost_responses = 1
    install()
    install.set_objects(example_objects("second"))
    kibana.lost_responses = 1
    install()
    assert [overwrite for overwrite, _ in kibana.imports] == [False, True]
    assert install.panel_title("view-a") == "second"


def test_of_concurrent_workers_one_imports(install: InstallerRuns, kibana: StubKibana) -> None:
    started = [install.start() for _ in range(3)]
    for thread, _ in started:
        thread.join(60)
        assert not thread.is_alive()
    assert not any(overwrite for overwrite, _ in kibana.imports)
    install.set_objects(example_objects("second"))
    install()
    assert install.panel_title("view-a") == "second"


def test_objects_are_imported_into_the_space(
    install: InstallerRuns, kibana: StubKibana, caplog: pytest.LogCaptureFixture
) -> None:
    install("--kibana-space", "team")
    assert {saved.space for saved in kibana.objects.values()} == {"team"}
    assert kibana.defaults == {"team": "view"}
    assert f"open {kibana.url}/s/team/app/dashboards#/view/view-a" in caplog.text
    install("--kibana-space", "team")
    assert len(kibana.imports) == 1


def test_ids_differ_between_spaces(
    install: InstallerRuns, kibana: StubKibana, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    install()
    install("--kibana-space", "team")
    spaces = {saved.space for saved in kibana.objects.values()}
    assert spaces == {"", "team"}
    assert not [saved for saved in kibana.objects.values() if saved.origin]


def test_an_existing_default_data_view_stays(install: InstallerRuns, kibana: StubKibana) -> None:
    kibana.defaults[""] = "logs"
    install()
    assert kibana.defaults == {"": "logs"}
