"""The configuration of GitHub, pre-commit and yamllint matches their schemas and the files of the project."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
YAML = [*WORKFLOWS, ROOT / ".github" / "dependabot.yml", ROOT / ".pre-commit-config.yaml", ROOT / ".yamllint"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def parsed(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def steps() -> list[dict[str, Any]]:
    return [
        step for path in WORKFLOWS for job in parsed(path)["jobs"].values() for step in job.get("steps", [])
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)],
        ["check-jsonschema", "--builtin-schema", "vendor.dependabot", str(YAML[-3])],
        ["yamllint", "--strict", "-c", str(ROOT / ".yamllint"), *map(str, YAML)],
        ["pre-commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_linters_find_nothing(command: list[str]) -> None:
    program, *arguments = command
    done = subprocess.run([str(BIN / program), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_read_only_and_have_a_timeout(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert "permissions" not in job


def test_actions_are_pinned_by_commit() -> None:
    uses = re.findall(r"uses: (.+)", "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS))
    assert len(uses) > 5
    for action in uses:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action
    assert len({action.partition("@")[0] for action in uses}) == len({*uses}), "one version of each action"


def test_checkouts_do_not_persist_credentials() -> None:
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == 3
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_commands_of_workflows_exist() -> None:
    programs = set()
    for command in [step["run"] for step in steps() if "run" in step]:
        program, *words = shlex.split(command)
        programs.add(program)
        if program == "make":
            assert words[0] in TARGETS
        elif "/" in program:
            assert (ROOT / program).stat().st_mode & 0o100
    assert programs == {"make", "docker", "sudo", ".ci/run", "elk/smoke.sh"}


def test_ci_runs_the_linters_and_both_tiers_of_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = re.findall(r"^make ([a-z-]+)", script, re.MULTILINE)
    assert targets == ["lint", "test", "test-all", "bench-quick"]
    assert TARGETS.issuperset(targets)


def test_ci_runs_on_every_python_version_in_setup_py() -> None:
    (matrix,) = [job["strategy"]["matrix"] for job in parsed(WORKFLOWS[0])["jobs"].values()]
    named = re.findall(r"Python :: (3\.\d+)\"", (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert matrix["python"] == named


def test_the_tools_of_the_hooks_are_installed() -> None:
    hooks = [hook for repo in parsed(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    for hook in hooks:
        program, *words = shlex.split(hook["entry"])
        assert program.startswith(".venv/bin/")
        assert (BIN / Path(program).name).exists(), program
        assert hook["language"] == "system"
        if words[:1] == ["-m"]:
            assert (ROOT / words[1].replace(".", "/")).is_dir() or (
                ROOT / f"{words[1].replace('.', '/')}.py"
            ).exists()
