"""The embedded node with real processes, ports, locks and data on disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from elasticsearch import AuthenticationException, Elasticsearch

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.elastic.readiness import wait_until_ready
from slurp.embedded import data_folder
from slurp.embedded.errors import EmbeddedNodeError
from slurp.embedded.node import EmbeddedNode, NodeOptions
from slurp.logs import Secrets
from tests.fixtures_es import OwnNode, client_for
from tests.tiers import slow_except


def processes_of(data: Path) -> list[psutil.Process]:
    """Return the processes of the node with this folder: guardian, launcher, server."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and any(str(data) in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def start_parent(data: Path) -> subprocess.Popen[str]:
    """Start a Python program that starts a node, prints `ready` and sleeps."""
    program = (
        "import sys, time; from pathlib import Path; from slurp.embedded.node import EmbeddedNode\n"
        "EmbeddedNode(Path(sys.argv[1]), port=0).start(); print('ready', flush=True); time.sleep(600)"
    )
    return subprocess.Popen([sys.executable, "-c", program, str(data)], stdout=subprocess.PIPE, text=True)


def start_cli(data: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "slurp.embedded", "--port", "0", "--data", str(data), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_an_indexed_document_is_found(es: Elasticsearch, fresh_index_prefix: str) -> None:
    es.index(index=f"{fresh_index_prefix}-a", id="1", document={"text": "Guten Morgen"}, refresh=True)
    hits = es.search(index=f"{fresh_index_prefix}-*", query={"match": {"text": "morgen"}})["hits"]
    assert hits["total"]["value"] == 1
    assert es.cluster.health(index=f"{fresh_index_prefix}-a")["status"] in ("green", "yellow")


def test_a_wrong_password_is_rejected(es_node: EmbeddedNode) -> None:
    with client_for(es_node, "guessed") as client, pytest.raises(AuthenticationException):
        client.cluster.health()


@pytest.mark.cluster_wide
def test_the_node_listens_on_loopback_only(es_node: EmbeddedNode) -> None:
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(es_node.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_the_folder_is_accessible_to_its_user_only(es_node: EmbeddedNode) -> None:
    assert es_node.data.stat().st_mode & 0o777 == 0o700


def test_disk_watermarks_are_absolute_sizes(es: Elasticsearch) -> None:
    prefix = "cluster.routing.allocation.disk"
    settings = es.cluster.get_settings(include_defaults=True, flat_settings=True)
    effective = {**settings["defaults"], **settings["persistent"]}
    assert effective[f"{prefix}.threshold_enabled"] == "true"
    [disk] = [node["fs"]["data"][0] for node in es.nodes.stats(metric="fs")["nodes"].values()]
    assert disk["low_watermark_free_space_in_bytes"] == 4 * 10**9
    assert disk["high_watermark_free_space_in_bytes"] == 3 * 10**9
    assert disk["flood_stage_free_space_in_bytes"] == 2 * 10**9


@pytest.mark.cluster_wide
def test_the_default_of_max_disk_does_not_change_after_its_first_use(
    es_node: EmbeddedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = es_node.default_max_disk
    assert 0 < first <= min(es_node.available_space, 100 * 10**9)
    monkeypatch.setattr(data_folder, "free_space", lambda folder: 10**15)
    assert es_node.available_space >= 10**15
    assert es_node.default_max_disk == first


@pytest.mark.cluster_wide
def test_starting_a_running_node_does_nothing(es_node: EmbeddedNode) -> None:
    pid = es_node.pid
    es_node.start()
    assert es_node.pid == pid


@pytest.mark.cluster_wide
def test_a_second_node_on_the_same_data_is_rejected(es_node: EmbeddedNode) -> None:
    with pytest.raises(EmbeddedNodeError, match="already uses the data"):
        EmbeddedNode(es_node.data, port=0).start()
    assert es_node.running


def test_the_error_for_a_port_in_use_names_it(own_node: OwnNode) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(EmbeddedNodeError, match=f"port {port} .*in use"):
            own_node(port=port).start()


def test_a_folder_with_other_files_is_rejected(own_node: OwnNode) -> None:
    node = own_node()
    node.data.mkdir()
    (node.data / "thesis.tex").touch()
    with pytest.raises(EmbeddedNodeError, match="not empty"):
        node.start()
    assert [path.name for path in node.data.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_the_error_for_an_invalid_setting_has_the_reason_of_elasticsearch(own_node: OwnNode) -> None:
    node = own_node(options=NodeOptions(settings={"no.such.setting": "1"}))
    with pytest.raises(EmbeddedNodeError, match=r"unknown setting \[no.such.setting\]"):
        node.start()
    assert not node.running
    assert processes_of(node.data) == []


@pytest.mark.slow
def test_data_survive_stop_kill_and_the_death_of_the_guardian(own_node: OwnNode) -> None:
    node = own_node(options=NodeOptions(settings={"thread_pool.write.queue_size": "77"}, tls=True))
    node.start()
    with client_for(node) as es:
        es.index(index="kept", id="1", document={"n": 1})
        effective = es.nodes.info(filter_path="nodes.*.settings.thread_pool")["nodes"]
        assert "77" in str(effective)
    config = parse(["--es", node.url, "--es-ca", str(node.ca)], {})
    assert wait_until_ready(Elastic(config, Secrets(())), config, threading.Event())
    node.stop()
    assert processes_of(node.data) == []
    node.stop()  # a second time: does nothing

    with pytest.raises(EmbeddedNodeError, match="another password"):
        own_node(password="other").start()

    node.start()
    with client_for(node) as es:
        assert es.get(index="kept", id="1")["_source"] == {"n": 1}
        es.index(index="kept", id="2", document={"n": 2})
    node.kill()
    assert not node.running
    assert wait_for(lambda: not processes_of(node.data), 5)

    node.start()
    with client_for(node) as es:
        assert es.get(index="kept", id="2")["_source"] == {"n": 2}
    guardian = next(one for one in processes_of(node.data) if "guardian.py" in str(one.cmdline()))
    guardian.kill()
    assert wait_for(lambda: not processes_of(node.data), 15)
    assert not node.running
    node.stop()


@pytest.mark.slow
def test_no_orphan_when_the_parent_is_killed(tmp_path: Path) -> None:
    data = tmp_path / "node"
    parent = start_parent(data)
    assert first_line(parent) == "ready\n"
    assert len(processes_of(data)) >= 3
    parent.kill()
    parent.wait()
    # A new start immediately afterwards waits for the orphan to end.
    again = start_cli(data)
    line = first_line(again)
    assert "user elastic" in line
    assert str(data) in line
    assert wait_for(lambda: len(processes_of(data)) == 4, 5), processes_of(data)

    # Like Ctrl+C in a terminal.
    os.killpg(again.pid, signal.SIGINT)
    assert again.wait(30) == 0
    assert processes_of(data) == []


@pytest.mark.parametrize("seconds", slow_except([0.2, 2.0], 0.2))
def test_no_orphan_when_the_parent_is_killed_while_the_node_starts(tmp_path: Path, seconds: float) -> None:
    data = tmp_path / "node"
    parent = start_parent(data)
    assert wait_for(lambda: len(processes_of(data)) >= 2, 30)
    time.sleep(seconds)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not processes_of(data), 15)


@pytest.mark.slow
def test_sigterm_while_the_node_starts_exits_with_0(tmp_path: Path) -> None:
    data = tmp_path / "node"
    process = start_cli(data)
    assert wait_for(lambda: len(processes_of(data)) >= 3, 30)
    process.terminate()
    assert process.wait(30) == 0
    assert processes_of(data) == []
