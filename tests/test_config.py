from __future__ import annotations

import dataclasses
import errno
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from slurp.addresses import Address
from slurp.config import LEGACY_HOSTS, PUBLIC_HOSTS, Config, parse
from slurp.events.position import LIVE
from slurp.options import build_parser
from slurp.values import SecretFile, api_key


@pytest.fixture(autouse=True)
def _no_config_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def refused(capsys: pytest.CaptureFixture[str], *argv: str, env: dict[str, str] | None = None) -> str:
    """The one line that a wrong command line is answered with."""
    with pytest.raises(SystemExit) as stopped:
        parse(argv, env or {})
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    return err


def test_nothing_has_to_be_set() -> None:
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


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "slurp.conf"
    file.write_text("flush = 3s\nbatch = 7\nindexers = 4\nno-kibana = true\n")
    env = {"SKEETSLURPER_BATCH": "8", "SKEETSLURPER_INDEXERS": "5"}
    config = parse(["-c", str(file), "--indexers", "6"], env)
    assert (config.flush, config.batch, config.indexers, config.kibana) == (3.0, 8, 6, None)


def test_lists_are_repeated_or_have_commas(tmp_path: Path) -> None:
    expected = ("app.bsky.feed.post", "app.bsky.graph.*")
    file = tmp_path / "slurp.conf"
    file.write_text("collections = app.bsky.graph.*, app.bsky.feed.post\n")
    assert parse(["-c", str(file)], {}).collections == expected
    assert (
        parse([], {"SKEETSLURPER_COLLECTIONS": "app.bsky.feed.post,app.bsky.graph.*"}).collections == expected
    )
    flags = ["--collections", "app.bsky.graph.*", "--collections", "app.bsky.feed.post"]
    assert parse(flags, {}).collections == expected


