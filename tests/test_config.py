"""The options: defaults, precedence of the sources, accepted values, and error messages."""

from __future__ import annotations

import dataclasses
import errno
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from slurp.addresses import Address
from slurp.config import LEGACY_HOSTS, PUBLIC_HOSTS, Config, parse, parse_with_origins
from slurp.events.position import LIVE
from slurp.options.definitions import build_parser
from tests.usage import usage_error


@pytest.fixture(autouse=True)
def _no_user_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_every_option_has_a_default() -> None:
    config = parse([], {})
    assert config.jetstream == PUBLIC_HOSTS + LEGACY_HOSTS
    assert PUBLIC_HOSTS == (
        "wss://jetstream.us-east.bsky.network",
        "wss://jetstream.us-west.bsky.network",
    )
    assert config.es == ("http://localhost:9200",)
    assert (config.es_user, config.es_pass) == ("elastic", "changeme")
    assert (config.kibana, config.index) == ("http://localhost:5601", "bluesky-events")
    assert (config.batch, config.flush, config.buffer, config.indexers) == (2000, 1.0, 20_000, 3)
    assert (config.buffer_bytes, config.stats_interval, config.grace) == (64_000_000, 30.0, 25.0)
    assert (config.wait, config.stall_timeout, config.since, config.retention_days) == (120.0, 30.0, LIVE, 30)


def test_the_command_line_overrides_the_environment_and_that_the_files(tmp_path: Path) -> None:
    file = tmp_path / "slurp.conf"
    file.write_text("flush = 3s\nbatch = 7\nindexers = 4\nno-kibana = true\n")
    env = {"SKEETSLURPER_BATCH": "8", "SKEETSLURPER_INDEXERS": "5"}
    config = parse(["-c", str(file), "--indexers", "6"], env)
    assert (config.flush, config.batch, config.indexers, config.kibana) == (3.0, 8, 6, None)


def test_lists_are_repeated_or_comma_separated(tmp_path: Path) -> None:
    expected = ("app.bsky.feed.post", "app.bsky.graph.*")
    file = tmp_path / "slurp.conf"
    file.write_text("collections = app.bsky.graph.*, app.bsky.feed.post\n")
    assert parse(["-c", str(file)], {}).collections == expected
    assert (
        parse([], {"SKEETSLURPER_COLLECTIONS": "app.bsky.feed.post,app.bsky.graph.*"}).collections == expected
    )
    flags = ["--collections", "app.bsky.graph.*", "--collections", "app.bsky.feed.post"]
    assert parse(flags, {}).collections == expected


