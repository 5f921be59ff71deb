from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from slurp import logs
from tests.worker import PROGRAM


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_secret_reaches_a_line_not_even_in_a_traceback() -> None:
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
def test_a_secret_is_hidden_however_it_is_spelled(style: str) -> None:
    stream = io.StringIO()
    secret = 'a/b "c" d\'e\\f\tg+ä'
    logs.set_up("debug", style, logs.Secrets((secret,)), stream)
    log = logging.getLogger("test")
    spellings = [
        secret,
        repr(secret),
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        quote(secret),
        quote(secret, safe=""),
    ]
    for spelling in spellings:
        log.info("it is %s", spelling)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(spellings)
    for line in lines:
        assert "***" in line
        assert not any(part in line for part in ('"c', "%22c", "d'e", "f\\tg"))


@pytest.mark.parametrize("character", ["\u202e", "\x9b", "\U000e0061", "\ud800", "\x7f", "\x1b", "\r"])
def test_json_stays_json_whatever_it_tells(character: str) -> None:
    stream = io.StringIO()
    logs.set_up("info", "json", logs.Secrets(), stream)
    logging.getLogger("test").info("it is %s", character)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"it is {character}"


def test_json_lines_are_json_and_scrubbed() -> None:
    stream = io.StringIO()
    logs.set_up("info", "json", logs.Secrets(('with"quote',)), stream)
    logging.getLogger("test").warning('it is with"quote\nand a second line', extra={"fields": {"n": 1}})
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["message"] == "it is ***\nand a second line"
    assert (entry["log.level"], entry["n"]) == ("warning", 1)


def test_fields_of_json_lines_are_scrubbed() -> None:
    stream = io.StringIO()
    logs.set_up("info", "json", logs.Secrets(("geheim",)), stream)
    fields = {"skeetslurper": {"host": "geheim.example", "n": 1}, "all": ["a geheim"]}
    logging.getLogger("test").info("said", extra={"fields": fields})
    entry = json.loads(stream.getvalue())
    assert (entry["skeetslurper"], entry["all"]) == ({"host": "***.example", "n": 1}, ["a ***"])


def test_strangers_text_can_not_move_the_cursor() -> None:
    stream = io.StringIO()
    logs.set_up("info", "text", logs.Secrets(), stream)
    logging.getLogger("test").info("post: %s", "\x1b[2J\x07 \u202e")
    assert "\\x1b[2J\\x07 \\x202e" in stream.getvalue()


def test_a_message_is_one_line_and_a_traceback_keeps_its_own() -> None:
    stream = io.StringIO()
    logs.set_up("info", "text", logs.Secrets(), stream)
    logging.getLogger("test").info("closed: %s", "bye\n2026-01-01T00:00:00.000Z INFO Shutdown complete")
    assert len(stream.getvalue().splitlines()) == 1
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("test").exception("failed")
    assert "\n    Traceback" in stream.getvalue()


class Gone(Terminal):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_terminal_that_goes_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    screen = logs.set_up("info", "text", logs.Secrets(), Gone())
    screen.show("5 events/s")
    logging.getLogger("test").info("hello")
    assert not screen.is_terminal


def test_the_live_line_is_only_for_terminals() -> None:
    stream = io.StringIO()
    screen = logs.set_up("info", "text", logs.Secrets(), stream)
    screen.show("5 events/s")
    assert stream.getvalue() == ""


def test_the_live_line_stays_below_the_log() -> None:
    stream = Terminal()
    screen = logs.set_up("info", "text", logs.Secrets(), stream)
    screen.show("5 events/s")
    logging.getLogger("test").info("hello")
    shown = stream.getvalue()
    assert shown.endswith("hello\n5 events/s")
    screen.show("")
    logging.getLogger("test").info("bye")
    assert stream.getvalue().endswith("bye\n")


@pytest.mark.parametrize("most", range(8, 30))
def test_a_secret_that_is_cut_is_none_to_read(most: int) -> None:
    said = logs.cut("proxy: password=geheimnis1234, so there", most)
    shown = logs.Secrets(("geheimnis1234",)).scrub(said)
    assert "geh" not in shown
    assert shown[:7] == "proxy: "


def test_what_is_not_cut_stays_as_it_is() -> None:
    assert logs.cut("as it is", 8) == "as it is"
    assert logs.Secrets(("geheim",)).scrub("a general… thing") == "a general… thing"


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_journal_gets_priorities(style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        logs.set_up("debug", style, logs.Secrets(), stream)
        log = logging.getLogger("test")
        for say in (log.debug, log.info, log.warning, log.error, log.critical):
            say("<0>\n<0> is strangers' text")
        priorities = [line[:3] for line in Path(stream.name).read_text(encoding="utf-8").splitlines()]
        assert priorities == ["<7>", "<6>", "<4>", "<3>", "<2>"]
        try:
            raise ValueError("x")
        except ValueError:
            log.exception("failed")
        lines = Path(stream.name).read_text(encoding="utf-8").splitlines()[5:]
        assert lines
        assert all(line.startswith("<3>") for line in lines)


def test_the_journal_gets_the_priority_of_a_wrong_option(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as stream:
        found = os.fstat(stream.fileno())
        environ = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}", "HOME": str(tmp_path)}
        subprocess.run([sys.executable, PROGRAM, "--flush", "soon"], env=environ, stderr=stream, check=False)
        assert Path(stream.name).read_text(encoding="utf-8").startswith("<3>skeetslurper: ")


@pytest.mark.parametrize("named", ["", "1:2", "nonsense"])
def test_whoever_inherits_the_variable_and_writes_elsewhere_gets_plain_lines(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", named)
    with (tmp_path / "log").open("w+", encoding="utf-8") as stream:
        logs.set_up("info", "text", logs.Secrets(), stream)
        logging.getLogger("test").error("hello")
        assert Path(stream.name).read_text(encoding="utf-8")[0].isdigit()
