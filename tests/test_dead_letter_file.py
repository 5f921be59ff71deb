"""The dead-letter file when it is moved, deleted, replaced, full, shared or not a regular file."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from slurp.deadletter import main
from slurp.errors import Exit, Fatal
from slurp.pipeline.dead_letters import DeadLetter, DeadLetterFile
from tests.worker import Worker


def frames(path: Path) -> list[str]:
    """Return the frames in a dead-letter file."""
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


def write(file: DeadLetterFile, *frames: str) -> None:
    file.write([DeadLetter(frame.encode(), "reason") for frame in frames], "host")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "letters" / "dead.jsonl"


def test_a_new_file_is_created_after_the_old_one_was_moved(path: Path) -> None:
    moved = path.with_name("moved.jsonl")
    with DeadLetterFile(path) as file:
        write(file, "1", "2")
        path.rename(moved)
        write(file, "3")
        write(file, "2", "3")
    assert frames(moved) == ["1", "2"]
    assert frames(path) == ["3", "2"], "a dead letter that the new file does not hold is written again"
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_replaces_the_old_one_is_used_with_its_dead_letters(path: Path) -> None:
    other = path.with_name("other.jsonl")
    with DeadLetterFile(other) as file:
        write(file, "1")
    with DeadLetterFile(path) as file:
        write(file, "2")
        other.replace(path)
        write(file, "1", "3")
    assert frames(path) == ["1", "3"]


@pytest.mark.parametrize("with_folder", [False, True])
def test_a_deleted_file_is_created_again(path: Path, with_folder: bool) -> None:
    with DeadLetterFile(path) as file:
        write(file, "1")
        path.unlink()
        if with_folder:
            path.parent.rmdir()
        write(file, "1")
    assert frames(path) == ["1"]


def test_a_truncated_file_is_written_from_the_start(path: Path) -> None:
    """Truncate as `copytruncate` of logrotate does."""
    with DeadLetterFile(path) as file:
        write(file, "1", "2")
        os.truncate(path, 0)
        write(file, "1")
    assert frames(path) == ["1"]


def test_a_full_file_is_rotated_and_deleted_dead_letters_are_counted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = path.with_name("dead.jsonl.1")
    size = 200
    with DeadLetterFile(path, limit=1000) as file:
        for number in range(20):
            write(file, f"{number:04}{'x' * size}")
            assert path.stat().st_size <= 1000
    numbers = [int(frame[:4]) for frame in (*frames(older), *frames(path))]
    assert numbers == list(range(numbers[0], 20)), "the newest dead letters, none missing"
    first, *others = [record.getMessage() for record in caplog.records]
    assert "full (0 MB): renamed to dead.jsonl.1, which the next full one replaces; move that file" in first
    assert f"older letters are deleted, {numbers[0]} since the start" in others[-1]


def test_a_dead_letter_above_the_limit_is_alone_in_its_file(path: Path) -> None:
    with DeadLetterFile(path, limit=100) as file:
        for frame in ("a" * 500, "b" * 500):
            write(file, frame)
    assert frames(path) == ["b" * 500]
    assert frames(path.with_name("dead.jsonl.1")) == ["a" * 500]


def test_a_dead_letter_that_was_rotated_out_is_written_again(path: Path) -> None:
    """A frame is a duplicate only of a dead letter that is still in a file."""
    with DeadLetterFile(path, limit=200) as file:
        for frame in ("a" * 150, "b" * 150, "c" * 150, "a" * 150):
            write(file, frame)
    assert frames(path) == ["a" * 150]


def test_two_workers_with_one_file_rotate_it_once(path: Path) -> None:
    size, total = 200, 30
    limit = total * size  # two files hold all dead letters, if neither is rotated twice
    files = [DeadLetterFile(path, limit) for _ in range(2)]

    def write_every_second(start: int) -> None:
        for number in range(start, total, 2):
            write(files[start], f"{number:04}{'x' * size}")

    threads = [threading.Thread(target=write_every_second, args=(start,)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for file in files:
        file.close()
    numbers = [int(frame[:4]) for frame in (*frames(path.with_name("dead.jsonl.1")), *frames(path))]
    assert sorted(numbers) == list(range(total))


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def pipe(path: Path) -> Path:
    path.parent.mkdir()
    os.mkfifo(path)
    return path


def below_a_file(path: Path) -> Path:
    path.parent.write_text("")
    return path


def device(path: Path) -> Path:
    return Path("/dev/full")


def read_only_file(path: Path) -> Path:
    return Path("/proc/sys/kernel/osrelease")


UNUSABLE: dict[Callable[[Path], Path], str] = {
    folder: "Is a directory",
    pipe: "not a regular file",
    below_a_file: "Not a directory|File exists",
    device: "not a regular file",
    read_only_file: "Permission denied|Read-only file system",
}


@pytest.mark.parametrize("make", UNUSABLE)
def test_an_unwritable_file_is_a_usage_error_at_startup(make: Callable[[Path], Path], path: Path) -> None:
    unusable = make(path)
    with pytest.raises(Fatal, match=f"dead-letter file {unusable}: ({UNUSABLE[make]}); make it") as stopped:
        DeadLetterFile(unusable).check()
    assert stopped.value.code is Exit.USAGE


def test_dev_null_discards_dead_letters() -> None:
    with DeadLetterFile(Path(os.devnull)) as file:
        file.check()
        write(file, "1")


def test_a_check_leaves_the_file_unchanged(path: Path) -> None:
    with DeadLetterFile(path) as file:
        file.check()
        assert path.stat().st_mode & 0o077 == 0
        write(file, "1")
        file.check()
    assert frames(path) == ["1"]


# The worker and the replay command


def test_a_worker_with_an_unusable_file_exits_before_it_connects(tmp_path: Path) -> None:
    options = (
        "--dead-letter",
        str(tmp_path),
        "--es",
        "http://127.0.0.1:1",
        "--jetstream",
        "ws://127.0.0.1:1",
    )
    with Worker(*options, home=tmp_path) as worker:
        assert worker.exit_code() == 2
    assert f"cannot write the dead-letter file {tmp_path}: Is a directory; make it writable" in worker.log
    assert "looking for Jetstream" not in worker.log


def test_a_replay_that_cannot_write_the_remaining_dead_letters_sends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = tmp_path / "letters.jsonl"
    with DeadLetterFile(letters) as file:
        write(file, "no JSON")
    (tmp_path / "letters.jsonl.remaining").mkdir()
    assert main(["replay", str(letters), "--es", "http://127.0.0.1:1"]) == 2
    assert "letters.jsonl.remaining: Is a directory" in capsys.readouterr().err