def test_http_is_off_by_default_except_with_embedded(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([], {}).http is None
    assert parse(["--embedded"], {}).http == Address("127.0.0.1", 8642, explicit=False)
    assert parse(["--embedded", "--http", "off"], {}).http is None
    assert parse(["--embedded"], {"SKEETSLURPER_HTTP": "[::1]:0"}).http == Address("::1", 0)
    assert parse(["--http", "9000"], {}).http == Address("127.0.0.1", 9000)
    assert "--http: invalid listen address 'here'" in usage_error(capsys, ["--http", "here"])


def test_jetstream_urls_are_normalized() -> None:
    given = "wss://A.example/subscribe,b.example,ws://localhost:6008/"
    assert parse([], {"SKEETSLURPER_JETSTREAM": given}).jetstream == (
        "wss://a.example",
        "wss://b.example",
        "ws://localhost:6008",
    )


def test_since_accepts_a_duration_a_time_or_a_cursor() -> None:
    now = datetime.now(UTC)
    two_hours = parse(["--since", "2h"], {}).since
    assert two_hours is not None
    assert abs(two_hours / 1e6 - (now - timedelta(hours=2)).timestamp()) < 10
    assert parse(["--since", "2026-07-04T14:38:08"], {}).since == 1783175888000000
    assert parse(["--since", "2026-07-04T16:38:08+02:00"], {}).since == 1783175888000000
    assert parse(["--since", "0"], {}).since == 0
    assert parse(["--since", "live"], {}).since == LIVE


def test_a_replay_may_start_live() -> None:
    assert parse([], {}).replay_from is None
    assert parse(["--replay-from", "live"], {}).replay_from == LIVE


def test_times_are_never_read_as_sequence_numbers() -> None:
    assert parse(["--replay-from", "2000-01-01"], {}).replay_from == 10**15
    assert parse(["--since", "100000d"], {}).since == 10**15


def test_a_url_without_port_gets_the_port_of_its_scheme() -> None:
    assert parse(["--es", "http://localhost", "--es", "https://es.example/path/"], {}).es == (
        "http://localhost:80",
        "https://es.example:443/path",
    )


def test_retention_is_whole_days_or_forever() -> None:
    assert parse(["--retention", "7d"], {}).retention_days == 7
    assert parse(["--retention", "forever"], {}).retention_days is None


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "slurp.conf"
    file.write_bytes("\ufeffes-pass = geheim\r\nes-user = ann\r\n".encode())
    config = parse(["-c", str(file)], {})
    assert (config.es_user, config.es_pass) == ("ann", "geheim")


@pytest.mark.parametrize(
    ("options", "kibana"),
    [
        ([], "http://localhost:5601"),
        (["--es", "http://127.0.0.1:9200", "--es", "https://[::1]:9200"], "http://localhost:5601"),
        (["--es", "https://es.example"], None),
        (["--es", "http://localhost:9200,http://es.example:9200"], None),
        (["--es", "https://es.example", "--kibana", "https://k.example"], "https://k.example:443"),
        (["--es", "https://es.example", "--kibana", "http://localhost:5601"], "http://localhost:5601"),
        (["--kibana", "http://localhost:5601", "--no-kibana"], None),
    ],
)
def test_kibana_is_used_by_default_beside_an_elasticsearch_on_this_machine(
    options: list[str], kibana: str | None
) -> None:
    config = parse(options, {})
    assert config.kibana == kibana
    assert not config.warnings


def test_options_of_a_disabled_kibana_cause_a_warning() -> None:
    remote = ["--es", "https://es.example"]
    env = {"SKEETSLURPER_KIBANA_PASS": "geheim"}
    (warning,) = parse([*remote, "--kibana-user", "ann"], env).warnings
    assert warning.startswith("--kibana-user, --kibana-pass: no effect, as Kibana is disabled")
    assert "use --kibana URL" in warning
    assert "geheim" not in warning
    assert not parse([*remote, "--kibana-user", "ann", "--no-kibana"], env).warnings


def test_the_default_space_has_an_empty_id() -> None:
    assert parse(["--kibana-space", "default"], {}).kibana_space == ""
    assert parse(["--kibana-space", "team_a-1"], {}).kibana_space == "team_a-1"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--kibana-space", "Team A"], "--kibana-space: invalid space id 'Team A' (use the id"),
        (["--kibana-pass-file", "/nowhere/secret"], "--kibana-pass-file: cannot read /nowhere/secret"),
        (
            ["--es-api-key", "k", "--es-api-key-file", "/nowhere/key"],
            "--es-api-key and --es-api-key-file are mutually exclusive",
        ),
        (
            ["--es-api-key", "k", "--kibana-pass", "w"],
            "--kibana-pass together with --es-api-key requires",
        ),
        (["--flush", "3"], "--flush: invalid duration '3' (use 30s, 5m, 36h or 30d)"),
        (["--flush", "0s"], "--flush must be greater than zero"),
        (["--batch", "0"], "--batch: invalid number '0' (use a whole number of 1 or more)"),
        (["--batch", "²"], "--batch: invalid number '²'"),
        (["--buffer", "10"], "--buffer 10 must not be less than --batch 2000"),
        (["--buffer-bytes", "much"], "--buffer-bytes: invalid size 'much' (use 500kB, 64MB, 512MiB or 1GB)"),
        (["--since", "later"], "--since: invalid start 'later' (use live, a duration"),
        (["--since", "2999-01-01"], "--since: time '2999-01-01' is in the future"),
        (["--since", "9999999999999999"], "--since: cursor '9999999999999999' is in the future"),
        (
            ["--retention", "1d"],
            "--retention: invalid retention '1d' (use whole days, 3d or more",
        ),
        (["--collections", "post"], "--collections: invalid NSID 'post' (use the form app.bsky.feed.post)"),
        (["--dids", "alice"], "--dids: invalid DID 'alice' (use the form did:plc:…)"),
        (
            ["--jetstream", "http://localhost:1"],
            "--jetstream: invalid URL 'http://localhost:1' (use wss://HOST or ws://HOST:PORT)",
        ),
        (
            ["--es", "localhost:9200"],
            "--es: invalid URL 'localhost:9200' (use http://HOST:PORT or https://HOST:PORT)",
        ),
        (["--es", "http://h:port"], "--es: invalid URL 'http://h:port': "),
        (["--jetstream", f"{'a' * 64}.example"], "longer than 63 characters"),
        (["--es", "http://"], "--es: invalid URL 'http://': no host, or port 0"),
        (["--es-ca", "/nowhere/ca.pem"], "--es-ca: no such file: /nowhere/ca.pem"),
        (["--es-pass-file", "/nowhere/secret"], "--es-pass-file: cannot read /nowhere/secret"),
        (["--index", "Events"], "--index: invalid index name 'Events' (use lower-case letters"),
        (["--index", "skeetslurper"], "would also match the internal skeetslurper-state"),
        (["--worker-name", "a b"], "--worker-name: invalid name (use up to 64"),
        (["--log-level", "loud"], "--log-level: invalid choice: 'loud'"),
        (["--indexer", "3"], "unknown option --indexer, did you mean --indexers?"),
        (
            ["-c", "/nowhere/slurp.conf"],
            "skeetslurper: cannot read config file /nowhere/slurp.conf: No such file or directory;",
        ),
        (["word"], "unexpected argument (each value needs an option before it)"),
    ],
)
def test_an_invalid_value_is_one_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], expected: str
) -> None:
    assert expected in usage_error(capsys, argv)


