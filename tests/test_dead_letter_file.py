"""The dead-letter file: moved away, deleted, full, shared, or no file at all."""

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
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


def write(file: DeadLetterFile, *frames: str) -> None:
    file.write([DeadLetter(frame.encode(), "reason") for frame in frames], "host")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "letters" / "dead.jsonl"


def test_letters_go_to_a_new_file_once_the_old_one_was_moved_away(path: Path) -> None:
    moved = path.with_name("moved.jsonl")
    with DeadLetterFile(path) as file:
        write(file, "1", "2")
        path.rename(moved)
        write(file, "3")
        write(file, "2", "3")
    assert frames(moved) == ["1", "2"]
    assert frames(path) == ["3", "2"], "what the new file does not have is written again"
    assert path.stat().st_mode & 0o077 == 0


def test_another_file_in_its_place_is_taken_and_its_letters_are_known(path: Path) -> None:
    other = path.with_name("other.jsonl")
    with DeadLetterFile(other) as file:
        write(file, "1")
    with DeadLetterFile(path) as file:
        write(file, "2")
        other.replace(path)
        write(file, "1", "3")
    assert frames(path) == ["1", "3"]


@pytest.mark.parametrize("with_its_folder", [False, True])
def test_a_file_that_was_deleted_is_made_again(path: Path, with_its_folder: bool) -> None:
    with DeadLetterFile(path) as file:
        write(file, "1")
        path.unlink()
        if with_its_folder:
            path.parent.rmdir()
        write(file, "1")
    assert frames(path) == ["1"]


def test_a_truncated_file_begins_anew(path: Path) -> None:
    """What `copytruncate` of logrotate does."""
    with DeadLetterFile(path) as file:
        write(file, "1", "2")
        os.truncate(path, 0)
        write(file, "1")
    assert frames(path) == ["1"]


def test_a_full_file_is_rotated_and_what_goes_is_counted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = path.with_name("dead.jsonl.1")
    size = 200
    with DeadLetterFile(path, limit=1000) as file:
        for number in range(20):
            write(file, f"{number:04}{'x' * size}")
            assert path.stat().st_size <= 1000
    kept = [int(frame[:4]) for frame in (*frames(older), *frames(path))]
    assert kept == list(range(kept[0], 20)), "the newest, without a hole"
    first, *others = [record.getMessage() for record in caplog.records]
    assert "full (0 MB): renamed to dead.jsonl.1, which the next full one replaces; move that file" in first
    assert f"older letters are deleted, {kept[0]} since the start" in others[-1]


def test_a_letter_larger_than_the_limit_has_the_file_for_itself(path: Path) -> None:
    with DeadLetterFile(path, limit=100) as file:
        for frame in ("a" * 500, "b" * 500):
            write(file, frame)
    assert frames(path) == ["b" * 500]
    assert frames(path.with_name("dead.jsonl.1")) == ["a" * 500]


def test_a_letter_that_was_rotated_away_is_written_again(path: Path) -> None:
    """A frame must not be suppressed for a letter that is gone."""
    with DeadLetterFile(path, limit=200) as file:
        for frame in ("a" * 150, "b" * 150, "c" * 150, "a" * 150):
            write(file, frame)
    assert frames(path) == ["a" * 150]


def test_two_workers_that_share_a_file_rotate_it_once(path: Path) -> None:
    size, total = 200, 30
    limit = total * size  # two files have room for all letters, if neither is rotated twice
    files = [DeadLetterFile(path, limit) for _ in range(2)]

    def work(which: int) -> None:
        for number in range(which, total, 2):
            write(files[which], f"{number:04}{'x' * size}")

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for file in files:
        file.close()
    kept = [int(frame[:4]) for frame in (*frames(path.with_name("dead.jsonl.1")), *frames(path))]
    assert sorted(kept) == list(range(total))


def a_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def a_pipe(path: Path) -> Path:
    path.parent.mkdir()
    os.mkfifo(path)
    return path


def below_a_file(path: Path) -> Path:
    path.parent.write_text("")
    return path


def a_device(path: Path) -> Path:
    return Path("/dev/full")


def read_only(path: Path) -> Path:
    return Path("/proc/sys/kernel/osrelease")


UNUSABLE: dict[Callable[[Path], Path], str] = {
    a_folder: "Is a directory",
    a_pipe: "not a regular file",
    below_a_file: "Not a directory|File exists",
    a_device: "not a regular file",
    read_only: "Permission denied|Read-only file system",
}


@pytest.mark.parametrize("make", UNUSABLE)
def test_what_can_not_be_written_is_told_at_the_start(make: Callable[[Path], Path], path: Path) -> None:
    unusable = make(path)
    with pytest.raises(Fatal, match=f"dead-letter file {unusable}: ({UNUSABLE[make]}); make it") as stopped:
        DeadLetterFile(unusable).check()
    assert stopped.value.code is Exit.USAGE


def test_dev_null_throws_letters_away() -> None:
    with DeadLetterFile(Path(os.devnull)) as file:
        file.check()
        write(file, "1")


def test_a_check_changes_nothing_in_the_file(path: Path) -> None:
    with DeadLetterFile(path) as file:
        file.check()
        assert path.stat().st_mode & 0o077 == 0
        write(file, "1")
        file.check()
    assert frames(path) == ["1"]


# The programs


def test_a_worker_with_an_unusable_file_ends_before_anything_else(tmp_path: Path) -> None:
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
    assert f"can't write the dead-letter file {tmp_path}: Is a directory; make it writable" in worker.log
    assert "looking for Jetstream" not in worker.log


def test_a_replay_that_can_not_write_what_remains_sends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = tmp_path / "letters.jsonl"
    with DeadLetterFile(letters) as file:
        write(file, "no JSON")
    (tmp_path / "letters.jsonl.remaining").mkdir()
    assert main(["replay", str(letters), "--es", "http://127.0.0.1:1"]) == 2
    assert "letters.jsonl.remaining: Is a directory" in capsys.readouterr().err
