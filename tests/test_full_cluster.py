"""Requests to a cluster with all features, against a stub: the embedded node lacks ILM and ingest
processors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.analysis import analysis
from slurp.elastic.client import Elastic
from slurp.elastic.days import Clocks
from slurp.elastic.features import Features, detect
from slurp.elastic.ingest_pipeline import PipelineAttachment
from slurp.elastic.lifecycle import ANNOUNCEMENT_PERIOD, CHECK_INTERVAL, Retention, RetentionOptions
from slurp.elastic.setup import Setup
from slurp.elastic.templates import MANAGED_META
from slurp.errors import Exit, Fatal
from slurp.lexicons import committed
from slurp.logs import Secrets
from tests.stub_server import ELASTICSEARCH, Request, Response, StubServer

Json = dict[str, Any]

DENIED = "this action is granted by the cluster privileges [read_pipeline,manage_pipeline]"

FULL = {
    "ingest": {"processors": [{"type": "set"}, {"type": "pipeline"}, {"type": "script"}]},
    "modules": [{"name": "analysis-common"}, {"name": "x-pack-ilm"}],
}


class FullCluster(StubServer):
    """A stub of a cluster with all features: it stores the body of each PUT and returns it to GET."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.stored: dict[str, Json] = {}
        # The paths of all PUT requests.
        self.puts: list[str] = []
        # The features of each node.
        self.nodes: dict[str, Json] = {"a": FULL}
        # The settings of daily indices, all of which are managed.
        self.days: dict[str, Json] = {}
        # Prefixes of paths for which the user has no privilege.
        self.denied: tuple[str, ...] = ()

    def _respond(self, request: Request) -> Response:
        path = unquote(request.path.split("?")[0])
        respond = self._put if request.method == "PUT" else self._get
        status, body = respond(path, json.loads(request.body or b"{}"))
        return Response(status, body, ELASTICSEARCH)

    def _get(self, path: str, _body: Json) -> tuple[int, Json]:
        if path.startswith(self.denied):
            return 403, {"error": {"type": "security_exception", "reason": DENIED}, "status": 403}
        if path.startswith("/_nodes"):
            return 200, {"nodes": self.nodes}
        if path == "/ev-*/_mapping":
            return 200, {name: {"mappings": {"_meta": MANAGED_META}} for name in self.days}
        if path == "/ev-*/_settings/index.default_pipeline":
            found = {name: settings for name, settings in self.days.items() if settings}
            return 200, {name: {"settings": {"index": settings}} for name, settings in found.items()}
        if path.endswith("/_mapping") and (created := self.stored.get(path.removesuffix("/_mapping"))):
            return 200, {path.split("/")[1]: {"mappings": created["mappings"]}}
        if (body := self.stored.get(path)) is None:
            return 404, {"error": {"type": "resource_not_found_exception"}}
        if path.startswith(("/_ilm/policy/", "/_ingest/pipeline/")):
            return 200, {path.rsplit("/", 1)[1]: body}
        if "_doc" in path:
            return 200, {"_source": body, "_seq_no": 0, "_primary_term": 1}
        kind = "index_template" if "_index_template" in path else "component_template"
        return 200, {f"{kind}s": [{"name": "x", kind: body}]}

    def _put(self, path: str, body: Json) -> tuple[int, Json]:
        self.puts.append(path)
        if path.startswith("/ev-") and path.endswith("/_settings"):
            value = body["index.default_pipeline"]
            self.days[path.split("/")[1]] = {} if value is None else {"default_pipeline": value}
        else:
            self.stored[path] = body
        if path.startswith("/_ilm"):
            # The default values that Elasticsearch adds.
            phases = body["policy"]["phases"]
            phases["hot"].setdefault("min_age", "0ms")
            if "delete" in phases:
                phases["delete"]["actions"]["delete"].setdefault("delete_searchable_snapshot", True)
        return 200, {"acknowledged": True, "result": "created", "_seq_no": 0, "_primary_term": 1}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FullCluster]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with FullCluster() as cluster:
        yield cluster


