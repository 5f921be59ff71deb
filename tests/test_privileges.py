"""The documented roles, with real users: sufficient for their purpose, and no more than that."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import AuthorizationException, BadRequestError, Elasticsearch

from slurp.config import parse
from slurp.elastic.days import SECONDS_PER_DAY, Clocks
from slurp.elastic.expunge import Expunge
from slurp.elastic.privileges import ROLES, api_key, main, setup, viewer, worker, worker_with_setup
from slurp.elastic.setup import Setup
from slurp.elastic.templates import STATE_INDEX, STATS_INDEX
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Exit, Fatal
from slurp.events.times import day_of
from slurp.lexicons import committed
from slurp.pipeline.disk_budget import BudgetClock, DiskBudget
from slurp.simulator.jetstream import Simulator
from tests.file_realm import FileRealm
from tests.harness import InProcess
from tests.test_disk_budget import fill
from tests.test_elasticsearch_faults import assert_all_indexed
from tests.test_expunge import SETTING as EXPUNGE_SETTING
from tests.test_expunge import fill as fill_with_deleted
from tests.test_http_worker import HttpClient
from tests.test_retention import remaining
from tests.tiers import slow_except
from tests.worker import Worker, assert_stats_add_up

PASSWORD = "geheim-geheim"
DOCS = Path(__file__).parents[1] / "docs" / "privileges.md"
# A fixed prefix, because the roles are written once, before the first test.
INDEX = "t-privileges"

# The users are created once, on one node.
pytestmark = pytest.mark.cluster_wide


def without(role: dict[str, list[dict[str, list[str]]]], privilege: str) -> dict[str, object]:
    """Return a role without one privilege on the daily indices."""
    first, *others = role["indices"]
    reduced = {**first, "privileges": [name for name in first["privileges"] if name != privilege]}
    return {**role, "indices": [reduced, *others]}


def without_stats(role: dict[str, Any]) -> dict[str, Any]:
    """Return a role without privileges on the index of statistics, as in versions without statistics."""
    indices = [
        {**entry, "names": [name for name in entry["names"] if name != STATS_INDEX]}
        for entry in role["indices"]
    ]
    return {**role, "indices": indices}


@pytest.fixture(scope="module")
def realm(cluster_wide_node: EmbeddedNode) -> FileRealm:
    realm = FileRealm(cluster_wide_node)
    realm.roles({"t_admin": setup(INDEX), "t_worker": worker(INDEX), "t_nobody": {"cluster": ["monitor"]}})
    for name in ("admin", "worker", "nobody"):
        realm.add(f"t_{name}", PASSWORD, f"t_{name}")
    # The roles file may be loaded after the files of the users.
    realm.wait_for_privilege("t_worker", PASSWORD, f"{INDEX}-x", "index")
    return realm


def set_up(realm: FileRealm, es_node: EmbeddedNode, user: str, *options: str) -> None:
    """Run the setup as a user, with these options."""
    config = parse(["--es", es_node.url, "--index", INDEX, *options], {})
    with realm.client(user, PASSWORD) as client:
        Setup(config, committed()).run(client)


def remove(es: Elasticsearch) -> None:
    """Delete the daily indices and the index template."""
    for name in es.indices.get(index=f"{INDEX}-*"):
        es.indices.delete(index=name)
    es.options(ignore_status=404).indices.delete_index_template(name=INDEX)


def test_roles_are_sufficient_and_a_missing_privilege_is_named(
    realm: FileRealm,
    es_node: EmbeddedNode,
    es: Elasticsearch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    remove(es)
    with pytest.raises(
        Fatal, match=r"the (cluster|index) privilege '\w+' in Elasticsearch is missing"
    ) as stopped:
        set_up(realm, es_node, "t_worker")
    assert stopped.value.code is Exit.USAGE
    set_up(realm, es_node, "t_admin", "--setup-only")
    set_up(realm, es_node, "t_worker", "--no-setup")
    # With options for other templates: only a warning, because templates of this version exist.
    set_up(realm, es_node, "t_worker", "--shards", "2")
    assert "the setup is not changed: the " in caplog.text

    options = ("--es-user", "t_worker", "--es-pass", PASSWORD, "--no-setup")
    indexer = InProcess(es_node.url, INDEX, tmp_path, *options)
    frames = indexer.posts()
    indexer.feed(frames[:1])

    # A privilege that is lost while the worker is running: the events are held.
    realm.roles({"t_admin": setup(INDEX), "t_worker": without(worker(INDEX), "index")})
    realm.wait_for_privilege("t_worker", PASSWORD, f"{INDEX}-x", "index", granted=False)

    # If it is not restored, the worker ends, after a minute unless a test shortens the time.
    unprivileged = InProcess(es_node.url, INDEX, tmp_path, *options, setup=False)
    with monkeypatch.context() as patch, pytest.raises(Fatal, match=r"\(403 security") as stopped:
        patch.setattr("slurp.pipeline.delivery.CREDENTIALS_TIMEOUT", 0.5)
        unprivileged.feed(frames[1:])
    assert stopped.value.code is Exit.USAGE
    assert unprivileged.elastic.credentials_rejected() >= 0.5

    def restore() -> None:
        realm.roles({"t_admin": setup(INDEX), "t_worker": worker(INDEX)})

    counted = indexer.feed_through_outage(frames[1:], restore)
    assert_all_indexed(es, INDEX, counted, frames)
    indexer.unknown_fields.flush(indexer.elastic.client)
    remove(es)


def test_the_worker_role_can_measure_and_delete_days_for_max_disk(
    realm: FileRealm, es_node: EmbeddedNode, es: Elasticsearch, tmp_path: Path
) -> None:
    set_up(realm, es_node, "t_admin", "--setup-only", "--max-disk", "100MB")
    realm.roles({"t_admin": setup(INDEX), "t_worker": worker(INDEX)})
    realm.wait_for_privilege("t_worker", PASSWORD, f"{INDEX}-x", "monitor")
    indexer = InProcess(
        es_node.url, INDEX, tmp_path, "--es-user", "t_worker", "--es-pass", PASSWORD, "--no-setup"
    )
    _, today = fill(es, INDEX, indexer.day - 1, indexer.day)
    indexer.days.disk_state.save_budget(4_000_000)
    clock = BudgetClock(earliest=lambda: indexer.began)
    assert DiskBudget(indexer.elastic, indexer.days, 4_000_000, indexer.channel, clock).step()
    assert remaining(es, INDEX) == {today}
    es.delete(index=STATE_INDEX, id=f"disk:{INDEX}")
    remove(es)


def finish(expunge: Expunge) -> None:
    """Run the task until there is nothing more to do."""
    while expunge.step():
        time.sleep(0.1)


@pytest.mark.slow
def test_the_worker_role_can_merge_past_days_with_deleted_documents(
    realm: FileRealm,
    es_node: EmbeddedNode,
    es: Elasticsearch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="slurp.elastic.expunge")
    set_up(realm, es_node, "t_admin", "--setup-only")
    realm.roles({"t_admin": setup(INDEX), "t_worker": worker(INDEX)})
    realm.wait_for_privilege("t_worker", PASSWORD, f"{INDEX}-x", "maintenance")
    options = ("--es-user", "t_worker", "--es-pass", PASSWORD, "--no-setup")
    indexer = InProcess(es_node.url, INDEX, tmp_path, *options)
    past_day = f"{INDEX}-{day_of(indexer.day - 2)}"
    fill_with_deleted(es, past_day, 500)
    # As in an index of an earlier version, which this role may not change.
    es.indices.put_settings(index=past_day, settings={EXPUNGE_SETTING: None})
    minutes = (60.0 * number for number in itertools.count())
    night = Clocks(now=lambda: indexer.day * SECONDS_PER_DAY + 3.5 * 3600, monotonic=lambda: next(minutes))
    finish(Expunge(indexer.elastic, INDEX, night))
    assert f"merged {past_day}: " in caplog.text
    caplog.clear()
    realm.roles({"t_admin": setup(INDEX), "t_worker": without(worker(INDEX), "maintenance")})
    realm.wait_for_privilege("t_worker", PASSWORD, f"{INDEX}-x", "maintenance", granted=False)
    finish(Expunge(indexer.elastic, INDEX, night))
    assert f"{past_day} could not be merged; trying again in the next night: " in caplog.text
    assert "security_exception" in caplog.text
    remove(es)


@pytest.mark.slow
def test_a_changed_password_is_read_from_its_file(
    realm: FileRealm, es_node: EmbeddedNode, es: Elasticsearch, jetstream: Simulator, tmp_path: Path
) -> None:
    set_up(realm, es_node, "t_admin")
    realm.roles({"t_admin": setup(INDEX), "t_worker": worker(INDEX)})
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    jetstream.run_at(200)
    with Worker(
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", INDEX, "--no-kibana", "--no-setup"),
        *("--es-user", "t_worker", "--es-pass-file", str(secret), "--stats-interval", "1s"),
        home=tmp_path,
    ) as process:
        process.wait_for(r"indexed [1-9]")
        realm.change_password("t_worker", "another-password")
        process.wait_for("holding the events in flight")
        secret.write_text("another-password")
        process.wait_for("accepts documents again")
        jetstream.pause()
        assert process.stop() == 0
        assert process.counted()["quarantined"] == 0
        assert "another-password" not in process.log
        assert_stats_add_up(es, INDEX, process.counted())
    remove(es)


@pytest.mark.parametrize("options", slow_except([("--no-setup",), ()], ()))
def test_missing_privileges_for_statistics_are_reported_and_stop_nothing(
    realm: FileRealm,
    es_node: EmbeddedNode,
    es: Elasticsearch,
    jetstream: Simulator,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    set_up(realm, es_node, "t_admin")
    role = worker(INDEX) if options else worker_with_setup(INDEX)
    realm.roles({"t_admin": setup(INDEX), "t_nobody": without_stats(role)})
    realm.wait_for_privilege("t_nobody", PASSWORD, f"{INDEX}-x", "index" if options else "manage")
    jetstream.run_at(200)
    with Worker(
        *("--jetstream", jetstream.url, "--es", es_node.url, "--index", INDEX, "--no-kibana", *options),
        *("--es-user", "t_nobody", "--es-pass", PASSWORD, "--stats-interval", "1s", "--since", "0"),
        home=tmp_path,
    ) as process:
        process.wait_for("cannot write statistics to skeetslurper-stats.* 403 security_exception")
        process.wait_for(r"received [\d,]+ = indexed [1-9]")
        time.sleep(2)
        assert process.stop() == 0
        assert process.log.count("403 security_exception") == 1
        assert process.counted()["in flight"] == 0
        is_reported_by_setup = "skeetslurper-stats is not changed: the" in process.log
        assert is_reported_by_setup == (not options)
    remove(es)


@pytest.mark.slow
def test_the_page_names_a_missing_privilege_and_shows_posts_with_it(
    realm: FileRealm, es_node: EmbeddedNode, es: Elasticsearch, jetstream: Simulator, tmp_path: Path
) -> None:
    set_up(realm, es_node, "t_admin")
    blind = worker(INDEX)
    blind["indices"][0]["privileges"].remove("read")
    realm.roles({"t_admin": setup(INDEX), "t_worker": worker(INDEX), "t_blind": blind})
    # Another test changes the password of t_worker.
    realm.add("t_blind", PASSWORD, "t_blind")
    realm.add("t_reader", PASSWORD, "t_worker")
    jetstream.run_at(200)
    for user, granted in (("t_reader", True), ("t_blind", False)):
        realm.wait_for_privilege(user, PASSWORD, f"{INDEX}-x", "read", granted=granted)
        with Worker(
            *("--jetstream", jetstream.url, "--es", es_node.url, "--index", INDEX, "--no-kibana"),
            *("--no-setup", "--es-user", user, "--es-pass", PASSWORD, "--stats-interval", "1s"),
            *("--http", "127.0.0.1:0", "--deletions", "apply" if granted else "keep"),
            home=tmp_path,
        ) as process:
            http = HttpClient(process)
            process.wait_for(r"indexed [1-9]")
            es.indices.refresh(index=f"{INDEX}-*")
            assert http.wait("/readyz", 200) == "ready\n"
            missing = f"the worker&#39;s user lacks the privilege to read {INDEX}-*"
            text = http.wait("/", 200, '<article class="card post">' if granted else missing)
            assert text.count(missing) == (0 if granted else 2)
            assert http.get("/metrics")[0] == 200
            if not granted:
                process.wait_for("trends cannot be computed")
            assert process.stop() == 0
            warnings = [line for line in process.log.splitlines() if "WARNING" in line]
            assert len(warnings) == (0 if granted else 1)
            assert process.counted()["in flight"] == 0
    remove(es)


def test_the_documented_roles_are_those_of_the_code() -> None:
    text = DOCS.read_text(encoding="utf-8")
    documented = re.findall(r"PUT _security/role/(\w+)\n(\{.*?\n\})", text, flags=re.S)
    assert {name: json.loads(body) for name, body in documented} == {
        name: role("bluesky-events") for name, role in ROLES.items()
    }


def test_the_documented_api_keys_are_those_of_the_roles(capsys: pytest.CaptureFixture[str]) -> None:
    text = DOCS.read_text(encoding="utf-8")
    documented = [
        json.loads(body) for body in re.findall(r"POST _security/api_key\n(\{.*?\n\})", text, flags=re.S)
    ]
    assert documented == [api_key(role, "bluesky-events") for role in ROLES]
    for body in documented:
        for name, role in body["role_descriptors"].items():
            assert role == ROLES[name]("bluesky-events")
    assert main(["skeetslurper_worker", "--api-key"]) == 0
    assert json.loads(capsys.readouterr().out) == api_key("skeetslurper_worker", "bluesky-events")


@pytest.mark.parametrize("role", ROLES)
def test_elasticsearch_accepts_each_role_and_each_request_for_an_api_key(
    es: Elasticsearch, role: str
) -> None:
    """They are validated before they are stored, which fails on the embedded node, as it lacks a filter."""
    cannot_store = "Unknown filter type \\[pattern_capture\\]"
    key = api_key(role, INDEX)
    with pytest.raises(BadRequestError, match=cannot_store):
        es.security.create_api_key(name=key["name"], role_descriptors=key["role_descriptors"])
    with pytest.raises(BadRequestError, match=cannot_store):
        es.security.put_role(name=role, **ROLES[role](INDEX))
    key["role_descriptors"][role]["cluster"] = ["mistyped"]
    with pytest.raises(BadRequestError, match=r"unknown cluster privilege \[mistyped\]"):
        es.security.create_api_key(name=key["name"], role_descriptors=key["role_descriptors"])


@pytest.mark.slow
def test_viewers_can_read_all_indices_and_change_nothing(
    realm: FileRealm, es_node: EmbeddedNode, es: Elasticsearch, tmp_path: Path
) -> None:
    remove(es)
    set_up(realm, es_node, "t_admin")
    indexer = InProcess(es_node.url, INDEX, tmp_path)
    indexer.feed(indexer.posts(3))
    es.indices.refresh(index=f"{INDEX}-*")
    realm.roles({"t_admin": setup(INDEX), "t_viewer": viewer(INDEX)})
    realm.add("t_viewer", PASSWORD, "t_viewer")
    realm.wait_for_privilege("t_viewer", PASSWORD, f"{INDEX}-x", "read")
    with realm.client("t_viewer", PASSWORD) as client:
        assert client.count(index=f"{INDEX}-*")["count"] == 3
        for index in (f"{INDEX}-*", "skeetslurper-*"):
            assert client.search(index=index)["hits"]
            # Used by Kibana for data views.
            assert client.field_caps(index=index, fields="*")["fields"]
            assert client.indices.get_mapping(index=index)
        changes: list[Callable[[], object]] = [
            lambda: client.index(index=indexer.today, document={}),
            lambda: client.delete(index=indexer.today, id="a"),
            lambda: client.indices.delete(index=indexer.today),
            lambda: client.index(index=STATS_INDEX, document={}),
            lambda: client.indices.put_index_template(name=INDEX, index_patterns=["x"]),
        ]
        for change in changes:
            with pytest.raises(AuthorizationException):
                change()
    remove(es)
