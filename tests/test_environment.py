"""The environment of the process: closed streams, closed pipes, no home directory, encodings, URLs."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from elasticsearch import ApiError, Elasticsearch
from hypothesis import given
from hypothesis import strategies as st

from slurp.addresses import parse_address
from slurp.config import Config, parse
from slurp.elastic.client import Elastic
from slurp.embedded.data_folder import default_data_dir
from slurp.embedded.node import EmbeddedNode
from slurp.errors import Exit, Fatal
from slurp.logs import Secrets
from slurp.simulator.jetstream import Simulator
from tests.tiers import slow_except
from tests.usage import usage_error
from tests.worker import PROGRAM, assert_each_once, count

RUN = (sys.executable, str(PROGRAM))


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    """Return this environment without SKEETSLURPER_… variables, with another home directory."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SKEETSLURPER_")}
    return {**inherited, "HOME": str(home), **variables}


# Streams


def wait_for_documents(es: Elasticsearch, index: str, number: int) -> None:
    """Wait until the index has `number` documents. A daily index that is just being created returns 503."""
    deadline = time.monotonic() + 120
    found = 0
    while found < number:
        assert time.monotonic() < deadline, f"{found} of {number}"
        with contextlib.suppress(ApiError):
            found = count(es, index)
        time.sleep(0.2)


@pytest.mark.parametrize("closed", slow_except(["2>&-", "<&- >&- 2>&-"], "<&- >&- 2>&-"))
def test_closed_streams_do_not_stop_the_worker(
    closed: str,
    es_node: EmbeddedNode,
    es: Elasticsearch,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    jetstream.generate(500, span=1)
    options = ("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix)
    worker = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *RUN, *options, "--since", "0", "--no-kibana"],
        env=clean_environment(tmp_path),
    )
    try:
        wait_for_documents(es, fresh_index_prefix, 500)
        # No socket or file of the worker has the descriptor of standard error, which libraries write to.
        assert Path(f"/proc/{worker.pid}/fd/2").readlink() == Path(os.devnull)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
    assert_each_once(es, fresh_index_prefix, jetstream.frames)


