"""The completion scripts, run in the shells."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slurp.options.completion import SHELLS

PROGRAM = Path(__file__).parents[1] / "skeetslurper.py"


def shell(name: str, text: str, cwd: Path) -> str:
    command = {"bash": ["bash", "--norc"], "zsh": ["zsh", "-f"], "fish": ["fish", "--no-config"]}[name]
    done = subprocess.run(
        [*command, "-c", text], cwd=cwd, check=False, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(params=SHELLS)
def name(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shell in SHELLS:
        command = [sys.executable, str(PROGRAM), "--print-completion", shell]
        (tmp_path / shell).write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    (tmp_path / "ca.pem").touch()
    (tmp_path / "lexicons").mkdir()
    return tmp_path


def completed(name: str, folder: Path, *words: str) -> set[str]:
    if name == "fish":
        line = " ".join(("skeetslurper", *words))
        # One candidate per line, followed by a tab and its description.
        found = shell(name, f'source fish; complete -C "{line}"', folder).splitlines()
        return {word.split("\t")[0].rstrip("/") for word in found}
    typed = " ".join(f"'{word}'" for word in ("skeetslurper", *words))
    script = f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _shtab_skeetslurper; echo ${{COMPREPLY[*]}}"
    return set(shell(name, f"source ./bash; {script}", folder).split())


def test_the_shell_accepts_the_script(name: str, folder: Path) -> None:
    command = [name, "-n", str(folder / name)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["bash", "fish"], indirect=True)
def test_options_values_and_files_are_completed(name: str, folder: Path) -> None:
    jetstream = {"--jetstream", "--jetstream-ca", "--jetstream-api-key", "--jetstream-api-key-file"}
    assert completed(name, folder, "--jet") == jetstream
    assert completed(name, folder, "--protocol", "v") == {"v1", "v2"}
    assert completed(name, folder, "--no-kibana", "--codec", "best") == {"best_compression"}
    assert completed(name, folder, "--es-ca", "ca") == {"ca.pem"}
    assert completed(name, folder, "--lexicons", "") == {"lexicons"}


@pytest.mark.parametrize("name", ["zsh"], indirect=True)
def test_zsh_completes_words_typed_on_a_terminal(name: str, folder: Path) -> None:
    """In a pseudo-terminal, as zsh completes words on a terminal only."""
    (folder / "ready").write_text(
        """
        autoload -Uz compinit; compinit -u -D; eval "$(cat zsh)"
        skeetslurper() { print -r -- "got<$*>" }
        print loaded
        """
    )
    typed = "--jetstream-\t c\t --protocol au\t --redu\t --codec b\t"
    out = shell(
        name,
        f"""
        zmodload zsh/zpty
        zpty zsh zsh -f -i
        zpty -w zsh '. ./ready'
        zpty -r zsh seen '*loaded*'
        zpty -w -n zsh $'skeetslurper {typed}\n'
        zpty -r zsh seen '*got<*>*'
        print -r -- $seen
        """,
        folder,
    )
    assert "got<--jetstream-ca ca.pem --protocol auto --redundant --codec best_compression>" in out


def test_a_start_of_the_worker_does_not_import_shtab() -> None:
    code = "import sys, slurp.cli, slurp.config; slurp.config.parse([]); print('shtab' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False\n"


def test_an_unknown_shell_is_rejected() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--print-completion", "dish"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--print-completion: invalid choice: 'dish'" in done.stderr
