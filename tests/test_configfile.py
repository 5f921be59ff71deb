"""Config files: the values of valid lines, and the errors of invalid ones with their line numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurp.config import Config, parse
from slurp.errors import Exit
from tests.tiers import slow_except
from tests.usage import usage_error

POSTS, GRAPH = "app.bsky.feed.post", "app.bsky.graph.*"
COMMENT = "es-pass: # may be part of the value or start a comment (quote the value, or move the comment"
INVALID = "invalid line (use 'name = value' with an option from --help)"

Read = Callable[[str], Config]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return a function that parses the options in a file with the given text."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def work(text: str) -> Config:
        file = tmp_path / "slurp.conf"
        file.write_text(text, encoding="utf-8")
        return parse(["-c", str(file)], {"HOME": str(tmp_path)})

    return work


@pytest.fixture
def rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Return a function that returns the error message for a file with the given text."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def work(text: str) -> str:
        file = tmp_path / "slurp.conf"
        file.write_text(text, encoding="utf-8")
        return usage_error(capsys, ["-c", str(file)], {"HOME": str(tmp_path)})

    return work


@pytest.mark.parametrize(
    "text",
    [
        f"collections = {GRAPH}\ncollections = {POSTS}\n",
        f"collections = {GRAPH}, {POSTS}\n",
        f'collections = "{GRAPH},{POSTS}"\n',
        f"collections = [{GRAPH}, {POSTS}]\n",
        f'collections = ["{GRAPH}", "{POSTS}"]  # both\n',
        f"--collections {GRAPH}\nindex = x\ncollections: [{POSTS}]\n",
    ],
)
def test_a_list_is_repeated_or_has_commas_or_brackets(read: Read, text: str) -> None:
    assert read(text).collections == (POSTS, GRAPH)


def test_each_list_option_can_be_repeated(read: Read) -> None:
    config = read(
        "jetstream = a.example\njetstream = b.example\nes = http://a:1\nes = http://b:1\n"
        "dids = did:plc:a\ndids = did:plc:b\n"
    )
    assert config.jetstream == ("wss://a.example", "wss://b.example")
    assert config.es == ("http://a:1", "http://b:1")
    assert config.dids == ("did:plc:a", "did:plc:b")


@pytest.mark.parametrize(
    ("line", "password"),
    [
        ('es-pass = "abc # def"', "abc # def"),
        ("es-pass = 'abc ; def'  # the old one", "abc ; def"),
        ('es-pass = "#abc"', "#abc"),
        ('es-pass = " abc "', " abc "),
        ('es-pass = "it\'s"', "it's"),
        ("es-pass = '\"'", '"'),
        ("es-pass = '[abc]'", "[abc]"),
        ('es-pass = ""', ""),
        ("es-pass =", ""),
        ("es-pass = abc#def;ghi", "abc#def;ghi"),
        ("es-pass = a=b:c", "a=b:c"),
        ("es-pass==abc", "=abc"),
        ('es-pass = it\'s "so"', 'it\'s "so"'),
        ("es-pass = a\\b", "a\\b"),
        ('es-pass = "a\\b"', "a\\b"),
        ("es-pass = abc def", "abc def"),
        ("es-pass: abc", "abc"),
        ("es-pass abc", "abc"),
        ("  --es-pass\tabc  ", "abc"),
    ],
)
def test_quotes_comments_and_blanks_of_a_value(read: Read, line: str, password: str) -> None:
    assert read(f"es-user = ann\n{line}\nindex = x\n").es_pass == password


def test_comments_headings_and_separators_are_ignored(read: Read) -> None:
    config = read(
        "# ours\n; theirs\n---\n[elasticsearch]  # a heading\n\n   # indented\nindex = x # why\n"
        "retention = 7d ; a week\nno-setup # a switch\nno-kibana = Yes\nredundant = off\nbatch=7\n"
    )
    assert (config.index, config.retention_days, config.batch) == ("x", 7, 7)
    assert (config.no_setup, config.no_kibana, config.redundant) == (True, True, False)


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        (
            "index = x\n\nes-pass = abc # geheim\n",
            3,
            COMMENT,
        ),
        ("es-pass geheim ;x", 1, "es-pass: ; may be part of the value or start a comment (quote"),
        (
            "kibana-pass = #geheim",
            1,
            "kibana-pass: # may be part of the value or start a comment",
        ),
        ("\nindex\n", 2, "index: missing value (use 'index = value')"),
        ("es-pass # geheim", 1, "es-pass: missing value"),
        ('es-pass = "geheim\n', 1, 'es-pass: missing closing quote "'),
        ("es-pass = 'geheim\"\n", 1, "es-pass: missing closing quote '"),
        ('es-pass = "geheim" more', 1, 'es-pass: text after the closing quote "'),
        ('es-pass = "a"geheim"', 1, 'es-pass: text after the closing quote "'),
        ("es-pass = a\nindex = x\nes-pass = geheim\n", 3, "es-pass is already set in line 1 (remove one"),
        ("no-setup\n--no-setup = false\n", 2, "no-setup is already set in line 1"),
        ("index = x\nes_pass = geheim\n", 2, "unknown option --es_pass, did you mean --es-pass?"),
        ("colour = geheim\n", 1, "unknown option --colour;"),
        ("no-kibanna\n", 1, "unknown option --no-kibanna, did you mean --no-kibana?"),
        ("geheim\n", 1, INVALID),
        ("Geheim4 = geheim\n", 1, INVALID),
        ("index = x\n = geheim\n", 2, INVALID),
        ("no-setup = geheim\n", 1, "no-setup: invalid value (use true or false)"),
        ("no-setup =\n", 1, "no-setup: invalid value (use true or false)"),
        ("es-user = [geheim, x]", 1, "es-user: not a repeatable option (quote a value"),
        ("[collections = geheim]\n", 1, INVALID),
        ("---es-pass = geheim\n", 1, INVALID),
        ("config = other.conf\n", 1, "--config can only be used on the command line"),
        ("help\n", 1, "--help can only be used on the command line"),
    ],
)
def test_an_invalid_line_is_rejected_with_its_number(
    rejected: Callable[[str], str], text: str, number: int, expected: str
) -> None:
    message = rejected(text)
    assert f"slurp.conf, line {number}: {expected}" in message
    assert "geheim" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("index = x\nbatch = many\n", "--batch: invalid number 'many' (use a whole number of 1 or more)"),
        ("index = x\ncollections = post\n", "--collections: invalid NSID 'post'"),
        ("batch = 7\nbuffer = 6\n", "--buffer 6 must not be less than --batch 7"),
        ("index = x\nlog-level = loud\n", "--log-level: invalid choice: 'loud'"),
        ("index = x\nes-ca = /nowhere/ca.pem\n", "--es-ca: no such file: /nowhere/ca.pem"),
    ],
)
def test_an_invalid_value_is_reported_with_its_line(
    rejected: Callable[[str], str], text: str, expected: str
) -> None:
    message = rejected(text)
    assert expected in message
    assert "slurp.conf, line 2);" in message


@pytest.mark.parametrize("start", slow_except(["\ufeff", ""], "\ufeff"))
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_byte_order_marks_of_all_editors_are_accepted(
    tmp_path: Path, start: str, end: str
) -> None:
    file = tmp_path / ".config" / "skeetslurper.conf"
    file.parent.mkdir()
    file.write_bytes(f"{start}index = äx{end}es-pass = geheim{end}".encode())
    program = Path(__file__).parents[1] / "skeetslurper.py"
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CONFIG_HOME"}
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        # A locale in which the bytes of a byte order mark are three letters.
        env=environment
        | {"HOME": str(tmp_path), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        timeout=60,
        check=False,
    )
    assert done.returncode == Exit.USAGE
    assert "--index: invalid index name '\\xe4x'" in done.stderr
    assert done.stderr.count(str(file)) == 1
    assert f"({file}, line 1)" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_rejected_by_name(
    tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "slurp.conf"
    file.write_bytes("es-user = ann\nes-pass = geheimü\n".encode(encoding))
    with pytest.raises(SystemExit) as stopped:
        parse(["-c", str(file)], {"HOME": str(tmp_path)})
    assert stopped.value.code == Exit.USAGE
    message = capsys.readouterr().err
    assert f"{file}: not UTF-8 text (save the file as UTF-8)" in message
    assert "geheim" not in message


def test_a_later_file_replaces_a_list_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own, named = tmp_path / ".config" / "skeetslurper.conf", tmp_path / "named.conf"
    own.parent.mkdir()
    own.write_text(f"collections = {POSTS}\ncollections = app.bsky.feed.like\n")
    named.write_text(f"collections = {GRAPH}\n")
    assert parse(["-c", str(named)], {}).collections == (GRAPH,)
    variable = {"SKEETSLURPER_COLLECTIONS": f'["{POSTS}"]'}
    assert parse(["-c", str(named)], variable).collections == (POSTS,)
    assert parse(["-c", str(named), "--collections", GRAPH], variable).collections == (GRAPH,)


def test_xdg_config_home_replaces_the_default_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    default, other = tmp_path / ".config" / "skeetslurper.conf", tmp_path / "o[t]her" / "skeetslurper.conf"
    for file, index in ((default, "default"), (other, "other")):
        file.parent.mkdir()
        file.write_text(f"index = {index}\n")
    home = {"XDG_CONFIG_HOME": str(other.parent)}
    assert parse([], home).index == "other"
    # The XDG specification requires that a relative path is ignored.
    assert parse([], {"XDG_CONFIG_HOME": "o[t]her"}).index == "default"
    # Release 0.1.0 read the default directory only.
    other.unlink()
    assert parse([], home).index == "default"


_TEXT = st.text(st.one_of(st.sampled_from("#;'\"= \\[],:-ab"), st.characters(codec="utf-8")), max_size=12)


@given(_TEXT)
def test_any_password_can_be_quoted_or_is_rejected(
    tmp_path_factory: pytest.TempPathFactory, password: str
) -> None:
    quote = next((one for one in "\"'" if one not in password), "")
    if not quote or any(one in password for one in "\r\n\udcff") or password != password.strip("\ufeff"):
        return
    file = tmp_path_factory.getbasetemp() / "quoted.conf"
    with file.open("w", encoding="utf-8", newline="") as stream:
        stream.write(f"es-pass = {quote}{password}{quote}\n")
    assert parse(["-c", str(file)], {"HOME": "/"}).es_pass == password