@pytest.mark.slow
def test_closing_the_pipe_of_the_log_does_not_stop_the_worker(
    es_node: EmbeddedNode,
    es: Elasticsearch,
    jetstream: Simulator,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    options = ("--jetstream", jetstream.url, "--es", es_node.url, "--index", fresh_index_prefix)
    worker = subprocess.Popen(
        [*RUN, *options, "--no-kibana", "--stats-interval", "100ms", "--since", "0"],
        env=clean_environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stderr is not None
        while "connected to" not in worker.stderr.readline():
            assert worker.poll() is None
        worker.stderr.close()
        jetstream.generate(500, span=1)
        wait_for_documents(es, fresh_index_prefix, 500)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize("options", ["--help", "--version", "--print-completion bash"])
@pytest.mark.parametrize("stream", [">&-", "| head -c 1 >/dev/null"])
def test_a_closed_or_finished_reader_of_the_output_is_no_error(
    options: str, stream: str, tmp_path: Path
) -> None:
    script = f'set -o pipefail; "$@" {options} {stream}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *RUN],
        capture_output=True,
        text=True,
        env=clean_environment(tmp_path),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*RUN, "--print-completion", "bash"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(tmp_path),
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "skeetslurper: cannot write the completion script: No space left on device\n"


def test_few_file_descriptors_make_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN, "--es", "http://127.0.0.1:1", "--jetstream", "ws://127.0.0.1:1", "--wait", "1s"],
        capture_output=True,
        text=True,
        env=clean_environment(tmp_path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)),
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# Home directory


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in the password database."""

    def getpwuid(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def test_a_missing_home_directory_is_one_line(no_home: None, capsys: pytest.CaptureFixture[str]) -> None:
    text = usage_error(capsys, [])
    assert "no home directory: HOME is not set" in text
    assert "set HOME or give --dead-letter" in text


def test_no_home_directory_is_needed_if_options_or_variables_set_the_paths(
    no_home: None, tmp_path: Path
) -> None:
    letters = str(tmp_path / "letters")
    assert parse(["--dead-letter", letters], {}).dead_letter == Path(letters)
    assert parse([], {"STATE_DIRECTORY": "/var/lib/x"}).dead_letter == Path("/var/lib/x/dead-letters.jsonl")
    data_home = {"XDG_DATA_HOME": "/data"}
    assert parse([], data_home).dead_letter == Path("/data/skeetslurper/dead-letters.jsonl")


def test_a_missing_home_directory_for_the_embedded_node_is_wrong_usage(no_home: None) -> None:
    with pytest.raises(Fatal, match="set HOME or choose a folder") as error:
        default_data_dir()
    assert error.value.code is Exit.USAGE


# Addresses and texts

BROKEN = [
    *("http://a b:1", "http://[fe80::1%eth0]:9200", "http://[fe80::1%25eth0]:9200", "http://a..b"),
    *("http://[::1", "http://]", "http://-a", "http://h\\x", "http://h:0", "http://h:99999", "http://h:x"),
    *("http://h/a b", "http://h/ä", "http://h/%zz", f"http://{'a' * 64}", "http://a\tb", "http://h\udcff"),
    *("http://", "http:///x", "http://[1:2]", f"http://{'a.' * 130}b", "http://h\x00", "http://a*"),
]


@pytest.mark.parametrize("url", BROKEN)
@pytest.mark.parametrize("option", ["--es", "--kibana", "--jetstream"])
def test_a_broken_url_is_one_line(option: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    if option == "--jetstream":
        url = url.replace("http", "ws", 1)
    text = usage_error(capsys, [option, url])
    assert option in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("given_url", "used"),
    [
        ("http://localhost", "http://localhost:80"),
        ("https://ES.example/", "https://es.example:443"),
        ("http://[::1]:9200/es%20x/", "http://[::1]:9200/es%20x"),
        ("http://es_node.my-net:9200", "http://es_node.my-net:9200"),
        ("http://bücher.example:9200", "http://xn--bcher-kva.example:9200"),
        ("http://es.example.:9200", "http://es.example.:9200"),
    ],
)
def test_a_valid_url_is_normalized(given_url: str, used: str) -> None:
    assert parse(["--es", given_url], {}).es == (used,)


# Characters with a meaning in URLs, and any other.
_TEXT = st.text(st.one_of(st.sampled_from("htp:/[]%@.-_a1 ?#\\"), st.characters()), max_size=30)


@given(_TEXT, st.sampled_from(["--es", "--kibana", "--jetstream", "--http"]), st.booleans())
def test_any_url_is_accepted_or_rejected_in_one_line(text: str, option: str, whole: bool) -> None:
    scheme = {"--jetstream": "ws://", "--http": ""}.get(option, "http://")
    config = parsed([f"{option}={text if whole else scheme + text}"])
    if config is not None:
        # The libraries must accept every URL that the options accept.
        Elastic(config, Secrets(config.secrets)).close()


@given(_TEXT)
def test_any_listen_address_is_accepted_or_rejected_in_one_line(text: str) -> None:
    try:
        parse_address(text)
    except ValueError as error:
        assert "\n" not in str(error)


def parsed(arguments: list[str]) -> Config | None:
    """Return the configuration, None if it was rejected as wrong usage."""
    try:
        return parse(arguments, {})
    except SystemExit as stop:
        assert stop.code == Exit.USAGE
        return None


@pytest.mark.parametrize("option", ["--es-user", "--es-pass", "--kibana-user", "--kibana-pass"])
def test_invalid_utf8_is_one_line_and_not_repeated(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = usage_error(capsys, [option, "hush\udcff"])
    assert f"{option}: invalid text (use UTF-8)" in text
    assert "hush" not in text


def test_a_relative_folder_without_a_current_directory_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(gone), *RUN, "--embedded-data", "node"],
        capture_output=True,
        text=True,
        env=clean_environment(tmp_path),
        timeout=60,
        check=False,
    )
    assert done.returncode == Exit.USAGE
    assert "--embedded-data: the current directory is not accessible" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_locale_that_can_not_encode_the_message_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN, "--index", "ä…"],
        capture_output=True,
        text=True,
        env=clean_environment(
            tmp_path, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
        ),
        timeout=60,
        check=False,
    )
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("skeetslurper: --index: ")