KUBERNETES = {
    "SKEETSLURPER_SERVICE_HOST": "10.0.0.7",
    "SKEETSLURPER_SERVICE_PORT": "8642",
    "SKEETSLURPER_SERVICE_PORT_HTTP": "8642",
    "SKEETSLURPER_PORT": "tcp://10.0.0.7:8642",
    "SKEETSLURPER_PORT_8642_TCP": "tcp://10.0.0.7:8642",
    "SKEETSLURPER_PORT_8642_TCP_PROTO": "tcp",
    # A Service named skeetslurper-es, and one named skeetslurper-http.
    "SKEETSLURPER_ES_PORT": "tcp://10.0.0.8:9200",
    "SKEETSLURPER_HTTP_SERVICE_HOST": "10.0.0.9",
}


def test_variables_of_kubernetes_are_ignored_with_a_warning() -> None:
    config = parse([], KUBERNETES)
    (warning,) = config.warnings
    assert warning.startswith("ignoring environment variables that are not options: SKEETSLURPER_ES_PORT, ")
    assert all(name in warning for name in KUBERNETES)
    assert "enableServiceLinks: false" in warning
    assert "10.0.0" not in warning
    assert config == dataclasses.replace(parse([], {}), warnings=config.warnings)


@pytest.mark.parametrize("name", ["MEM_LIMIT", "VERSION", "HOME", "IMAGE", "", "ELASTICSEARCH_URL"])
def test_an_unrelated_variable_is_ignored_with_a_warning(name: str) -> None:
    (warning,) = parse([], {f"SKEETSLURPER_{name}": "geheim"}).warnings
    assert warning == f"ignoring environment variables that are not options: SKEETSLURPER_{name}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ES_PASSWORD", "ES_PASS"),
        ("ES_PASSS", "ES_PASS"),
        ("ES_USERNAME", "ES_USER"),
        ("RETENTOIN", "RETENTION"),
        ("COLLECTION", "COLLECTIONS"),
        ("INDEXER", "INDEXERS"),
        ("KIBANNA", "KIBANA"),
        ("es_pass", ""),
    ],
)
def test_a_misspelled_variable_is_rejected(capsys: pytest.CaptureFixture[str], name: str, meant: str) -> None:
    # The names of the variables are in capital letters, so a lower-case name is not a misspelled one.
    if not meant:
        assert parse([], {f"SKEETSLURPER_{name}": "x"}).warnings
        return
    message = usage_error(capsys, [], {f"SKEETSLURPER_{name}": "geheim"})
    assert f"unknown environment variable SKEETSLURPER_{name}, did you mean SKEETSLURPER_{meant}?" in message
    assert "geheim" not in message


def test_a_variable_cannot_set_the_config_file(capsys: pytest.CaptureFixture[str]) -> None:
    message = usage_error(capsys, [], {"SKEETSLURPER_CONFIG": "x"})
    assert "SKEETSLURPER_CONFIG: --config can only be used on the command line" in message


