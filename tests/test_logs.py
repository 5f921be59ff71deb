"""Log output: hidden secrets, escaped text, JSON, the status line, and priorities for the journal."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from slurp import logs
from tests.worker import PROGRAM

pytestmark = pytest.mark.usefixtures("restored_root_logger")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_secret_is_logged_even_in_a_traceback() -> None:
    stream = io.StringIO()
    secrets = logs.Secrets(("geheim", 'with"quote'))
    logs.set_up("debug", "text", secrets, stream)
    log = logging.getLogger("test")
    log.info("password %s", "geheim")
    try:
        raise ValueError("Basic geheim")
    except ValueError:
        log.exception("failed")
    secrets.add("rotated")
    log.info("now it is rotated")
    assert "geheim" not in stream.getvalue()
    assert "rotated" not in stream.getvalue()
    assert stream.getvalue().count("***") == 4


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_secret_is_hidden_in_every_encoding(style: str) -> None:
    stream = io.StringIO()
    secret = 'a/b "c" d\'e\\f\tg+ä'
    logs.set_up("debug", style, logs.Secrets((secret,)), stream)
    log = logging.getLogger("test")
    encodings = [
        secret,
        repr(secret),
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        quote(secret),
        quote(secret, safe=""),
    ]
    for encoded in encodings:
        log.info("it is %s", encoded)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(encodings)
    for line in lines:
        assert "***" in line
        assert not any(part in line for part in ('"c', "%22c", "d'e", "f\\tg"))


@pytest.mark.parametrize("character", ["\u202e", "\x9b", "\U000e0061", "\ud800", "\x7f", "\x1b", "\r"])
def test_json_lines_are_valid_for_every_character(character: str) -> None:
    stream = io.StringIO()
    logs.set_up("info", "json", logs.Secrets(), stream)
    logging.getLogger("test").info("it is %s", character)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"it is {character}"


def test_json_lines_are_valid_and_without_secrets() -> None:
    stream = io.StringIO()
    logs.set_up("info", "json", logs.Secrets(('with"quote',)), stream)
    logging.getLogger("test").warning('it is with"quote\nand a second line', extra={"fields": {"n": 1}})
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["message"] == "it is ***\nand a second line"
    assert (entry["log.level"], entry["n"]) == ("warning", 1)


def test_fields_of_json_lines_are_without_secrets() -> None:
    stream = io.StringIO()
    logs.set_up("info", "json", logs.Secrets(("geheim",)), stream)
    fields = {"skeetslurper": {"host": "geheim.example", "n": 1}, "all": ["a geheim"]}
    logging.getLogger("test").info("said", extra={"fields": fields})
    entry = json.loads(stream.getvalue())
    assert (entry["skeetslurper"], entry["all"]) == ({"host": "***.example", "n": 1}, ["a ***"])


def test_control_characters_are_escaped() -> None:
    stream = io.StringIO()
    logs.set_up("info", "text", logs.Secrets(), stream)
    logging.getLogger("test").info("post: %s", "\x1b[2J\x07 \u202e")
    assert "\\x1b[2J\\x07 \\x202e" in stream.getvalue()


def test_a_message_is_one_line_and_a_traceback_is_indented() -> None:
    stream = io.StringIO()
    logs.set_up("info", "text", logs.Secrets(), stream)
    logging.getLogger("test").info("closed: %s", "bye\n2026-01-01T00:00:00.000Z INFO Shutdown complete")
    assert len(stream.getvalue().splitlines()) == 1
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("test").exception("failed")
    assert "\n    Traceback" in stream.getvalue()


class ClosedTerminal(Terminal):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_closed_terminal_causes_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    screen = logs.set_up("info", "text", logs.Secrets(), ClosedTerminal())
    screen.show("5 events/s")
    logging.getLogger("test").info("hello")
    assert not screen.is_terminal


def test_the_status_line_is_only_written_to_terminals() -> None:
    stream = io.StringIO()
    screen = logs.set_up("info", "text", logs.Secrets(), stream)
    screen.show("5 events/s")
    assert stream.getvalue() == ""


def test_the_status_line_stays_below_the_log() -> None:
    stream = Terminal()
    screen = logs.set_up("info", "text", logs.Secrets(), stream)
    screen.show("5 events/s")
    logging.getLogger("test").info("hello")
    written = stream.getvalue()
    assert written.endswith("hello\n5 events/s")
    screen.show("")
    logging.getLogger("test").info("bye")
    assert stream.getvalue().endswith("bye\n")


@pytest.mark.parametrize("most", range(8, 30))
def test_a_cut_secret_is_hidden(most: int) -> None:
    text = logs.cut("proxy: password=geheimnis1234, so there", most)
    scrubbed = logs.Secrets(("geheimnis1234",)).scrub(text)
    assert "geh" not in scrubbed
    assert scrubbed[:7] == "proxy: "


def test_a_short_text_is_not_changed() -> None:
    assert logs.cut("as it is", 8) == "as it is"
    assert logs.Secrets(("geheim",)).scrub("a general… thing") == "a general… thing"


@pytest.mark.parametrize("style", ["text", "json"])
def test_journal_lines_start_with_their_priority(
    style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        logs.set_up("debug", style, logs.Secrets(), stream)
        log = logging.getLogger("test")
        for write in (log.debug, log.info, log.warning, log.error, log.critical):
            write("<0>\n<0> is untrusted text")
        priorities = [line[:3] for line in Path(stream.name).read_text(encoding="utf-8").splitlines()]
        assert priorities == ["<7>", "<6>", "<4>", "<3>", "<2>"]
        try:
            raise ValueError("x")
        except ValueError:
            log.exception("failed")
        lines = Path(stream.name).read_text(encoding="utf-8").splitlines()[5:]
        assert lines
        assert all(line.startswith("<3>") for line in lines)


def test_a_wrong_option_has_a_priority_in_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as stream:
        found = os.fstat(stream.fileno())
        environ = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}", "HOME": str(tmp_path)}
        subprocess.run([sys.executable, PROGRAM, "--flush", "soon"], env=environ, stderr=stream, check=False)
        assert Path(stream.name).read_text(encoding="utf-8").startswith("<3>skeetslurper: ")


@pytest.mark.parametrize("value", ["", "1:2", "nonsense"])
def test_an_inherited_journal_variable_is_ignored_for_other_streams(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", value)
    with (tmp_path / "log").open("w+", encoding="utf-8") as stream:
        logs.set_up("info", "text", logs.Secrets(), stream)
        logging.getLogger("test").error("hello")
        assert Path(stream.name).read_text(encoding="utf-8")[0].isdigit()
