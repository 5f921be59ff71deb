"""`--check`: its results, its output, and that it changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from slurp.check import effective_options
from slurp.config import parse
from slurp.elastic.privileges import worker
from slurp.embedded.node import EmbeddedNode, free_port
from slurp.simulator.jetstream import Simulator
from tests.file_realm import FileRealm
from tests.stub_kibana import StubKibana
from tests.test_environment import clean_environment
from tests.worker import PROGRAM, Worker

PASSWORD = "geheim-geheim"
INDEX = "t-check"

# The tests create users on the node of the session.
pytestmark = pytest.mark.cluster_wide


def run(home: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), "--check", "--index", INDEX, *options],
        capture_output=True,
        text=True,
        env=clean_environment(home, **variables),
        timeout=120,
        check=False,
    )


def state_of(es: Elasticsearch) -> dict[str, Any]:
    """Return all that a worker could change in a cluster when it starts."""
    return {
        "indices": sorted(es.indices.get(index="*", expand_wildcards="all")),
        "templates": es.indices.get_index_template().body,
        "components": es.cluster.get_component_template().body,
        "documents": es.count(index="*", expand_wildcards="all")["count"],
    }


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_successful_check_shows_the_options_and_changes_nothing(
    es_node: EmbeddedNode, es: Elasticsearch, jetstream: Simulator, tmp_path: Path
) -> None:
    own = tmp_path / "xdg" / "skeetslurper.conf"
    own.parent.mkdir()
    own.write_text(f"# comment\ngrace = 20s\nes-pass = changeme\nes = {es_node.url}\n")
    own.chmod(0o600)
    before, files = state_of(es), files_of(tmp_path)
    with StubKibana() as kibana:
        objects = dict(kibana.objects)
        done = run(
            tmp_path,
            *("--jetstream", jetstream.url, "--kibana", f"http://127.0.0.1:{kibana.port}"),
            XDG_CONFIG_HOME=str(own.parent),
            SKEETSLURPER_BATCH="7",
        )
        assert kibana.objects == objects
    assert done.returncode == 0, done.stdout + done.stderr
    assert state_of(es) == before
    assert files_of(tmp_path) == files
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        f"es = {es_node.url} # {own}, line 4",
        f"es-pass = *** # {own}, line 3",
        f"grace = 20s # {own}, line 2",
        "kibana-pass = *** # default",
        "batch = 7 # SKEETSLURPER_BATCH",
        f"jetstream = {jetstream.url} # command line",
        "retention = 30d # default",
        "flush = 1s # default",
        "check: passed",
    ):
        assert line in lines
    assert f"ok Elasticsearch {es_node.url}: cluster 'skeetslurper-embedded', version" in "\n".join(lines)
    assert f"ok Jetstream {jetstream.url}: v2, handshake in" in "\n".join(lines)
    assert ": privileges sufficient" in done.stdout
    assert "changeme" not in done.stdout + done.stderr


def test_an_unreachable_server_is_exit_code_1(
    es_node: EmbeddedNode, jetstream: Simulator, tmp_path: Path
) -> None:
    nowhere = free_port()
    reachable = ("--es", es_node.url, "--jetstream", jetstream.url, "--no-kibana")
    for option, url, name in (
        ("--es", f"http://127.0.0.1:{nowhere}", "Elasticsearch at"),
        ("--jetstream", f"ws://127.0.0.1:{nowhere}", "Jetstream"),
        ("--kibana", f"http://127.0.0.1:{nowhere}", "Kibana"),
    ):
        options = reachable[:-1] if option == "--kibana" else reachable
        done = run(tmp_path, *options, option, url)
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"FAIL  {name} {url}" in done.stdout
        # The other servers are checked as well.
        assert f"ok    Elasticsearch {es_node.url}: " in done.stdout
        assert f"ok    Jetstream {jetstream.url}: " in done.stdout


def test_a_default_kibana_may_be_absent(es_node: EmbeddedNode, jetstream: Simulator, tmp_path: Path) -> None:
    done = run(tmp_path, "--es", es_node.url, "--jetstream", jetstream.url)
    assert done.returncode == 0, done.stdout
    assert "skip  Kibana http://localhost:5601: " in done.stdout
    assert "not required, as --kibana is not set" in done.stdout


@pytest.mark.slow
def test_wrong_options_credentials_and_privileges_are_exit_code_2(
    es_node: EmbeddedNode, es: Elasticsearch, jetstream: Simulator, tmp_path: Path
) -> None:
    options = ("--es", es_node.url, "--jetstream", jetstream.url, "--no-kibana")
    assert run(tmp_path, *options, "--batch", "none").returncode == 2
    done = run(tmp_path, *options, "--dead-letter", str(tmp_path))
    assert done.returncode == 2
    assert f"FAIL  dead-letter file {tmp_path}: it is a directory" in done.stdout

    done = run(tmp_path, *options, SKEETSLURPER_ES_PASS="geheim")
    assert done.returncode == 2
    assert "FAIL  Elasticsearch rejects the password of user 'elastic'" in done.stdout
    assert "geheim" not in done.stdout + done.stderr

    realm = FileRealm(es_node)
    realm.roles({"t_check": worker(INDEX), "t_monitor": {"cluster": ["monitor"]}})
    for name in ("check", "monitor"):
        realm.add(f"t_{name}", PASSWORD, f"t_{name}")
    realm.wait_for_privilege("t_check", PASSWORD, f"{INDEX}-x", "index")
    before = state_of(es)
    as_monitor = run(tmp_path, *options, "--es-user", "t_monitor", SKEETSLURPER_ES_PASS=PASSWORD)
    assert as_monitor.returncode == 2
    assert "missing privileges: " in as_monitor.stdout
    assert f"create_index on {INDEX}-*" in as_monitor.stdout
    # Enough privileges to write, but the templates do not exist.
    as_worker = run(tmp_path, *options, "--es-user", "t_check", SKEETSLURPER_ES_PASS=PASSWORD)
    assert as_worker.returncode == 2
    assert ": privileges sufficient" in as_worker.stdout
    assert f"there is no index template '{INDEX}' created by this program" in as_worker.stdout
    assert state_of(es) == before


def test_a_check_can_run_beside_a_worker_with_the_same_options(
    es_node: EmbeddedNode, jetstream: Simulator, fresh_index_prefix: str, tmp_path: Path
) -> None:
    options = (
        *("--es", es_node.url, "--jetstream", jetstream.url, "--no-kibana", "--http", f"{free_port()}"),
        *("--index", fresh_index_prefix, "--dead-letter", str(tmp_path / "letters.jsonl")),
    )
    with Worker(*options, home=tmp_path) as running:
        running.wait_for("connected to")
        done = run(tmp_path, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert running.stop() == 0


def test_a_check_starts_no_embedded_node(jetstream: Simulator, tmp_path: Path) -> None:
    port = free_port()
    options = ("--embedded", "--embedded-data", str(tmp_path / "node"), "--es", f"http://localhost:{port}")
    done = run(tmp_path, *options, "--jetstream", jetstream.url, "--no-kibana")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        f"skip  Elasticsearch: nothing answers at http://localhost:{port}; the worker will start"
        in done.stdout
    )
    assert not (tmp_path / "node").exists()


def test_a_node_that_the_worker_would_not_start_is_exit_code_2(jetstream: Simulator, tmp_path: Path) -> None:
    options = ("--embedded", "--es", f"https://localhost:{free_port()}", "--jetstream", jetstream.url)
    done = run(tmp_path, *options, "--no-kibana")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "FAIL  --embedded starts a node at http://localhost only, not at https://" in done.stdout


def test_the_effective_options_are_a_valid_config_file(tmp_path: Path) -> None:
    given = (
        *(
            "--since",
            "2026-07-04T14:38:08",
            "--retention",
            "forever",
            "--flush",
            "500ms",
            "--replicas",
            "auto",
        ),
        *("--collections", "app.bsky.feed.post,app.bsky.graph.*", "--http", "9000", "--redundant"),
        *("--jetstream", "a.example", "--jetstream", "b.example", "--buffer-bytes", "1GB"),
    )
    config = parse(given, {"HOME": str(tmp_path)})
    file = tmp_path / "slurp.conf"
    file.write_text(
        "".join(f"{name} = {value}\n" for name, value in effective_options(config) if value != "***")
    )
    assert parse(["-c", str(file)], {"HOME": str(tmp_path)}) == config


def test_a_variable_cannot_enable_the_check() -> None:
    config = parse([], {"SKEETSLURPER_CHECK": "true", "HOME": "/"})
    assert not config.check
    assert "SKEETSLURPER_CHECK" in config.warnings[0]
