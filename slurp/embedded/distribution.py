"""Download an Elasticsearch distribution once, verify it, and keep it unpacked in the user's cache.

`org.elasticsearch.distribution.integ-test-zip:elasticsearch` is a small but real distribution that
Elastic publishes for tests of plugins. PyPI's `jgo` downloads it, with the repositories, proxies and
certificates configured for it and `requests` on this machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import re
import shutil
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import requests

from slurp.embedded.data_folder import cache_dir
from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted, Stop, missing_extra
from slurp.logs import bar, fit, width_of
from slurp.proxies import proxies_of

logger = logging.getLogger(__name__)

GROUP = "org.elasticsearch.distribution.integ-test-zip"
ARTIFACT = "elasticsearch"

# The repository publishes a SHA-1 at best, so the releases used in the tests are pinned.
_SHA256 = {
    "8.17.10": "7fa7e5e0384b6edd4bc77f67b35adfb6b058973234acae2adaeb37a98b363e77",
    "8.19.21": "215d5f3dbf0609a149f6218a9e47b6ae2df34ebbff3c5754e35f15a5e5393c8a",
    "9.5.3": "bec49f3b8d00e75c8d1cec85c35298635ec9fbd3ae80ef5aeb6bc05abdb3db2d",
}
# Size of these releases; others are about as large.
DOWNLOAD_MB = 92
_MANIFEST = ".skeetslurper-manifest.json"
_ATTEMPTS = 3

Result = TypeVar("Result")
Fetch = Callable[[str, Path, Stop], Path]
"""Downloads the zip of a version into a folder, verifies it and returns its path."""


def ensure_distribution(
    version: str,
    *,
    cache: Path | None = None,
    stop: Stop | None = None,
    fetch: Fetch | None = None,
) -> Path:
    """Return the folder of the unpacked distribution; download it if it is missing or damaged.

    Concurrent processes are safe: the second waits for the first. Raises EmbeddedNodeError.
    """
    cache = cache_dir() if cache is None else cache
    fetch = fetch_with_jgo if fetch is None else fetch
    stop = threading.Event() if stop is None else stop
    home = cache / f"elasticsearch-{version}"
    cache.mkdir(parents=True, exist_ok=True)
    with _file_lock(cache / f".elasticsearch-{version}.lock", stop):
        problem = find_damage(home)
        if problem is None:
            return home
        if home.exists():
            logger.warning(
                "Elasticsearch %s in %s is damaged (%s); downloading it again", version, cache, problem
            )
        for stale in cache.glob(f".partial-{version}-*"):
            shutil.rmtree(stale)
        partial = Path(tempfile.mkdtemp(prefix=f".partial-{version}-", dir=cache))
        try:
            archive = fetch(version, partial, stop)
            fresh = partial / "unpacked"
            unpack(archive, fresh)
            if home.exists():
                home.rename(partial / "damaged")
            fresh.rename(home)
        finally:
            shutil.rmtree(partial)
    return home


def find_damage(home: Path) -> str | None:
    """Return the damage of an unpacked distribution; None if every file is as it was in the zip."""
    try:
        manifest = json.loads((home / _MANIFEST).read_text(encoding="utf-8"))
        for name, (size, checksum) in manifest.items():
            content = (home / name).read_bytes()
            if len(content) != size or zlib.crc32(content) != checksum:
                return f"{name} has changed"
    except FileNotFoundError as missing:
        return f"{Path(missing.filename).relative_to(home)} is missing"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def unpack(archive: Path, home: Path) -> None:
    """Unpack the zip without its top folder, set the executable bits, and write a manifest."""
    manifest = {}
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            name = member.filename.partition("/")[2]
            if not name:
                continue
            target = home / name
            if not target.resolve().is_relative_to(home.resolve()):
                raise EmbeddedNodeError(
                    f"{archive.name} contains a path outside of its folder: {member.filename}"
                )
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            if member.external_attr >> 16 & 0o111:
                target.chmod(0o755)
            manifest[name] = (member.file_size, member.CRC)
    if "bin/elasticsearch" not in manifest:
        raise EmbeddedNodeError(
            f"{archive.name} is not an Elasticsearch distribution: bin/elasticsearch is missing"
        )
    # Written last: without it the folder counts as damaged.
    (home / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def fetch_with_jgo(version: str, folder: Path, stop: Stop) -> Path:
    """Download the zip from the Maven repositories configured for jgo, and verify its checksum."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise missing_extra("jgo") from error

    try:
        settings = GlobalSettings.load()
    except RuntimeError as error:  # no home directory, where Maven's and jgo's settings are
        raise EmbeddedNodeError(f"cannot download Elasticsearch {version}: {error} (set HOME)") from None
    context = MavenContext(
        # A temporary folder: jgo writes directly to the final name, so an incomplete copy would remain.
        repo_cache=folder / "repository",
        # It may have been downloaded with Maven already.
        local_repos=[settings.repo_cache],
        resolver=PythonResolver(progress_callback=lambda name, size: _progress(version, size, stop)),
        timeout=30,
    )
    context.remote_repos.update(settings.repositories)
    for proxy in proxies_of(context.remote_repos.values()):
        logger.info("Downloading Elasticsearch %s through proxy %s", version, proxy)
    component = context.project(GROUP, ARTIFACT).at_version(version)
    expected = _with_retries(version, stop, lambda: _expected_digest(component, version))
    archive = _with_retries(version, stop, lambda: _zip_of(component))
    if not _matches(archive, expected) and not archive.is_relative_to(folder):
        logger.warning("%s is damaged; downloading another copy", archive)
        context.local_repos.clear()
        archive = _with_retries(version, stop, lambda: _zip_of(component))
    if not _matches(archive, expected):
        raise EmbeddedNodeError(
            f"the download of Elasticsearch {version} does not match its checksum; try again, and if the "
            "error persists, do not trust the repository or proxy"
        )
    return archive


