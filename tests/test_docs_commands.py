"""Every command in the documentation is run as written, or listed here with the reason why not."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurp.config import parse
from slurp.embedded.node import EmbeddedNode
from slurp.options.definitions import build_parser
from slurp.options.values import exposure_warning
from slurp.simulator.jetstream import Simulator
from tests.conftest import SHARED
from tests.proxy import self_signed
from tests.test_docs import PAGES, ROOT

# Pages about the past, whose commands need not work today.
HISTORY = ("CHANGELOG.md", "docs/decisions.md")

_PROGRAMS = (
    r"make|python|skeetslurper(?:\.py)?|pre-commit|curl|docker|git|pip|systemctl|systemd-analyze|journalctl"
)
_PROGRAMS += r"|openssl|ssh|sudo|wsl|apt|pipx|chmod|printf|cd|mkdir|install|umask|rm"
_COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:\S*/)?(?:{_PROGRAMS}) \S").match

# Commands run in a copy of the project, with these values in place of the placeholders.
PLACEHOLDERS = {
    "DIR": str(SHARED / "lexicons"),
    "NAME": "bsky",
    "SPACE": "team",
    "FILE.ndjson": "dashboards.ndjson",
}

# Some commands use the default ports, as those of tests/test_demo.py do, so they run one at a time.
pytestmark = pytest.mark.xdist_group("usual ports")

RUN = re.compile(
    r"(?:\.venv/bin/)?python -m slurp\.(?:lexicons|kibana|reference|documents|elastic\.privileges) "
    r"|python -m slurp\.elastic\.analysis$"
    r"|\.venv/bin/python skeetslurper\.py(?: --embedded)?$"
    r"|(?:\.venv/bin/)?python -m slurp\.simulator --help$"
    r"|printf .*\.skeetslurper\.password$|mkdir -p ~/\.local"
    r"|skeetslurper --print-completion (?:bash|fish)"
).match
# These need servers that the tests do not have; their options are parsed.
PARSED = re.compile(r"\.venv/bin/python skeetslurper\.py --es").match
# Without Elasticsearch, so their options are parsed and nothing is done.
TOOLS = re.compile(r"python -m slurp\.(deletions|trends) ").match
COLLECTED = re.compile(r"\.venv/bin/python -m pytest ").match
DRY = re.compile(r"make ").match
NOT_HERE = {
    r"(\(?cd (elk|\.\.)|docker |git clone .* && cd )": "Docker; elk/ has tests/test_elk.py",
    r"curl -u elastic:changeme ": "tests/test_docs_node.py runs it",
    r"curl -sv --max-time 5 https://jetstream": "the internet",
    r"curl -s http://127\.0\.0\.1:8642/readyz$": "needs a worker; tests/test_http_worker.py",
    r"git (clone|submodule|tag|rm|commit)": "changes the repository",
    r"skeetslurper --check$": "tests/test_check.py",
    r"skeetslurper --print-completion zsh": "needs zsh; tests/test_completion.py",
    r"(sudo|wsl|ssh|openssl|apt|systemctl|systemd-\S+|journalctl|\(?umask|install|rm|PIPX_HOME=\S+) ": "root",
    r"(chmod 600|pip install)$": "a part of a command",
    r"\"\$\{EDITOR|/(usr|opt)/|chmod 600 \.env": "another folder, as root",
    r"\.venv/bin/pre-commit install$": "changes the hooks of this clone",
    r"\.venv/bin/python -m build$": "tests/test_packaging.py builds",
    r"python -m slurp\.deadletter replay( FILE| --quarantined)?$": "tests/test_dead_letters.py",
    r"python -m slurp\.deletions$": "tests/test_deletions_command.py",
    r"\.venv/bin/python -m slurp\.(embedded|simulator)$": "run until a signal; tests/test_signals.py",
    r"python -m slurp\.simulator --file ": "runs until a signal; tests/test_simulator_events.py",
    r"skeetslurper \[OPTION\]": "a synopsis",
}


def commands(page: Path) -> Iterator[str]:
    """Yield the lines of shell blocks, and the code in backticks that starts with a program name."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in re.sub(r"(^|\s)#.*", "", block).splitlines():
            if line.strip():
                yield " ".join(line.split())
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (found for found in re.findall(r"`([^`\n]+)`", prose) if _COMMAND(found))


ALL = sorted({c for page in PAGES if str(page.relative_to(ROOT)) not in HISTORY for c in commands(page)})


def matching(rule: object) -> list[str]:
    """Return the commands that match a rule."""
    return [command for command in ALL if rule(command)]  # type: ignore[operator]