def test_the_page_is_off_unless_asked_for_or_embedded(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([], {}).http is None
    assert parse(["--embedded"], {}).http == Address("127.0.0.1", 8642, asked=False)
    assert parse(["--embedded", "--http", "off"], {}).http is None
    assert parse(["--embedded"], {"SKEETSLURPER_HTTP": "[::1]:0"}).http == Address("::1", 0)
    assert parse(["--http", "9000"], {}).http == Address("127.0.0.1", 9000)
    assert "--http: 'here' is no address to listen at" in refused(capsys, "--http", "here")


def test_jetstream_urls_are_what_people_paste() -> None:
    given = "wss://A.example/subscribe,b.example,ws://localhost:6008/"
    assert parse([], {"SKEETSLURPER_JETSTREAM": given}).jetstream == (
        "wss://a.example",
        "wss://b.example",
        "ws://localhost:6008",
    )


def test_since_takes_a_duration_a_time_or_a_cursor() -> None:
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


def test_times_never_turn_into_sequence_numbers() -> None:
    assert parse(["--replay-from", "2000-01-01"], {}).replay_from == 10**15
    assert parse(["--since", "100000d"], {}).since == 10**15


def test_a_url_without_a_port_means_that_of_its_scheme() -> None:
    assert parse(["--es", "http://localhost", "--es", "https://es.example/path/"], {}).es == (
        "http://localhost:80",
        "https://es.example:443/path",
    )


def test_retention() -> None:
    assert parse(["--retention", "7d"], {}).retention_days == 7
    assert parse(["--retention", "forever"], {}).retention_days is None


def test_the_password_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")
    file.chmod(stat.S_IRUSR)
    config = parse(["--es-pass-file", str(file)], {})
    assert config.es_pass == "geheim"
    assert config.es_secret_file == SecretFile("--es-pass-file", file)
    assert "geheim" not in repr(config)


def test_kibana_is_entered_as_elasticsearch_is(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")
    config = parse(["--es-user", "ann", "--es-pass-file", str(file)], {})
    assert (config.kibana_user, config.kibana_pass) == (None, "geheim")
    assert config.kibana_secret_file == config.es_secret_file
    assert (config.kibana_space, config.kibana_overwrite) == ("", False)
    config = parse(["--es-pass-file", str(file), "--kibana-user", "bob", "--kibana-pass", "leise"], {})
    assert (config.kibana_user, config.kibana_pass, config.kibana_secret_file) == ("bob", "leise", None)
    assert "leise" in config.secrets
    assert "leise" not in repr(config)
    config = parse(["--kibana-pass-file", str(file)], {})
    assert (config.es_pass, config.kibana_pass) == ("changeme", "geheim")
    assert config.kibana_secret_file == SecretFile("--kibana-pass-file", file)


def test_an_api_key_comes_before_a_password_and_from_a_file(tmp_path: Path) -> None:
    word, key = tmp_path / "password", tmp_path / "key"
    word.write_text("geheim\n")
    key.write_text("a2V5Og==\n")
    config = parse(["--es-pass-file", str(word), "--es-api-key-file", str(key)], {})
    assert config.es_api_key == "a2V5Og=="
    assert config.es_secret_file == config.kibana_secret_file == SecretFile("--es-api-key-file", key, api_key)
    assert "a2V5Og==" in config.secrets
    assert "a2V5Og==" not in repr(config)
    # Another one for Kibana, whose password comes from the other file.
    config = parse(["--es-pass-file", str(word), "--es-api-key-file", str(key), "--kibana-user", "bob"], {})
    assert (config.kibana_pass, config.kibana_secret_file) == ("geheim", SecretFile("--es-pass-file", word))
    # The file that is there is not the one of what is used.
    config = parse(["--es-pass-file", str(word), "--es-api-key", "a2V5"], {})
    assert (config.es_api_key, config.es_secret_file, config.kibana_secret_file) == ("a2V5", None, None)
    assert parse([], {"SKEETSLURPER_ES_API_KEY": ""}).es_api_key == ""


def test_a_secret_in_place_of_its_file_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("VnVhQ2ZHY0JDZGJr", "VnVh/Q2ZHY0JDZGJr", "V" * 5000, f"V/{'V' * 5000}"):
        with pytest.raises(SystemExit):
            parse(["--es-api-key-file", given], {})
        told = capsys.readouterr().err
        assert "--es-api-key-file: can't read a file of that name: " in told
        assert "VVV" not in told
        assert "VnV" not in told


@pytest.mark.parametrize("bad", ["id:geheim", '{"encoded":"geheim"}', "geheim\tgeheim", "gehéim"])
def test_what_is_no_api_key_is_told_and_not_repeated(
    bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    file.write_text(bad)
    for option, value in (("--es-api-key", bad), ("--es-api-key-file", str(file))):
        with pytest.raises(SystemExit):
            parse([option, value], {})
        told = capsys.readouterr().err
        assert f"{option}: " in told
        assert "no encoded API key" in told
        assert "geh" not in told


@pytest.mark.parametrize("written", ["\ufeffgeheim", "geheim\r\n", "\ufeffgeheim\n", "geheim\r"])
def test_a_secret_has_no_byte_order_mark_and_no_line_end(written: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(written.encode())
    for name in ("es_pass", "es_api_key", "kibana_pass"):
        by_key = name == "es_api_key"
        option = f"--{name.replace('_', '-')}"
        variable = f"SKEETSLURPER_{name.upper()}"
        for config in (
            parse([f"{option}-file", str(file)], {}),
            parse([], {f"{variable}_FILE": str(file)}),
            parse([], {variable: written}),
            parse([option, written], {}),
        ):
            assert getattr(config, name) == "geheim"
            assert config.kibana_pass == ("changeme" if by_key else "geheim")
            assert "geheim" in config.secrets


def test_blanks_belong_to_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(" ge heim\t\r\n")
    assert parse(["--es-pass-file", str(file)], {}).es_pass == " ge heim\t"
    assert parse([], {"SKEETSLURPER_ES_PASS": " ge heim\t\r\n"}).es_pass == " ge heim\t"


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "slurp.conf"
    file.write_bytes("\ufeffes-pass = geheim\r\nes-user = ann\r\n".encode())
    config = parse(["-c", str(file)], {})
    assert (config.es_user, config.es_pass) == ("ann", "geheim")


@pytest.mark.parametrize("option", ["--es-pass-file", "--es-api-key-file", "--kibana-pass-file", "-c"])
def test_a_secret_that_others_can_read_is_warned_of(option: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("es-pass = geheim\n" if option == "-c" else "geheim\n")
    for mode, warned in ((0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o444, True)):
        file.chmod(mode)
        config = parse([option, str(file)], {})
        if not warned:
            assert not config.warnings
            continue
        (warning,) = config.warnings
        name = "--es-pass" if option == "-c" else option
        assert warning.startswith(f"{name}: other users can read {file}, ")
        assert f"(mode {mode:04o})" in warning
        assert warning.endswith(f": chmod 600 {file}")
        assert "geheim" not in warning


def test_a_file_is_not_warned_of_where_its_mode_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("geheim\n")
    file.chmod(0o444)
    # A credential of systemd, whose folder nobody else enters.
    assert not parse(["--es-pass-file", str(file)], {"CREDENTIALS_DIRECTORY": str(tmp_path)}).warnings
    # A file of root that a group of services may read.
    file.chmod(0o640)
    monkeypatch.setattr("os.geteuid", lambda: 10_001)
    assert not parse(["--es-pass-file", str(file)], {}).warnings
    file.chmod(0o644)
    (warning,) = parse(["--es-pass-file", str(file)], {}).warnings
    assert warning.endswith(f"make it a file of this user and chmod 600 {file}")
    # A config file without a secret.
    file.write_text("es-user = ann\n")
    assert not parse(["-c", str(file)], {}).warnings


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


def test_options_for_a_kibana_that_is_not_used_are_warned_of() -> None:
    remote = ["--es", "https://es.example"]
    env = {"SKEETSLURPER_KIBANA_PASS": "geheim"}
    (warning,) = parse([*remote, "--kibana-user", "ann"], env).warnings
    assert warning.startswith("--kibana-user, --kibana-pass: no effect, as Kibana is disabled")
    assert "use --kibana URL" in warning
    assert "geheim" not in warning
    assert not parse([*remote, "--kibana-user", "ann", "--no-kibana"], env).warnings


def test_the_default_space_may_be_named() -> None:
    assert parse(["--kibana-space", "default"], {}).kibana_space == ""
    assert parse(["--kibana-space", "team_a-1"], {}).kibana_space == "team_a-1"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--kibana-space", "Team A"], "--kibana-space: 'Team A' is no id of a space"),
        (["--kibana-pass-file", "/nowhere/secret"], "--kibana-pass-file: can't read /nowhere/secret"),
        (["--es-api-key", "k", "--es-api-key-file", "/nowhere/key"], "give one of them"),
        (["--es-api-key", "k", "--kibana-pass", "w"], "beside --es-api-key needs --kibana-user"),
        (["--flush", "3"], "--flush: '3' is no duration"),
        (["--flush", "0s"], "--flush must be more than nothing"),
        (["--batch", "0"], "--batch: '0' is no whole number of 1 or more"),
        (["--batch", "²"], "--batch: '²' is no whole number"),
        (["--buffer", "10"], "--buffer 10 holds less than one --batch of 2000"),
        (["--buffer-bytes", "much"], "--buffer-bytes: 'much' is no size"),
        (["--since", "later"], "--since: 'later' is no start"),
        (["--since", "2999-01-01"], "--since: '2999-01-01' lies in the future"),
        (["--since", "9999999999999999"], "--since: '9999999999999999' lies in the future"),
        (["--retention", "1d"], "--retention: '1d' is no retention"),
        (["--collections", "post"], "--collections: 'post' is no NSID"),
        (["--dids", "alice"], "--dids: 'alice' is no DID"),
        (
            ["--jetstream", "http://localhost:1"],
            "--jetstream: 'http://localhost:1' is no ws:// or wss:// URL",
        ),
        (["--es", "localhost:9200"], "--es: 'localhost:9200' is no http:// or https:// URL"),
        (["--es", "http://h:port"], "--es: 'http://h:port': "),
        (["--jetstream", f"{'a' * 64}.example"], "too long"),
        (["--es", "http://"], "--es: 'http://' names no host"),
        (["--es-ca", "/nowhere/ca.pem"], "--es-ca: there is no file /nowhere/ca.pem"),
        (["--es-pass-file", "/nowhere/secret"], "--es-pass-file: can't read /nowhere/secret"),
        (["--index", "Events"], "--index: 'Events' is no index name"),
        (["--index", "skeetslurper"], "would also match our own skeetslurper-state"),
        (["--worker-name", "a b"], "--worker-name takes up to 64"),
        (["--log-level", "loud"], "--log-level: invalid choice: 'loud'"),
        (["--indexer", "3"], "unknown option --indexer, did you mean --indexers?"),
        (["-c", "/nowhere/slurp.conf"], "Unable to open config file: /nowhere/slurp.conf"),
        (["word"], "unknown option (a word without an option)"),
    ],
)
def test_a_bad_value_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], expected: str
) -> None:
    assert expected in refused(capsys, *argv)


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


def test_variables_that_kubernetes_sets_are_warned_of_and_ignored() -> None:
    config = parse([], KUBERNETES)
    (warning,) = config.warnings
    assert warning.startswith("not options, ignored: environment variables SKEETSLURPER_ES_PORT, ")
    assert all(name in warning for name in KUBERNETES)
    assert "enableServiceLinks: false" in warning
    assert "10.0.0" not in warning
    assert config == dataclasses.replace(parse([], {}), warnings=config.warnings)


@pytest.mark.parametrize("name", ["MEM_LIMIT", "VERSION", "HOME", "IMAGE", "", "ELASTICSEARCH_URL"])
def test_a_variable_that_is_like_no_option_is_warned_of(name: str) -> None:
    (warning,) = parse([], {f"SKEETSLURPER_{name}": "geheim"}).warnings
    assert warning == f"not options, ignored: environment variables SKEETSLURPER_{name}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ES_PASSWORD", "ES_PASS"),
        ("ES_USERNAME", "ES_USER"),
        ("RETENTOIN", "RETENTION"),
        ("COLLECTION", "COLLECTIONS"),
        ("INDEXER", "INDEXERS"),
        ("KIBANNA", "KIBANA"),
        ("es_pass", ""),
    ],
)
def test_a_variable_that_is_nearly_an_option_is_refused(
    capsys: pytest.CaptureFixture[str], name: str, meant: str
) -> None:
    # Names of variables have capital letters; others are nobody's slip of the pen.
    if not meant:
        assert parse([], {f"SKEETSLURPER_{name}": "x"}).warnings
        return
    message = refused(capsys, env={f"SKEETSLURPER_{name}": "geheim"})
    assert f"unknown environment variable SKEETSLURPER_{name}, did you mean SKEETSLURPER_{meant}?" in message
    assert "geheim" not in message


