"""The file for what has no place in Elasticsearch: frames that are no events."""

from __future__ import annotations

import base64
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

from slurp.errors import Fatal

# A frame that Jetstream replays is written once, if it is among so many of the newest: 10 MB of memory.
_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    frame: bytes
    reason: str


class DeadLetterFile:
    """Appends JSON lines `{at, host, reason, frame | frame_base64}`; on disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._known: dict[bytes, None] = {}

    def write(self, letters: Iterable[DeadLetter], host: str) -> None:
        """Raises Fatal when the letters can't be made durable: then they are not answered for."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            try:
                fd = self._open()
                new = {_digest(letter.frame): letter for letter in letters}
                new = {digest: letter for digest, letter in new.items() if digest not in self._known}
                if not new:
                    return
                lines = b"".join(_line(letter, host, at) for letter in new.values())
                # A crash may have left half a line; ours must not be glued to it.
                start = os.lseek(fd, 0, os.SEEK_END)
                if start and os.pread(fd, 1, start - 1) != b"\n":
                    lines = b"\n" + lines
                view = memoryview(lines)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
                for digest in new:
                    self._remember(digest)
            except OSError as error:
                raise Fatal(
                    f"can't write the dead-letter file {self.path}: {error.strerror}; "
                    "make room or choose another --dead-letter"
                ) from None

    def close(self) -> None:
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def __enter__(self) -> DeadLetterFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> int:
        if self._fd is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = not self.path.exists()
            self._load()
            # Private: a frame may hold what its author deletes a moment later.
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if new:
                directory = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
        return self._fd

    def _load(self) -> None:
        """Know again what an earlier run wrote."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                return
        except FileNotFoundError:
            return
        with self.path.open("rb") as lines:
            for line in lines:
                try:
                    self._remember(_digest(frame_of(orjson.loads(line))))
                except (ValueError, KeyError, TypeError):
                    continue  # half a line, of a crash

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]


def frame_of(letter: Mapping[str, Any]) -> bytes:
    """The frame of a line of the file. Raises KeyError, TypeError or ValueError for any other JSON."""
    if "frame" in letter:
        return str(letter["frame"]).encode()
    return base64.b64decode(letter["frame_base64"])


def _digest(frame: bytes) -> bytes:
    return blake2b(frame, digest_size=8).digest()


def _line(letter: DeadLetter, host: str, at: str) -> bytes:
    entry = {"at": at, "host": host, "reason": letter.reason.encode("utf-8", "replace").decode()}
    try:
        entry["frame"] = letter.frame.decode("utf-8")
    except UnicodeDecodeError:
        entry["frame_base64"] = base64.b64encode(letter.frame).decode()
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