def prepare(cluster: FullCluster, *options: str) -> Setup:
    """Run the setup with these options, as at a start."""
    config = parse(["--es", cluster.url, "--index", "ev", *options], {})
    setup = Setup(config, committed())
    with Elasticsearch(cluster.url, max_retries=0) as client:
        setup.run(client)
    return setup


def pipeline_of_new_days(cluster: FullCluster) -> str | None:
    """Return the default pipeline of future daily indices."""
    settings = cluster.stored["/_component_template/ev@settings"]["template"]["settings"]["index"]
    name: str | None = settings.get("default_pipeline")
    return name


def test_pipeline_policy_and_analysis_are_put(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "7d")
    pipeline = cluster.stored["/_ingest/pipeline/ev"]
    assert pipeline["processors"] == [{"pipeline": {"name": "ev@custom", "ignore_missing_pipeline": True}}]
    assert [next(iter(step)) for step in pipeline["on_failure"]] == ["set"], "drops no document"
    policy = cluster.stored["/_ilm/policy/ev"]["policy"]
    assert policy["phases"]["delete"]["min_age"] == "193h"
    assert policy["phases"]["delete"]["actions"].keys() == {"delete"}
    assert "skeetslurper" in policy["_meta"]
    settings = cluster.stored["/_component_template/ev@settings"]["template"]["settings"]["index"]
    assert settings["lifecycle"] == {"name": "ev"}
    assert settings["analysis"] == analysis(Features(folding=True))
    assert settings["auto_expand_replicas"] == "0-1"
    template = cluster.stored["/_index_template/ev"]
    assert template["composed_of"] == ["ev@settings", "ev@mappings", "ev@lexicons", "ev@custom"]
    assert template["ignore_missing_component_templates"] == ["ev@custom"]
    # A template may only refer to resources that exist.
    order = [cluster.puts.index(path) for path in ("/_ilm/policy/ev", "/_component_template/ev@settings")]
    assert order == sorted(order)
    assert cluster.puts[-1] == "/_index_template/ev"


@pytest.mark.parametrize("meta", [{}, {"skeetslurper": {"version": "99.0"}}])
def test_a_pipeline_of_the_user_or_of_a_newer_version_is_not_changed(
    cluster: FullCluster, meta: Json
) -> None:
    cluster.stored["/_ingest/pipeline/ev"] = existing = {"processors": [], "_meta": meta}
    prepare(cluster)
    assert cluster.stored["/_ingest/pipeline/ev"] is existing


@pytest.fixture
def three_days(cluster: FullCluster) -> dict[str, Json]:
    """Daily indices with the pipeline of an older version, with one of the user, and without one."""
    cluster.days = {
        "ev-2020.01.01": {"default_pipeline": "ev"},
        "ev-2020.01.02": {"default_pipeline": "mine"},
        "ev-2020.01.03": {},
    }
    return cluster.days


def test_without_a_pipeline_of_the_user_the_managed_one_is_not_attached(
    cluster: FullCluster, three_days: dict[str, Json]
) -> None:
    prepare(cluster)
    assert "/_ingest/pipeline/ev" in cluster.stored, "it exists for users that name it in a request"
    assert pipeline_of_new_days(cluster) is None
    assert three_days["ev-2020.01.01"] == {}
    assert three_days["ev-2020.01.02"] == {"default_pipeline": "mine"}


def test_the_pipeline_is_attached_while_there_is_one_of_the_user(
    cluster: FullCluster, three_days: dict[str, Json]
) -> None:
    setup = prepare(cluster)
    now = 1000.0
    assert setup.attachment is not None
    attachment = PipelineAttachment("ev", lambda: now)
    elastic = Elastic(parse(["--es", cluster.url], {}), Secrets(()))

    def check() -> bool:
        return attachment.step(elastic, lambda: None)

    assert check()
    cluster.stored["/_ingest/pipeline/ev@custom"] = {"processors": []}
    now += CHECK_INTERVAL - 1
    assert not check(), "once an hour"
    now += 1
    assert check()
    assert pipeline_of_new_days(cluster) == "ev"
    assert [three_days[day].get("default_pipeline") for day in sorted(three_days)] == ["ev", "mine", "ev"]

    puts = len(cluster.puts)
    PipelineAttachment("ev").apply(elastic.client)
    assert len(cluster.puts) == puts, "another worker changes nothing"
    prepare(cluster)
    assert pipeline_of_new_days(cluster) == "ev", "a start changes nothing"

    del cluster.stored["/_ingest/pipeline/ev@custom"]
    now += CHECK_INTERVAL
    assert check()
    assert pipeline_of_new_days(cluster) is None
    assert [three_days[day].get("default_pipeline") for day in sorted(three_days)] == [None, "mine", None]


