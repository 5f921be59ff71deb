"""What is asked of a cluster that has everything, seen at the level of requests: the test node has not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from elasticsearch import Elasticsearch

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.features import Features, detect
from slurp.elastic.ingest_pipeline import Attachment
from slurp.elastic.lifecycle import EVERY, THINK_AGAIN, Retention
from slurp.elastic.setup import Setup
from slurp.elastic.templates import MARK
from slurp.errors import Exit, Fatal
from slurp.lexicons import committed
from slurp.logs import Secrets

Json = dict[str, Any]

DENIED = "this action is granted by the cluster privileges [read_pipeline,manage_pipeline]"

FULL = {
    "ingest": {"processors": [{"type": "set"}, {"type": "pipeline"}, {"type": "script"}]},
    "modules": [{"name": "analysis-common"}, {"name": "x-pack-ilm"}],
}


class FullCluster(ThreadingHTTPServer):
    """Keeps what is PUT and gives it back; `nodes` is what the nodes say they can."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: dict[str, Json] = {}
        self.puts: list[str] = []
        self.nodes: dict[str, Json] = {"a": FULL}
        # Settings of day indices, all of which are ours.
        self.days: dict[str, Json] = {}
        # Paths that the user has no right to.
        self.denied: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FullCluster

    def do_GET(self) -> None:
        path = unquote(self.path.split("?")[0])
        if path.startswith(self.server.denied):
            self._answer(403, {"error": {"type": "security_exception", "reason": DENIED}, "status": 403})
        elif path.startswith("/_nodes"):
            self._answer(200, {"nodes": self.server.nodes})
        elif path == "/ev-*/_mapping":
            self._answer(200, {name: {"mappings": {"_meta": MARK}} for name in self.server.days})
        elif path == "/ev-*/_settings/index.default_pipeline":
            set_ = {name: settings for name, settings in self.server.days.items() if settings}
            self._answer(200, {name: {"settings": {"index": settings}} for name, settings in set_.items()})
        elif path.endswith("/_mapping") and (made := self.server.kept.get(path.removesuffix("/_mapping"))):
            self._answer(200, {path.split("/")[1]: {"mappings": made["mappings"]}})
        elif (body := self.server.kept.get(path)) is None:
            self._answer(404, {"error": {"type": "resource_not_found_exception"}})
        elif path.startswith(("/_ilm/policy/", "/_ingest/pipeline/")):
            self._answer(200, {path.rsplit("/", 1)[1]: body})
        elif "_doc" in path:
            self._answer(200, {"_source": body, "_seq_no": 0, "_primary_term": 1})
        else:
            kind = "index_template" if "_index_template" in path else "component_template"
            self._answer(200, {f"{kind}s": [{"name": "x", kind: body}]})

    def do_PUT(self) -> None:
        path = unquote(self.path.split("?")[0])
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.server.puts.append(path)
        if path.startswith("/ev-") and path.endswith("/_settings"):
            value = body["index.default_pipeline"]
            self.server.days[path.split("/")[1]] = {} if value is None else {"default_pipeline": value}
        else:
            self.server.kept[path] = body
        if path.startswith("/_ilm"):
            # As Elasticsearch gives it back.
            phases = body["policy"]["phases"]
            phases["hot"].setdefault("min_age", "0ms")
            if "delete" in phases:
                phases["delete"]["actions"]["delete"].setdefault("delete_searchable_snapshot", True)
        self._answer(200, {"acknowledged": True, "result": "created", "_seq_no": 0, "_primary_term": 1})

    def _answer(self, status: int, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FullCluster]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with FullCluster() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def prepare(cluster: FullCluster, *options: str) -> Setup:
    config = parse(["--es", cluster.url, "--index", "ev", *options], {})
    work = Setup(config, committed())
    with Elasticsearch(cluster.url, max_retries=0) as client:
        work.run(client)
    return work


