"""The wheel and the sdist: their content, and that the wheel installs with the lock file only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slurp import __version__
from slurp.kibana.objects import build, ndjson

ROOT = Path(__file__).parents[1]
LOCKS = {"requirements.txt": "deploy/requirements.lock", "deploy/build.in": "deploy/build.lock"}
FROM_THE_LOCK = "--require-hashes --only-binary :all: -r deploy/requirements.lock"

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(*folders: str) -> set[str]:
    listed = run("git", "ls-files", "-z", *folders, cwd=ROOT).split("\0")
    return {name for name in listed if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files only, like a fresh clone."""
    folder = tmp_path_factory.mktemp("tree")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def dist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, tree, cwd=folder)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@dataclass
class Installed:
    """A venv with the wheel and the packages of the lock file, used from an empty folder."""

    folder: Path

    def run(self, program: str, *arguments: str | Path) -> str:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        # No module may be imported from the source tree.
        env = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1"}
        return run(self.folder / "bin" / program, *arguments, cwd=home, env=env)


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
    run(*pip, *FROM_THE_LOCK.split(), cwd=ROOT)
    run(*pip, "--no-deps", "--no-index", only(dist, "*.whl"), cwd=folder)
    return Installed(folder)


# Content


@pytest.mark.slow
def test_the_wheel_has_all_files_of_the_package_and_no_other(dist: Path) -> None:
    names = {name for name in contents(only(dist, "*.whl")) if ".dist-info/" not in name}
    assert names == tracked("slurp", "skeetslurper.py")
    assert any(name.endswith(".ndjson") for name in names)


@pytest.mark.slow
def test_the_sdist_and_the_tree_build_the_same_wheel(dist: Path, tree: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, tree, cwd=tmp_path)
    assert contents(only(tmp_path, "*.whl")) == contents(only(dist, "*.whl"))


@pytest.mark.slow
def test_the_sdist_has_documentation_and_deployment_files(dist: Path) -> None:
    with tarfile.open(only(dist, "*.tar.gz")) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    for name in tracked("deploy", "docs", "*.md", "LICENSE", "requirements.txt"):
        if "/" not in name or name.startswith(("deploy/", "docs/")):
            assert name in names
    assert {name for name in names if name.startswith(("tests/", "bench/", "."))} == set()


