"""Secrets in the options: where they come from, and that no message repeats them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from slurp.config import parse
from slurp.options.values import SecretFile, parse_api_key
from tests.usage import usage_error


@pytest.fixture(autouse=True)
def _no_user_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_password_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")
    file.chmod(stat.S_IRUSR)
    config = parse(["--es-pass-file", str(file)], {})
    assert config.es_pass == "geheim"
    assert config.es_secret_file == SecretFile("--es-pass-file", file)
    assert "geheim" not in repr(config)


def test_kibana_gets_the_credentials_of_elasticsearch_by_default(tmp_path: Path) -> None:
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


def test_an_api_key_has_precedence_over_a_password_and_may_be_in_a_file(tmp_path: Path) -> None:
    word, key = tmp_path / "password", tmp_path / "key"
    word.write_text("geheim\n")
    key.write_text("a2V5Og==\n")
    config = parse(["--es-pass-file", str(word), "--es-api-key-file", str(key)], {})
    assert config.es_api_key == "a2V5Og=="
    assert (
        config.es_secret_file
        == config.kibana_secret_file
        == SecretFile("--es-api-key-file", key, parse_api_key)
    )
    assert "a2V5Og==" in config.secrets
    assert "a2V5Og==" not in repr(config)
    # Kibana has a user of its own, whose password is in the other file.
    config = parse(["--es-pass-file", str(word), "--es-api-key-file", str(key), "--kibana-user", "bob"], {})
    assert (config.kibana_pass, config.kibana_secret_file) == ("geheim", SecretFile("--es-pass-file", word))
    # The file of the password is not used, as the key has precedence.
    config = parse(["--es-pass-file", str(word), "--es-api-key", "a2V5"], {})
    assert (config.es_api_key, config.es_secret_file, config.kibana_secret_file) == ("a2V5", None, None)
    assert parse([], {"SKEETSLURPER_ES_API_KEY": ""}).es_api_key == ""


def test_a_secret_given_as_its_file_is_not_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("VnVhQ2ZHY0JDZGJr", "VnVh/Q2ZHY0JDZGJr", "V" * 5000, f"V/{'V' * 5000}"):
        with pytest.raises(SystemExit):
            parse(["--es-api-key-file", given], {})
        error = capsys.readouterr().err
        assert "--es-api-key-file: cannot read the file (its name is not shown" in error
        assert "VVV" not in error
        assert "VnV" not in error


@pytest.mark.parametrize("invalid", ["id:geheim", '{"encoded":"geheim"}', "geheim\tgeheim", "gehéim"])
def test_an_invalid_api_key_is_rejected_and_not_repeated(
    invalid: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    file.write_text(invalid)
    for option, value in (("--es-api-key", invalid), ("--es-api-key-file", str(file))):
        with pytest.raises(SystemExit):
            parse([option, value], {})
        error = capsys.readouterr().err
        assert f"{option}: " in error
        assert "invalid API key (use the 'encoded' form" in error
        assert "geh" not in error


@pytest.mark.parametrize("written", ["\ufeffgeheim", "geheim\r\n", "\ufeffgeheim\n", "geheim\r"])
def test_byte_order_mark_and_line_ends_are_removed_from_a_secret(written: str, tmp_path: Path) -> None:
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


def test_blanks_of_a_secret_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(" ge heim\t\r\n")
    assert parse(["--es-pass-file", str(file)], {}).es_pass == " ge heim\t"
    assert parse([], {"SKEETSLURPER_ES_PASS": " ge heim\t\r\n"}).es_pass == " ge heim\t"


@pytest.mark.parametrize("option", ["--es-pass-file", "--es-api-key-file", "--kibana-pass-file", "-c"])
def test_a_secret_that_others_can_read_causes_a_warning(option: str, tmp_path: Path) -> None:
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


def test_an_intended_file_mode_causes_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("geheim\n")
    file.chmod(0o444)
    # A credential of systemd: other users have no access to its directory.
    assert not parse(["--es-pass-file", str(file)], {"CREDENTIALS_DIRECTORY": str(tmp_path)}).warnings
    # A file of root, readable by a group of services.
    file.chmod(0o640)
    monkeypatch.setattr("os.geteuid", lambda: 10_001)
    assert not parse(["--es-pass-file", str(file)], {}).warnings
    file.chmod(0o644)
    (warning,) = parse(["--es-pass-file", str(file)], {}).warnings
    assert warning.endswith(f"change its owner to this user and run chmod 600 {file}")
    # A config file without a secret.
    file.write_text("es-user = ann\n")
    assert not parse(["-c", str(file)], {}).warnings


def test_secrets_in_urls_are_rejected_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "geheim" not in usage_error(capsys, ["--es", "http://elastic:geheim@localhost:9200"])
    assert "geheim" not in usage_error(capsys, ["--es", "ftp://elastic:geheim@localhost:9200"])