def test_an_error_names_the_variable_that_the_value_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    env = {"SKEETSLURPER_BATCH": "many", "SKEETSLURPER_FLUSH": "0s"}
    message = usage_error(capsys, [], env)
    assert "--batch: invalid number 'many' (use a whole number of 1 or more) (SKEETSLURPER_BATCH);" in message
    message = usage_error(capsys, ["--batch", "7"], env)
    assert "--flush must be greater than zero (SKEETSLURPER_FLUSH);" in message
    assert "SKEETSLURPER" not in usage_error(capsys, ["--batch", "few"], env)


def test_a_misspelled_option_in_a_file_is_rejected(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "slurp.conf"
    file.write_text("es-passs = geheim\n")
    message = usage_error(capsys, ["-c", str(file)])
    assert "unknown option --es-passs, did you mean --es-pass?" in message
    assert "geheim" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("es-pass = [geheim]", "es-pass: not a repeatable option"),
        ("es-pass = [geheim, x]", "es-pass: not a repeatable option"),
        ("no-setup = geheim", "no-setup: invalid value (use true or false)"),
        (
            "# comment\n\n= geheim",
            "slurp.conf, line 3: invalid line (use 'name = value' with an option from --help)",
        ),
        ("es-passs = one -geheim", "unknown option --es-passs, did you mean --es-pass?"),
        ("config = other.conf", "slurp.conf, line 1: --config can only be used on the command line"),
        ("version = true", "slurp.conf, line 1: --version can only be used on the command line"),
        (
            "--print-completion = bash",
            "slurp.conf, line 1: --print-completion can only be used on",
        ),
    ],
)
def test_an_invalid_line_is_reported_without_its_value(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "slurp.conf"
    file.write_text(f"{text}\n")
    message = usage_error(capsys, ["-c", str(file)])
    assert expected in message
    assert "geheim" not in message


def test_an_unreadable_config_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".config" / "skeetslurper.conf"
    folder.mkdir(parents=True)
    assert f"cannot read config file {folder}: Is a directory" in usage_error(capsys, [])
    # Every file is readable for root, who may run the tests.
    monkeypatch.setattr("builtins.open", deny)
    assert f"cannot read config file {folder}: Permission denied" in usage_error(capsys, [])


def deny(path: str, *_: object, **__: object) -> NoReturn:
    raise PermissionError(errno.EACCES, "Permission denied", path)


def test_help_has_at_most_80_columns_and_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEETSLURPER_ES_PASS", "geheim")
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        parse(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "geheim" not in out


def test_every_option_is_a_field_of_the_config() -> None:
    options = {action.dest for action in build_parser()._actions}
    renamed = {
        "retention": "retention_days",
        "es_pass_file": "es_secret_file",
        "es_api_key_file": "es_secret_file",
        "kibana_pass_file": "kibana_secret_file",
        "jetstream_api_key_file": "jetstream_api_key",
    }
    no_fields = {"help", "version", "config_file", "print_completion"}
    derived = {"replay_command", "warnings"}
    fields = {renamed.get(name, name) for name in options - no_fields}
    assert fields == set(Config.__dataclass_fields__) - derived


def test_a_missing_config_file_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error(capsys, ["-c", "/nowhere/slurp.conf"]).count("/nowhere/slurp.conf") == 1


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--fooo", ""),
        ("--xx", ""),
        ("-k", ""),
        ("--flsh", ", did you mean --flush?"),
        ("--es-passs=x", ", did you"),
    ],
)
def test_a_suggestion_is_similar_without_its_hyphens(
    capsys: pytest.CaptureFixture[str], option: str, hint: str
) -> None:
    assert f"unknown option {option.partition('=')[0]}{hint or ';'}" in usage_error(capsys, [option])


def test_each_option_has_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "slurp.conf"
    file.write_text("flush = 3s\nbatch = 7\nindexers = 4\n")
    argv = [f"-c{file}", "--indexers=6", "--no-kibana", "--es-user", "index"]
    _, origins = parse_with_origins(argv, {"SKEETSLURPER_BATCH": "8"})
    assert origins == {
        "flush": f"{file}, line 1",
        "batch": "SKEETSLURPER_BATCH",
        **dict.fromkeys(("config", "indexers", "no-kibana", "es-user"), "command line"),
    }