def test_the_hourly_check_changes_no_option_of_another_worker(cluster: FullCluster) -> None:
    prepare(cluster, "--shards", "3")
    setup = prepare(cluster, "--shards", "2")
    prepare(cluster, "--shards", "3")
    cluster.stored["/_ingest/pipeline/ev@custom"] = {"processors": []}
    assert setup.attachment is not None
    with Elasticsearch(cluster.url, max_retries=0) as client:
        setup.attachment.apply(client)
    settings = cluster.stored["/_component_template/ev@settings"]["template"]["settings"]["index"]
    assert (settings["number_of_shards"], settings["default_pipeline"]) == (3, "ev")


def test_a_deleted_pipeline_is_restored_before_it_is_attached(cluster: FullCluster) -> None:
    setup = prepare(cluster)
    del cluster.stored["/_ingest/pipeline/ev"]
    cluster.stored["/_ingest/pipeline/ev@custom"] = {"processors": []}
    cluster.puts.clear()
    assert setup.attachment is not None
    with Elasticsearch(cluster.url, max_retries=0) as client:
        setup.attachment.apply(client)
    assert cluster.puts == ["/_ingest/pipeline/ev", "/_component_template/ev@settings"]


def test_a_pipeline_of_the_user_in_place_of_the_managed_one_is_attached(cluster: FullCluster) -> None:
    cluster.stored["/_ingest/pipeline/ev"] = {"processors": []}
    prepare(cluster)
    assert pipeline_of_new_days(cluster) == "ev"


def test_a_default_pipeline_in_the_users_template_is_not_changed(
    cluster: FullCluster, three_days: dict[str, Json]
) -> None:
    before = {name: dict(settings) for name, settings in three_days.items()}
    custom: Json = {"template": {"settings": {"index": {"default_pipeline": "mine"}}}}
    cluster.stored["/_component_template/ev@custom"] = custom
    prepare(cluster)
    cluster.stored["/_ingest/pipeline/ev@custom"] = {"processors": []}
    prepare(cluster)
    assert three_days == before
    assert cluster.stored["/_component_template/ev@custom"] is custom


def test_the_setup_logs_what_it_changed(cluster: FullCluster, caplog: pytest.LogCaptureFixture) -> None:
    def logged(*options: str) -> str:
        caplog.clear()
        with caplog.at_level("INFO"):
            prepare(cluster, *options)
        (line,) = [message for message in caplog.messages if message.startswith("setup: ")]
        return line

    assert logged().startswith("setup: created: index skeetslurper-state, ")
    assert logged().startswith("setup: unchanged: index skeetslurper-state, ")
    changed = logged("--retention", "60d", "--shards", "2")
    assert "replaced: lifecycle policy ev, template ev@settings; unchanged: " in changed
    cluster.stored["/_ilm/policy/ev"] = {"policy": {"phases": {}}}
    assert logged("--shards", "2").endswith("; left alone: lifecycle policy ev")
    assert (
        "lifecycle policy 'ev' was created by the user or by a newer version; not changing it" in caplog.text
    )


def test_a_shorter_retention_that_the_policy_gets_later_is_logged(
    cluster: FullCluster, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.stored["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    prepare(cluster, "--setup-only", "--retention", "7d")
    assert "lifecycle policy 'ev' keeps a retention of 30 days until a worker has announced" in caplog.text


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/_ingest/pipeline/ev", "ingest pipeline 'ev'"),
        ("/_ilm/policy/ev", "lifecycle policy 'ev'"),
        ("/_component_template/ev@lexicons", "component template 'ev@lexicons'"),
        ("/_index_template/ev", "index template 'ev'"),
    ],
)
def test_with_no_setup_each_missing_or_older_resource_is_reported(
    cluster: FullCluster, path: str, resource: str
) -> None:
    prepare(cluster)
    prepare(cluster, "--no-setup")
    body = cluster.stored[path]
    body.get("policy", body)["_meta"] = {"skeetslurper": {"version": "0.0.1"}}
    with pytest.raises(
        Fatal, match=f"--no-setup, but {resource} is of an older version: an admin"
    ) as stopped:
        prepare(cluster, "--no-setup")
    assert stopped.value.code is Exit.USAGE
    del cluster.stored[path]
    with pytest.raises(Fatal, match=f"there is no {resource}"):
        prepare(cluster, "--no-setup")


