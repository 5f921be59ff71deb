"""docs/cli.md is up to date, complete, and its rules of files and variables are correct."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slurp import reference
from slurp.config import parse
from slurp.options.config_file import COMMAND_LINE_ONLY
from slurp.options.definitions import build_parser
from slurp.options.parser import env_variable

PAGE = reference.FILE.read_text(encoding="utf-8")


def test_the_committed_page_is_current() -> None:
    assert reference.main(["build", "--check"]) == 0


def test_a_page_that_is_not_up_to_date_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "cli.md"
    assert reference.main(["build", "--check", "--output", str(stale)]) == 1
    assert "cli.md is not up to date" in capsys.readouterr().err
    assert reference.main(["build", "--output", str(stale)]) == 0
    assert reference.main(["build", "--check", "--output", str(stale)]) == 0
    stale.write_text(PAGE.replace("30s", "31s"), encoding="utf-8")
    assert reference.main(["build", "--check", "--output", str(stale)]) == 1


@pytest.mark.parametrize("width", ["40", "200"])
def test_the_page_does_not_depend_on_machine_or_terminal(tmp_path: Path, width: str) -> None:
    file = tmp_path / "cli.md"
    environment = {**os.environ, "HOME": str(tmp_path), "COLUMNS": width, "SKEETSLURPER_BATCH": "7"}
    command = [sys.executable, "-m", "slurp.reference", "build", "--output", str(file)]
    subprocess.run(command, env=environment, check=True)
    assert file.read_text(encoding="utf-8") == PAGE


def test_every_option_has_one_row_with_its_variable_and_key() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    names = [re.findall(r"--[a-z-]+", row[0])[-1] for row in rows]
    actions = build_parser()._actions
    assert names == [action.option_strings[-1] for action in actions]
    for name, row in zip(names, rows, strict=True):
        if name not in COMMAND_LINE_ONLY:
            assert row[1:3] == [f"`{env_variable(name)}`", f"`{name[2:]}`"]


def test_no_help_text_has_a_percent_sign_which_argparse_would_expand() -> None:
    assert [action.dest for action in build_parser()._actions if "%" in (action.help or "")] == []


def test_the_rules_of_the_page_for_files_and_variables_are_correct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own, named = tmp_path / ".config" / "skeetslurper.conf", tmp_path / "named.conf"
    own.parent.mkdir()
    own.write_text("batch = 5\nflush = 500ms\nindexers = 3\nno-kibana = true\n")
    named.write_text("batch = 6\nflush = 5m\nbuffer-bytes = 500kB\n")
    config = parse(["-c", str(named), "--flush", "2s"], {"SKEETSLURPER_REDUNDANT": "false"})
    assert (config.indexers, config.batch, config.flush, config.kibana) == (3, 6, 2.0, None)
    assert (config.buffer_bytes, config.redundant) == (500_000, False)