def _zip_of(component: Any) -> Path:
    artifact = component.artifact(packaging="zip")
    artifact.cached_path.unlink(missing_ok=True)  # left by an interrupted attempt
    return Path(artifact.resolve())


def _expected_digest(component: Any, version: str) -> tuple[str, str] | None:
    """Return algorithm and digest of the zip: pinned, else published by the repository; None if neither."""
    if version in _SHA256:
        return "sha256", _SHA256[version]
    try:
        text = Path(component.artifact(packaging="zip.sha1").resolve()).read_text(encoding="ascii")
    except RuntimeError as absent:
        logger.warning(
            "No checksum for Elasticsearch %s (%s); checking those inside the zip only",
            version,
            absent,
        )
        return None
    digest = text.split()[0].lower() if text.strip() else ""
    if not re.fullmatch(r"[0-9a-f]{40}", digest):
        raise EmbeddedNodeError(f"the repository's checksum file contains no SHA-1: {text[:80]!r}")
    return "sha1", digest


def _matches(archive: Path, expected: tuple[str, str] | None) -> bool:
    if expected is None:
        with zipfile.ZipFile(archive) as zipped:
            return zipped.testzip() is None
    algorithm, digest = expected
    return _digest(archive, algorithm) == digest


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _with_retries(version: str, stop: Stop, action: Callable[[], Result]) -> Result:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return action()
        except (requests.RequestException, OSError) as error:
            if attempt == _ATTEMPTS:
                raise EmbeddedNodeError(f"cannot download Elasticsearch {version}: {error}") from error
            logger.warning("Downloading Elasticsearch %s failed (%s); retrying", version, error)
            if stop.wait(2**attempt):
                raise StartInterrupted("stopped while downloading Elasticsearch") from None
        except RuntimeError as error:  # raised by jgo when no repository has it
            raise EmbeddedNodeError(f"cannot download Elasticsearch {version}: {error}") from error
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _file_lock(lock: Path, stop: Stop) -> Iterator[None]:
    """Hold the file lock; wait, with a log message, while another process holds it."""
    with lock.open("w") as file:
        logged = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not logged:
                    logger.info("Waiting for another process that is downloading Elasticsearch")
                    logged = True
                if stop.wait(0.2):
                    raise StartInterrupted("stopped while waiting for a download") from None
        yield


def _no_progress(received: int) -> None:
    """Ignore the progress of a small file."""


@contextmanager
def _progress(version: str, size: int, stop: Stop) -> Iterator[Callable[[int], None]]:
    """Show the progress of the download: a bar on a terminal, else a log message every ten seconds."""
    if size < 10**6:
        yield _no_progress
        return
    is_terminal = sys.stderr.isatty()
    done = 0
    shown_at = time.monotonic()
    interval = 0.2 if is_terminal else 10.0
    title = f"Elasticsearch {version}"
    logger.info("Downloading %s, %d MB", title, size // 10**6)

    def update(received: int) -> None:
        nonlocal done, shown_at
        if stop.is_set():
            raise StartInterrupted("stopped while downloading Elasticsearch")
        done += received
        now = time.monotonic()
        if now - shown_at < interval and done < size:
            return
        shown_at = now
        if is_terminal:
            line = f"{title} {bar(done, size)} {done // 10**6}/{size // 10**6} MB"
            sys.stderr.write(f"\r{fit(line, width_of(sys.stderr))}")
            sys.stderr.flush()
        else:
            logger.info("Downloading %s: %d of %d MB", title, done // 10**6, size // 10**6)

    try:
        yield update
    finally:
        if is_terminal:
            sys.stderr.write("\n")
