"""The dead-letter file: frames that could not be decoded or stored."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import logging
import os
import stat
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from slurp.errors import Exit, Fatal

log = logging.getLogger(__name__)

# Maximum bytes of the file, and of its predecessor FILE.1: together a gigabyte, whatever a server sends.
LIMIT = 512 * 1024 * 1024

# A frame that is replayed is written once, if it is among this many newest ones: 10 MB of memory.
_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A frame, and why it is not in Elasticsearch."""

    frame: bytes
    reason: str


class DeadLetterFile:
    """A file of JSON lines `{at, host, reason, frame | frame_base64}`, durable when `write` returns.

    The file may be moved, deleted or truncated at any time: the next letter creates a new one. A full file is
    renamed to FILE.1 and replaces the previous FILE.1. Several workers may share it.
    """

    def __init__(self, path: Path, limit: int | None = LIMIT) -> None:
        """`limit` is the size in bytes above which the file is rotated; None for no limit."""
        self.path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._end = 0
        self._dropped = 0
        # Digests of the newest letters in the file.
        self._known: dict[bytes, None] = {}

    def check(self) -> None:
        """Create the file unless it exists. Raises Fatal, with the code for wrong usage, when it cannot be
        written."""
        try:
            os.close(self._create())
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode) and status.st_rdev != Path(os.devnull).stat().st_rdev:
                raise OSError(0, "not a regular file")
        except OSError as error:
            raise Fatal(
                f"cannot write the dead-letter file {self.path}: {error.strerror}; make it writable for this "
                "user or choose another file",
                Exit.USAGE,
            ) from None

    def write(self, letters: Iterable[DeadLetter], host: str) -> None:
        """Append letters that are not in the file yet. Raises Fatal when they cannot be made durable."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            try:
                fd = self._locked()
                new = {_digest(letter.frame): letter for letter in letters}
                new = {digest: letter for digest, letter in new.items() if digest not in self._known}
                if not new:
                    return
                lines = b"".join(_line(letter, host, at) for letter in new.values())
                # A crash may have left part of a line: start a new one.
                start = os.lseek(fd, 0, os.SEEK_END)
                if start and os.pread(fd, 1, start - 1) != b"\n":
                    lines = b"\n" + lines
                if self._limit is not None and start and start + len(lines) > self._limit:
                    fd = self._rotate()
                view = memoryview(lines)
                while view:
                    view = view[os.write(fd, view) :]
                with contextlib.suppress(OSError) if _is_device(fd) else contextlib.nullcontext():
                    os.fsync(fd)
                self._end = os.fstat(fd).st_size
                for digest in new:
                    self._remember(digest)
            except OSError as error:
                raise Fatal(
                    f"cannot write the dead-letter file {self.path}: {error.strerror}; "
                    "make room or choose another --dead-letter"
                ) from None
            finally:
                self._unlock()

    def close(self) -> None:
        """Close the file; `write` opens it again."""
        with self._lock:
            self._close()

    def __enter__(self) -> DeadLetterFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _locked(self) -> int:
        """Open and lock the file at `path`; return its descriptor. No worker rotates it until `_unlock`."""
        while True:
            if self._fd is None:
                self._fd = self._create()
                self._load(self._fd)
            # Some network file systems have no locks.
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            here = os.fstat(self._fd)
            try:
                there = self.path.stat()
            except FileNotFoundError:
                there = None
            if there is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                if here.st_size < self._end:
                    self._load(self._fd)  # it was truncated
                return self._fd
            self._close()

    def _unlock(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _create(self) -> int:
        """Open the file; create it if it is missing."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = not self.path.exists()
        # Private: a frame may contain text that its author deletes a moment later.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self.path, flags, 0o600)
        if new:
            self._sync_folder()
        return fd

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _rotate(self) -> int:
        """Rename the full file to FILE.1; return the descriptor of the new one."""
        older = self.path.with_name(f"{self.path.name}.1")
        dropped, size = _count(older), self.path.stat().st_size
        self.path.replace(older)
        self._sync_folder()
        self._dropped += dropped
        log.warning(
            "the dead-letter file %s is full (%.0f MB): renamed to %s, %s; move that file away to keep it",
            self.path,
            size / 1e6,
            older.name,
            f"of which {dropped:,} older letters are deleted, {self._dropped:,} since the start"
            if dropped
            else "which the next full one replaces",
        )
        self._close()
        return self._locked()

    def _load(self, fd: int) -> None:
        """Read the digests of the letters in the file, written by an earlier run or another worker."""
        self._known.clear()
        self._end = os.fstat(fd).st_size
        if _is_device(fd):
            return
        with os.fdopen(os.dup(fd), "rb") as lines:
            lines.seek(0)
            for line in lines:
                try:
                    self._remember(_digest(frame_of(orjson.loads(line))))
                except (ValueError, KeyError, TypeError):
                    continue  # part of a line, left by a crash

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]


def frame_of(letter: Mapping[str, Any]) -> bytes:
    """Return the frame of a letter. Raises KeyError, TypeError or ValueError for any other JSON."""
    if "frame" in letter:
        return str(letter["frame"]).encode()
    return base64.b64decode(letter["frame_base64"])


def _is_device(fd: int) -> bool:
    return not stat.S_ISREG(os.fstat(fd).st_mode)


def _count(path: Path) -> int:
    """Return the number of letters in a file; 0 if it does not exist."""
    try:
        with path.open("rb") as lines:
            return sum(1 for _ in lines)
    except FileNotFoundError:
        return 0


def _digest(frame: bytes) -> bytes:
    return blake2b(frame, digest_size=8).digest()


def _line(letter: DeadLetter, host: str, at: str) -> bytes:
    entry = {"at": at, "host": host, "reason": letter.reason.encode("utf-8", "replace").decode()}
    try:
        entry["frame"] = letter.frame.decode("utf-8")
    except UnicodeDecodeError:
        entry["frame_base64"] = base64.b64encode(letter.frame).decode()
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