def test_every_command_has_a_rule() -> None:
    rules = (RUN, PARSED, TOOLS, COLLECTED, DRY)
    elsewhere = {c for c in ALL for rule in NOT_HERE if re.match(rule, c)}
    assert [c for c in ALL if not any(rule(c) for rule in rules) and c not in elsewhere] == []
    assert [c for c in elsewhere if any(rule(c) for rule in rules)] == []
    assert [rule for rule in NOT_HERE if not any(re.match(rule, c) for c in ALL)] == []
    assert all(len(matching(rule)) >= 2 for rule in rules)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project that commands may change."""
    project = tmp_path_factory.mktemp("copy")
    for name in ("slurp", "docs", "elk"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "skeetslurper.py", project)
    (project / ".venv").symlink_to(sys.prefix)
    return project


def run(command: str, folder: Path, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={"HOME": str(home), "PATH": path, **variables},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", matching(RUN))
def test_a_documented_command_succeeds(
    command: str,
    copy: Path,
    jetstream: Simulator,
    es_node: EmbeddedNode,
    fresh_index_prefix: str,
    tmp_path: Path,
) -> None:
    if "DIR" in command and not (SHARED / "lexicons").is_dir():
        pytest.skip(f"the lexicons are not at {SHARED.name}/lexicons beside the project")
    for placeholder, word in PLACEHOLDERS.items():
        command = re.sub(rf"(?<=\s){re.escape(placeholder)}\b", word, command)
    for folder in (".local/share/bash-completion/completions", ".config/fish/completions"):
        (tmp_path / folder).mkdir(parents=True)
    variables = {}
    if "skeetslurper.py" in command:
        # With the servers of this test, until the worker has caught up.
        jetstream.generate(200)
        variables = {
            "SKEETSLURPER_JETSTREAM": jetstream.url,
            "SKEETSLURPER_ES": es_node.url,
            "SKEETSLURPER_INDEX": fresh_index_prefix,
            "SKEETSLURPER_KIBANA": "http://127.0.0.1:1",
            "SKEETSLURPER_SINCE": "0",
            "SKEETSLURPER_CATCH_UP": "true",
        }
    done = run(command, copy, tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert "skeetslurper.py" not in command or "indexed 200 " in done.stderr


@pytest.mark.parametrize("command", matching(PARSED))
def test_the_options_of_a_documented_command_are_valid(command: str, tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("changeme")
    secret.chmod(0o600)
    words = [
        str({"ca.pem": certificate}.get(word, secret if word.endswith(".password") else word))
        for word in shlex.split(command)
    ]
    config = parse(words[2:], {})
    assert (config.es_pass, config.warnings) == ("changeme", ())


@pytest.mark.parametrize("command", matching(TOOLS))
def test_the_options_of_a_documented_tool_are_valid(command: str, tmp_path: Path) -> None:
    record = "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3l3qqq"
    for placeholder, word in {"AT_URI": record, "DID": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}.items():
        command = re.sub(rf"(?<=\s){placeholder}\b", word, command)
    done = run(f"{command} --es http://127.0.0.1:1 --wait 1s", ROOT, tmp_path)
    assert (done.returncode, "Elasticsearch" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("command", matching(COLLECTED))
def test_documented_pytest_commands_select_tests(command: str) -> None:
    words = [sys.executable, *shlex.split(command)[1:], "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", matching(DRY))
def test_documented_make_commands_are_valid(command: str, tmp_path: Path) -> None:
    done = run(command.replace("make ", "make -n ", 1), ROOT, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_suggested_command_protects_a_secret_file(tmp_path: Path) -> None:
    secret = tmp_path / "my 'secret'"
    secret.write_text("changeme")
    secret.chmod(0o644)
    warning = exposure_warning("--es-pass-file", secret, None)
    assert warning is not None
    assert run(warning.partition("to fix it: ")[2], tmp_path, tmp_path).returncode == 0
    assert exposure_warning("--es-pass-file", secret, None) is None


def test_options_named_in_messages_exist() -> None:
    """Find every option that a log message, an error or a panel names."""
    known = {option for action in build_parser()._actions for option in action.option_strings}
    # Options of other commands of this project, and of programs that it calls.
    known |= {"--quarantined", "--check", "--output", "--space", "--no-links", "--seconds", "--rate"}
    known |= {"--data", "--port", "--heap", "--password"}
    known |= {"--did", "--uri", "--verify", "--confirm", "--yes", "--from", "--to"}
    other_programs = ("privileges.py", "run_as_user.py", "java.py", "completion.py")
    missing = set()
    for path in (ROOT / "slurp").rglob("*.py"):
        if path.parts[-2] == "simulator" or path.name in other_programs:
            continue
        for option in re.findall(
            r"(?<![\w-])(--[a-z][a-z-]+[a-z])(?![\w-])", path.read_text(encoding="utf-8")
        ):
            if option not in known:
                missing.add(f"{path.relative_to(ROOT)}: {option}")
    assert missing == set()