@pytest.mark.slow
def test_the_metadata_are_complete(dist: Path) -> None:
    files = contents(only(dist, "*.whl"))
    info = f"elastic_skeetslurper-{__version__}.dist-info"
    found = Metadata.from_email(files[f"{info}/METADATA"], validate=True)
    assert (found.name, str(found.version)) == ("elastic-skeetslurper", __version__)
    assert str(found.requires_python) == ">=3.11"
    assert found.license == "MIT"
    assert files[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert found.description_content_type == "text/markdown"
    assert found.description == (ROOT / "README.md").read_text(encoding="utf-8")
    needed = {str(one) for one in found.requires_dist or [] if one.marker is None}
    assert needed == {str(one) for one in requirements("requirements.txt")}
    assert set(found.provides_extra or []) >= {"dev", "embedded", "simulator"}


# Installed programs


@pytest.mark.slow
def test_the_command_runs(installed: Installed) -> None:
    assert installed.run("skeetslurper", "--version") == f"skeetslurper {__version__}\n"
    assert "--jetstream URL" in installed.run("skeetslurper", "--help")
    assert installed.run("python", "-m", "skeetslurper", "--version") == f"skeetslurper {__version__}\n"


@pytest.mark.slow
def test_the_modules_that_are_programs_run(installed: Installed) -> None:
    programs = {name.removesuffix("/__main__.py") for name in tracked("slurp") if "__main__" in name}
    # The simulator needs its extra.
    for name in sorted(programs - {"slurp/simulator"}):
        assert "usage: " in installed.run("python", "-m", name.replace("/", "."), "--help"), name


@pytest.mark.slow
def test_the_installed_package_builds_the_dashboards(installed: Installed, tmp_path: Path) -> None:
    file = tmp_path / "dashboards.ndjson"
    installed.run("python", "-m", "slurp.kibana", "build", "--check")
    installed.run("python", "-m", "slurp.kibana", "build", "--output", file)
    assert file.read_bytes() == ndjson(build())


@pytest.mark.slow
def test_the_installed_package_has_its_templates(installed: Installed) -> None:
    found = installed.run(
        *("python", "-c"),
        "import slurp.lexicons as l; print(l.__file__); print(l.committed().fields)",
    ).splitlines()
    assert found[0].startswith(str(installed.folder))
    assert int(found[1]) > 100


# The lock files


def requirements(file: str) -> list[Requirement]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def locked(file: str) -> dict[str, tuple[str, int]]:
    """Return version and number of hashes by canonical package name."""
    text = re.sub(r"\\\n", " ", (ROOT / file).read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    entries: dict[str, tuple[str, int]] = {}
    for line in lines:
        found = re.fullmatch(r"([\w.-]+)==(\S+)((?: ; [^#]+?)?)((?:\s+--hash=sha256:[0-9a-f]{64})+)", line)
        assert found, f"{file}: no version or no hash: {line[:100]}"
        assert canonicalize_name(found[1]) not in entries, line
        entries[canonicalize_name(found[1])] = (found[2], found[4].count("--hash"))
    return entries


@pytest.mark.parametrize(("file", "lock"), LOCKS.items())
def test_the_lock_satisfies_the_requirements(file: str, lock: str) -> None:
    entries = locked(lock)
    for requirement in requirements(file):
        version, _ = entries[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}, locked is {version}: make lock"


@pytest.mark.parametrize("lock", LOCKS.values())
def test_the_lock_has_no_host_and_no_path(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    assert not re.search(r"(^|\s)/\w", text)


def test_the_build_lock_has_the_requirements_of_pyproject() -> None:
    (required,) = re.findall(
        r"requires = \[\"(.+?)\"\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    assert [str(one) for one in requirements("deploy/build.in")] == [required]


@pytest.mark.slow
def test_the_venv_has_exactly_the_packages_of_the_lock(installed: Installed) -> None:
    """pip rejects a dependency without a hash, so no package is missing in the lock."""
    installed.run("python", "-m", "pip", "check")
    frozen = installed.run("python", "-m", "pip", "freeze").splitlines()
    installed_versions = dict(line.split("==") for line in frozen if "==" in line)
    entries = locked("deploy/requirements.lock")
    assert {canonicalize_name(name): version for name, version in installed_versions.items()}.items() <= {
        name: version for name, (version, _) in entries.items()
    }.items()
    assert {canonicalize_name(one.name) for one in requirements("requirements.txt")} <= {
        canonicalize_name(name) for name in installed_versions
    }


@pytest.mark.slow
def test_a_file_with_another_hash_is_rejected(installed: Installed, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "build.lock").read_text(encoding="utf-8")
    other = tmp_path / "other.lock"
    other.write_text(re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", text), encoding="utf-8")
    pip = [str(installed.folder / "bin" / "python"), "-m", "pip", "install", "--dry-run", "--require-hashes"]
    done = subprocess.run([*pip, "-r", str(other)], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


# The image; its first stage is tested without Docker

DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def instructions() -> tuple[list[str], list[str]]:
    """Return the instructions of the first and of the last stage."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    start, end = (number for number, line in enumerate(lines) if line.startswith("FROM "))
    assert start == 0
    return lines[:end], lines[end:]


@pytest.mark.slow
def test_the_build_stage_needs_only_the_files_it_copies(dist: Path, tmp_path: Path) -> None:
    """A fresh venv replaces the base image, and folders of the test replace the directories of root."""
    source, base = tmp_path / "src", tmp_path / "base"
    source.mkdir()
    run(sys.executable, "-m", "venv", base, cwd=tmp_path)
    env = {**os.environ, "PATH": f"{base / 'bin'}:/usr/bin:/bin"}
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in instructions()[0]:
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *names, target = rest.split()
            assert set(names) <= set(allowed), f".dockerignore excludes {names}"
            for name in tracked(*names):
                file = source / (name if name.startswith("slurp/") else f"{target}/{Path(name).name}")
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, file)
        elif word == "RUN":
            run("sh", "-ec", re.sub(r"(?<= )/(opt|wheels)", rf"{tmp_path}/\1", rest), cwd=source, env=env)
        else:
            assert word in ("FROM", "WORKDIR")
    venv = tmp_path / "opt" / "skeetslurper"
    assert run(venv / "bin" / "skeetslurper", "--version", cwd=tmp_path).split()[1] == __version__
    assert not list(venv.glob("bin/pip*")), "pip must not be in the image"
    assert contents(only(tmp_path / "wheels", "*.whl")).keys() == contents(only(dist, "*.whl")).keys()


def test_the_last_stage_only_copies_and_is_not_root() -> None:
    last = instructions()[1]
    assert "COPY --from=build /opt/skeetslurper /opt/skeetslurper" in last
    assert "USER 10001:10001" in last
    assert [line for line in last if re.search(r"\b(pip|apt-get|apt|curl)\b", line)] == []
    users = [number for number, line in enumerate(last) if line.startswith(("RUN ", "USER "))]
    assert last[users[-1]].startswith("USER "), "no instruction may run as root"


def test_dockerfile_and_documentation_install_from_the_lock() -> None:
    for name in ("deploy/Dockerfile", "docs/operations.md"):
        assert FROM_THE_LOCK in (ROOT / name).read_text(encoding="utf-8"), name
