"""The command that the log shows for a gap or a deleted day works as printed."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.config import PUBLIC_HOSTS, parse
from slurp.elastic.client import Elastic
from slurp.embedded.node import EmbeddedNode, free_port
from slurp.events.position import Gap
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.gaps import GapRecorder
from slurp.pipeline.progress import Counters
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import Clock
from tests.tiers import slow_except
from tests.worker import Worker, assert_each_once, run_literally

# 2026-11-26T12:00:00Z in microseconds.
NOON = 1_795_694_400_000_000
ADDED = ["--no-kibana", "--http", "off", "--catch-up", "--worker-name", "fill"]


def command(argv: list[str], environ: dict[str, str] | None = None, jetstream: str = "wss://b") -> list[str]:
    """Return the words of the command after shell parsing, without the program."""
    instruction, _, text = parse(argv, environ or {}).replay_command.advice(NOON, jetstream).partition(": ")
    assert instruction == "run beside this worker"
    words = shlex.split(text)
    assert sys.executable in words
    return words[: words.index(sys.executable)] + words[words.index(sys.executable) + 2 :]


def test_the_command_has_the_options_of_the_worker_except_those_it_replaces() -> None:
    kept = ["--es", "http://a:1", "--index=e-v", "--no-setup", "--collections", "app.bsky.*"]
    replaced = [
        "--http",
        "127.0.0.1:1",
        "--worker-name",
        "w",
        "--jetstream",
        "ws://a",
        "--since",
        "2h",
        "--catch-up",
    ]
    assert command([*kept[:3], *replaced, *kept[3:]]) == [
        *("--es", "http://a:1", "--index", "e-v", "--no-setup", "--collections", "app.bsky.*"),
        *ADDED,
        *("--replay-from", "2026-11-26T12:00:00Z", "--jetstream", "wss://b"),
    ]


def test_the_default_servers_are_those_of_the_worker() -> None:
    given = ["--redundant", "--jetstream", "ws://a", "--jetstream", "ws://b"]
    assert command(given, jetstream="") == [*given, *ADDED, "--replay-from", "2026-11-26T12:00:00Z"]


def test_the_name_of_the_second_worker_differs_from_that_of_the_first() -> None:
    words = command(["--worker-name", "fill"])
    assert words[words.index("--worker-name") + 1] == "fill-again"


def test_paths_in_the_command_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    (tmp_path / "c.conf").touch()
    variables = {"SKEETSLURPER_DEAD_LETTER": "d.jsonl"}
    words = command(["-cc.conf", "--lexicons=a b"], variables)
    assert words[:5] == [
        f"SKEETSLURPER_DEAD_LETTER={tmp_path}/d.jsonl",
        *("--config", str(tmp_path / "c.conf"), "--lexicons", str(tmp_path / "a b")),
    ]


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_secrets_are_not_in_the_command(by: str) -> None:
    flags = ["--es-pass", "s3cret", "--es-user", "a'b"] if by == "flag" else ["--es-user", "a'b"]
    variables = {"SKEETSLURPER_ES_PASS": "s3cret", "SKEETSLURPER_KIBANA_PASS": "s3cret"}
    config = parse(flags, variables if by == "variable" else {})
    text = config.replay_command.advice(NOON)
    assert text.startswith("set SKEETSLURPER_ES_PASS and run beside this worker: ")
    assert "s3cret" not in text + repr(config.replay_command)
    assert shlex.quote("a'b") in text


def test_a_file_with_a_secret_is_in_the_command(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a2V5")
    words = command(["--es-api-key-file", str(tmp_path / "key")])
    assert words[:2] == ["--es-api-key-file", str(tmp_path / "key")]


# Running the printed command


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def short_history(clock: Clock) -> Iterator[Simulator]:
    """A server that has the events of the last 15 minutes."""
    with Simulator(port=0, seed=1, clock=clock, server=ServerOptions(lookback=900)) as server:
        yield server


@pytest.mark.parametrize("source", slow_except(["flags", "variables"], "flags"))
def test_the_command_for_a_gap_fills_it(
    source: str,
    short_history: Simulator,
    clock: Clock,
    es_node: EmbeddedNode,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    # v1 only, so that the worker prefers the other server.
    with Simulator(port=0, protocols="v1", clock=clock) as long_history:
        settings = {
            "jetstream": f"{short_history.url},{long_history.url}",
            "es": es_node.url,
            "index": fresh_index_prefix,
            "collections": "app.bsky.feed.*",
            "http": f"127.0.0.1:{free_port()}",
            "kibana": "http://127.0.0.1:1",
        }
        options, variables = ["--flush", "200ms", "--stats-interval", "1s"], {}
        if source == "flags":
            options += [word for name, value in settings.items() for word in (f"--{name}", value)]
            options += ["--es-pass", "changeme"]
        else:
            variables = {f"SKEETSLURPER_{name.upper()}": value for name, value in settings.items()}

        clock.ago = 7200
        publish_on(short_history.generate(500, span=1).frames, long_history)
        with Worker(*options, "--since", "0", "--catch-up", home=tmp_path, env=variables) as worker:
            assert worker.exit_code() == 0
        clock.ago = 0
        publish_on(short_history.generate(7000, span=7000).frames[500:], long_history)
        with Worker(*options, home=tmp_path, env=variables) as worker:
            line = worker.wait_for(r"gap: .* from a host that has them: (.*)$")[1]
            needs = {"SKEETSLURPER_ES_PASS": "changeme"} if source == "flags" else {}
            instruction, _, printed = line.partition("run beside this worker: ")
            assert instruction == ("set SKEETSLURPER_ES_PASS and " if needs else "")
            filled = run_literally(printed, tmp_path, **needs)
            assert filled.returncode == 0, filled.stderr
            worker.wait_until_counted(lambda counted: counted["received"] > 0)
            assert worker.stop() == 0
    expected = [frame for frame in short_history.frames if matches_filter(frame)]
    assert_each_once(es, fresh_index_prefix, expected)


def publish_on(frames: list[bytes], other: Simulator) -> None:
    """Publish the events on another server, which assigns cursors of its own."""
    events = map(orjson.loads, frames)
    other.publish({name: value for name, value in event.items() if name != "cursor"} for event in events)


def matches_filter(frame: bytes) -> bool:
    commit = orjson.loads(frame).get("commit")
    return commit is None or commit["collection"].startswith("app.bsky.feed.")


@pytest.mark.slow
def test_the_command_for_a_gap_of_redundant_readers_from_a_config_file(
    short_history: Simulator,
    clock: Clock,
    es_node: EmbeddedNode,
    es: Elasticsearch,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    """The other host is not reachable when the gap is detected, but is when the command is run."""
    with Simulator(port=0, clock=clock) as long_history:
        config = tmp_path / "my worker.conf"
        config.write_text(
            f"redundant = true\njetstream = {short_history.url},{long_history.url}\n"
            f"es = {es_node.url}\nes-pass = changeme\n"
        )
        config.chmod(0o600)
        options = ["-c", str(config), "--index", fresh_index_prefix, "--no-kibana", "--flush", "200ms"]
        clock.ago = 7200
        publish_on(short_history.generate(500, span=1).frames, long_history)
        with Worker(*options, "--since", "0", "--catch-up", home=tmp_path) as worker:
            assert worker.exit_code() == 0
        clock.ago = 0
        publish_on(short_history.generate(7000, span=7000).frames[500:], long_history)
        long_history.stop()
        with Worker(*options, home=tmp_path) as worker:
            printed = worker.wait_for(r"gap: .* run beside this worker: (.*)$")[1]
            assert printed.endswith(f"--jetstream {long_history.url}")
            worker.kill()
        long_history.start()
        filled = run_literally(printed, tmp_path)
        assert filled.returncode == 0, filled.stderr
    assert_each_once(es, fresh_index_prefix, short_history.frames)


@pytest.mark.slow
def test_the_command_for_a_deleted_day_brings_it_back(
    jetstream: Simulator, es_node: EmbeddedNode, es: Elasticsearch, fresh_index_prefix: str, tmp_path: Path
) -> None:
    jetstream.generate(500)
    options = ("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix)
    more = ("--no-kibana", "--since", "0", "--flush", "200ms", "--stats-interval", "1s")
    with Worker(*options, *more, "--http", f"127.0.0.1:{free_port()}", home=tmp_path) as worker:
        worker.wait_for("stats .* indexed 500 ")
        day = time.strftime("%Y.%m.%d", time.gmtime())
        es.indices.delete(index=f"{fresh_index_prefix}-{day}")
        jetstream.generate(500, span=1)
        printed = worker.wait_for(
            r"was deleted while the worker was running: .* run beside this worker: (.*)$"
        )[1]
        filled = run_literally(printed, tmp_path)
        assert filled.returncode == 0, filled.stderr
        assert worker.stop() == 0
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


def test_a_worker_of_one_server_gets_another_public_server_in_the_command(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gap = Gap("jetstream.us-east.bsky.network", NOON, NOON + 3_600_000_000)
    GapRecorder(cast(Elastic, None), Subscription("ev"), [PUBLIC_HOSTS[0]], Counters()).report(1, gap)
    assert caplog.messages[-1].endswith(f"--jetstream {PUBLIC_HOSTS[1]}")