def pipeline_of_new_days(cluster: FullCluster) -> str | None:
    settings = cluster.kept["/_component_template/ev@settings"]["template"]["settings"]["index"]
    found: str | None = settings.get("default_pipeline")
    return found


def test_pipeline_policy_and_analysis_are_put(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "7d")
    pipeline = cluster.kept["/_ingest/pipeline/ev"]
    assert pipeline["processors"] == [{"pipeline": {"name": "ev@custom", "ignore_missing_pipeline": True}}]
    assert [next(iter(step)) for step in pipeline["on_failure"]] == ["set"], "marks, never drops"
    policy = cluster.kept["/_ilm/policy/ev"]["policy"]
    assert policy["phases"]["delete"]["min_age"] == "193h"
    assert policy["phases"]["delete"]["actions"].keys() == {"delete"}
    assert "skeetslurper" in policy["_meta"]
    settings = cluster.kept["/_component_template/ev@settings"]["template"]["settings"]["index"]
    assert settings["lifecycle"] == {"name": "ev"}
    assert "cjk_bigram" in settings["analysis"]["analyzer"]["default"]["filter"]
    assert settings["auto_expand_replicas"] == "0-1"
    template = cluster.kept["/_index_template/ev"]
    assert template["composed_of"] == ["ev@settings", "ev@mappings", "ev@lexicons", "ev@custom"]
    assert template["ignore_missing_component_templates"] == ["ev@custom"]
    # What a template refers to must be there before it.
    order = [cluster.puts.index(path) for path in ("/_ilm/policy/ev", "/_component_template/ev@settings")]
    assert order == sorted(order)
    assert cluster.puts[-1] == "/_index_template/ev"


@pytest.mark.parametrize("meta", [{}, {"skeetslurper": {"version": "99.0"}}])
def test_a_pipeline_of_somebody_else_or_a_newer_version_is_left_alone(
    cluster: FullCluster, meta: Json
) -> None:
    cluster.kept["/_ingest/pipeline/ev"] = theirs = {"processors": [], "_meta": meta}
    prepare(cluster)
    assert cluster.kept["/_ingest/pipeline/ev"] is theirs


@pytest.fixture
def three_days(cluster: FullCluster) -> dict[str, Json]:
    """As the version before left one, as a user has changed one, and one without a pipeline."""
    cluster.days = {
        "ev-2020.01.01": {"default_pipeline": "ev"},
        "ev-2020.01.02": {"default_pipeline": "mine"},
        "ev-2020.01.03": {},
    }
    return cluster.days


def test_without_a_pipeline_of_the_user_ours_is_attached_to_no_day(
    cluster: FullCluster, three_days: dict[str, Json]
) -> None:
    prepare(cluster)
    assert "/_ingest/pipeline/ev" in cluster.kept, "it is there for whoever names it"
    assert pipeline_of_new_days(cluster) is None
    assert three_days["ev-2020.01.01"] == {}
    assert three_days["ev-2020.01.02"] == {"default_pipeline": "mine"}


def test_the_pipeline_is_attached_while_there_is_one_of_the_user_to_call(
    cluster: FullCluster, three_days: dict[str, Json]
) -> None:
    work = prepare(cluster)
    now = 1000.0
    assert work.attachment is not None
    attachment = Attachment("ev", lambda: now)
    elastic = Elastic(parse(["--es", cluster.url], {}), Secrets(()))

    def look() -> bool:
        return attachment.step(elastic, lambda: None)

    assert look()
    cluster.kept["/_ingest/pipeline/ev@custom"] = {"processors": []}
    now += EVERY - 1
    assert not look(), "once an hour"
    now += 1
    assert look()
    assert pipeline_of_new_days(cluster) == "ev"
    assert [three_days[day].get("default_pipeline") for day in sorted(three_days)] == ["ev", "mine", "ev"]

    puts = len(cluster.puts)
    Attachment("ev").apply(elastic.client)
    assert len(cluster.puts) == puts, "another worker finds it done"
    prepare(cluster)
    assert pipeline_of_new_days(cluster) == "ev", "and so does a start"

    del cluster.kept["/_ingest/pipeline/ev@custom"]
    now += EVERY
    assert look()
    assert pipeline_of_new_days(cluster) is None
    assert [three_days[day].get("default_pipeline") for day in sorted(three_days)] == [None, "mine", None]