def test_a_config_file_is_named_by_a_flag_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert "SKEETSLURPER_CONFIG: --config is a flag only" in refused(capsys, env={"SKEETSLURPER_CONFIG": "x"})


def test_an_error_names_the_variable_that_the_value_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    env = {"SKEETSLURPER_BATCH": "many", "SKEETSLURPER_FLUSH": "0s"}
    assert "--batch: 'many' is no whole number of 1 or more (SKEETSLURPER_BATCH);" in refused(capsys, env=env)
    message = refused(capsys, "--batch", "7", env=env)
    assert "--flush must be more than nothing (SKEETSLURPER_FLUSH);" in message
    assert "SKEETSLURPER" not in refused(capsys, "--batch", "few", env=env)


def test_a_misspelt_variable_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, env={"SKEETSLURPER_ES_PASSS": "geheim"})
    assert "SKEETSLURPER_ES_PASSS, did you mean SKEETSLURPER_ES_PASS?" in message
    assert "geheim" not in message


def test_a_key_that_a_file_misspells_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "slurp.conf"
    file.write_text("es-passs = geheim\n")
    message = refused(capsys, "-c", str(file))
    assert "unknown option --es-passs, did you mean --es-pass?" in message
    assert "geheim" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("es-pass = [geheim]", "es-pass takes one value, not a list in brackets"),
        ("es-pass = [geheim, x]", "es-pass takes one value, not a list in brackets"),
        ("no-setup = geheim", "no-setup takes true or false"),
        ("# ours\n\n= geheim", "slurp.conf, line 3: this is no 'name = value'"),
        ("es-passs = one -geheim", "unknown option --es-passs, did you mean --es-pass?"),
        ("config = other.conf", "slurp.conf, line 1: --config is a flag only"),
        ("version = true", "slurp.conf, line 1: --version is a flag only"),
        ("--print-completion = bash", "slurp.conf, line 1: --print-completion is a flag only"),
    ],
)
def test_a_bad_line_of_a_file_is_told_without_its_value(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "slurp.conf"
    file.write_text(f"{text}\n")
    message = refused(capsys, "-c", str(file))
    assert expected in message
    assert "geheim" not in message


def test_a_config_file_that_can_not_be_read_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".config" / "skeetslurper.conf"
    folder.mkdir(parents=True)
    assert f"can't read {folder}: Is a directory" in refused(capsys)
    # To root, who may run this, every file is readable.
    monkeypatch.setattr("builtins.open", denied)
    assert f"can't read {folder}: Permission denied" in refused(capsys)


def denied(path: str, *_: object, **__: object) -> NoReturn:
    raise PermissionError(errno.EACCES, "Permission denied", path)


def test_secrets_in_urls_are_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "geheim" not in refused(capsys, "--es", "http://elastic:geheim@localhost:9200")
    assert "geheim" not in refused(capsys, "--es", "ftp://elastic:geheim@localhost:9200")


def test_help_fits_the_screen_and_holds_no_secret(
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


def test_every_option_ends_in_the_config() -> None:
    options = {action.dest for action in build_parser()._actions}
    turned = {
        "retention": "retention_days",
        "es_pass_file": "es_secret_file",
        "es_api_key_file": "es_secret_file",
        "kibana_pass_file": "kibana_secret_file",
    }
    apart = {"help", "version", "config_file", "print_completion"}
    made = {"fill", "warnings"}
    assert {turned.get(name, name) for name in options - apart} == set(Config.__dataclass_fields__) - made