def test_a_policy_that_keeps_the_last_retention_counts_as_current(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.stored["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    cluster.stored["/_ilm/policy/ev"]["policy"]["_meta"] = {"skeetslurper": {"version": "0.0.1"}}
    prepare(cluster, "--setup-only", "--retention", "7d")
    assert cluster.stored["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "745h"
    prepare(cluster, "--no-setup", "--retention", "7d")


def test_without_the_privilege_to_read_them_pipeline_and_policy_are_not_checked(
    cluster: FullCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """So a role for an older version is still sufficient."""
    prepare(cluster)
    cluster.denied = ("/_ingest", "/_ilm")
    prepare(cluster, "--no-setup")
    assert "ingest pipeline 'ev' is not checked: the cluster privilege" in caplog.text
    assert "lifecycle policy 'ev' is not checked" in caplog.text


def test_a_policy_that_keeps_all_days_has_no_delete_phase(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "forever")
    assert "delete" not in cluster.stored["/_ilm/policy/ev"]["policy"]["phases"]


def test_a_policy_of_the_user_is_not_changed(cluster: FullCluster) -> None:
    policy: Json = {"policy": {"phases": {}}}
    cluster.stored["/_ilm/policy/ev"] = policy
    prepare(cluster)
    assert cluster.stored["/_ilm/policy/ev"] == policy


def test_a_shorter_retention_is_put_into_the_policy_after_ten_minutes(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.stored["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    prepare(cluster, "--retention", "7d")
    phases = cluster.stored["/_ilm/policy/ev"]["policy"]["phases"]
    assert phases["delete"]["min_age"] == "745h"
    elastic = Elastic(parse(["--es", cluster.url], {}), Secrets(()))
    shorter = RetentionOptions("ev", 7, updates_policy=True)
    now = 1_800_000_000.0
    clocks = Clocks(earliest=lambda: now, monotonic=lambda: now)
    Retention(elastic, shorter, clocks).step()
    now += ANNOUNCEMENT_PERIOD
    assert cluster.stored["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "745h"
    retention = Retention(elastic, shorter, clocks)
    retention.step()
    now += ANNOUNCEMENT_PERIOD
    retention.step()
    assert cluster.stored["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "193h"
    assert cluster.stored["/skeetslurper-state/_doc/retention:ev"]["retention_days"] == 7


def test_with_no_setup_the_policy_is_not_changed(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.stored["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    elastic = Elastic(parse(["--es", cluster.url], {}), Secrets(()))
    for days in (60, 7):
        config = parse(["--index", "ev", "--retention", f"{days}d", "--no-setup"], {"HOME": "/"})
        Retention(elastic, RetentionOptions.of(config, Features(lifecycle=True))).step()
        assert cluster.stored["/skeetslurper-state/_doc/retention:ev"]["retention_days"] == days
    assert cluster.stored["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "745h"


def test_a_feature_is_detected_if_every_node_has_it(cluster: FullCluster) -> None:
    with Elasticsearch(cluster.url, max_retries=0) as client:
        assert detect(client) == Features(pipeline=True, lifecycle=True, folding=True)
        cluster.nodes = {"a": {**FULL, "plugins": [{"name": "analysis-icu"}]}}
        assert detect(client).icu
        cluster.nodes = {"a": FULL}
        cluster.nodes["b"] = {"ingest": {"processors": []}, "modules": [{"name": "x-pack-ilm"}]}
        assert detect(client) == Features(lifecycle=True)
        cluster.nodes = {}
        assert detect(client) == Features()