def test_the_hourly_look_changes_no_option_of_another_worker(cluster: FullCluster) -> None:
    prepare(cluster, "--shards", "3")
    work = prepare(cluster, "--shards", "2")
    prepare(cluster, "--shards", "3")
    cluster.kept["/_ingest/pipeline/ev@custom"] = {"processors": []}
    assert work.attachment is not None
    with Elasticsearch(cluster.url, max_retries=0) as client:
        work.attachment.apply(client)
    settings = cluster.kept["/_component_template/ev@settings"]["template"]["settings"]["index"]
    assert (settings["number_of_shards"], settings["default_pipeline"]) == (3, "ev")


def test_a_pipeline_that_was_deleted_is_put_before_it_is_attached(cluster: FullCluster) -> None:
    work = prepare(cluster)
    del cluster.kept["/_ingest/pipeline/ev"]
    cluster.kept["/_ingest/pipeline/ev@custom"] = {"processors": []}
    cluster.puts.clear()
    assert work.attachment is not None
    with Elasticsearch(cluster.url, max_retries=0) as client:
        work.attachment.apply(client)
    assert cluster.puts == ["/_ingest/pipeline/ev", "/_component_template/ev@settings"]


def test_a_pipeline_of_somebody_else_under_our_name_is_attached(cluster: FullCluster) -> None:
    cluster.kept["/_ingest/pipeline/ev"] = {"processors": []}
    prepare(cluster)
    assert pipeline_of_new_days(cluster) == "ev"


def test_days_are_left_to_a_default_pipeline_of_the_users_template(
    cluster: FullCluster, three_days: dict[str, Json]
) -> None:
    before = {name: dict(settings) for name, settings in three_days.items()}
    theirs: Json = {"template": {"settings": {"index": {"default_pipeline": "mine"}}}}
    cluster.kept["/_component_template/ev@custom"] = theirs
    prepare(cluster)
    cluster.kept["/_ingest/pipeline/ev@custom"] = {"processors": []}
    prepare(cluster)
    assert three_days == before
    assert cluster.kept["/_component_template/ev@custom"] is theirs


def test_the_start_says_what_it_put_and_what_it_left_alone(
    cluster: FullCluster, caplog: pytest.LogCaptureFixture
) -> None:
    def told(*options: str) -> str:
        caplog.clear()
        with caplog.at_level("INFO"):
            prepare(cluster, *options)
        (line,) = [message for message in caplog.messages if message.startswith("set-up: ")]
        return line

    assert told().startswith("set-up: created: index skeetslurper-state, ")
    assert told().startswith("set-up: unchanged: index skeetslurper-state, ")
    changed = told("--retention", "60d", "--shards", "2")
    assert "replaced: lifecycle policy ev, template ev@settings; unchanged: " in changed
    cluster.kept["/_ilm/policy/ev"] = {"policy": {"phases": {}}}
    assert told("--shards", "2").endswith("; left alone: lifecycle policy ev")
    assert "lifecycle policy 'ev' is of a newer version or not ours, leaving it alone" in caplog.text


def test_a_shorter_retention_that_the_policy_does_not_get_yet_is_told(
    cluster: FullCluster, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.kept["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    prepare(cluster, "--setup-only", "--retention", "7d")
    assert "lifecycle policy 'ev' keeps a retention of 30 days until a worker has announced" in caplog.text


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/_ingest/pipeline/ev", "ingest pipeline 'ev'"),
        ("/_ilm/policy/ev", "lifecycle policy 'ev'"),
        ("/_component_template/ev@lexicons", "component template 'ev@lexicons'"),
        ("/_index_template/ev", "index template 'ev'"),
    ],
)
def test_without_setup_each_part_that_is_missing_or_older_is_reported(
    cluster: FullCluster, path: str, part: str
) -> None:
    prepare(cluster)
    prepare(cluster, "--no-setup")
    body = cluster.kept[path]
    body.get("policy", body)["_meta"] = {"skeetslurper": {"version": "0.0.1"}}
    with pytest.raises(Fatal, match=f"--no-setup, but {part} is of an older version: an admin") as stopped:
        prepare(cluster, "--no-setup")
    assert stopped.value.code is Exit.USAGE
    del cluster.kept[path]
    with pytest.raises(Fatal, match=f"there is no {part}"):
        prepare(cluster, "--no-setup")


def test_a_policy_that_waits_for_a_shorter_retention_counts_as_current(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.kept["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    cluster.kept["/_ilm/policy/ev"]["policy"]["_meta"] = {"skeetslurper": {"version": "0.0.1"}}
    prepare(cluster, "--setup-only", "--retention", "7d")
    assert cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "745h"
    prepare(cluster, "--no-setup", "--retention", "7d")


def test_without_the_right_to_look_pipeline_and_policy_are_not_checked(
    cluster: FullCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """So a role of the version before goes on to work."""
    prepare(cluster)
    cluster.denied = ("/_ingest", "/_ilm")
    prepare(cluster, "--no-setup")
    assert "ingest pipeline 'ev' is not checked: Elasticsearch denies us the cluster privilege" in caplog.text
    assert "lifecycle policy 'ev' is not checked" in caplog.text


def test_forever_has_no_delete_phase(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "forever")
    assert "delete" not in cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]


def test_a_policy_of_somebody_else_is_left_alone(cluster: FullCluster) -> None:
    mine: Json = {"policy": {"phases": {}}}
    cluster.kept["/_ilm/policy/ev"] = mine
    prepare(cluster)
    assert cluster.kept["/_ilm/policy/ev"] == mine


def test_a_shorter_retention_reaches_the_policy_after_the_ten_minutes(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.kept["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    prepare(cluster, "--retention", "7d")
    phases = cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]
    assert phases["delete"]["min_age"] == "745h"
    elastic = Elastic(parse(["--es", cluster.url], {}), Secrets(()))
    now = 1_800_000_000.0
    Retention(elastic, "ev", 7, Features(lifecycle=True), lambda: now, lambda: now).step()
    now += THINK_AGAIN
    assert cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "745h"
    retention = Retention(elastic, "ev", 7, Features(lifecycle=True), lambda: now, lambda: now)
    retention.step()
    now += THINK_AGAIN
    retention.step()
    assert cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "193h"
    assert cluster.kept["/skeetslurper-state/_doc/retention:ev"]["retention_days"] == 7


def test_without_setup_the_policy_is_left_alone(cluster: FullCluster) -> None:
    prepare(cluster, "--retention", "30d")
    cluster.kept["/skeetslurper-state/_doc/retention:ev"] = {"retention_days": 30}
    elastic = Elastic(parse(["--es", cluster.url], {}), Secrets(()))
    for days in (60, 7):
        Retention(elastic, "ev", days, Features(lifecycle=True), no_setup=True).step()
        assert cluster.kept["/skeetslurper-state/_doc/retention:ev"]["retention_days"] == days
    assert cluster.kept["/_ilm/policy/ev"]["policy"]["phases"]["delete"]["min_age"] == "745h"


def test_a_feature_counts_when_every_node_has_it(cluster: FullCluster) -> None:
    with Elasticsearch(cluster.url, max_retries=0) as client:
        assert detect(client) == Features(pipeline=True, lifecycle=True, folding=True)
        cluster.nodes["b"] = {"ingest": {"processors": []}, "modules": [{"name": "x-pack-ilm"}]}
        assert detect(client) == Features(lifecycle=True)
        cluster.nodes = {}
        assert detect(client) == Features()
