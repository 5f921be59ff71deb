"""The folder for downloaded files, bounded in bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

MAX_BYTES = 10**9
_POLL = 0.25


class Spool:
    """Files that are being downloaded or read. The first download in order always gets space, so that
    downloads behind it cannot stop it."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bytes = 0
        self._changed = threading.Condition()

    def prepare(self, keep: Iterable[str]) -> None:
        """Create the folder, and delete what earlier runs have left, except files with these names, whose
        download is resumed. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = set(keep)
        for path in self._folder.iterdir():
            if path.with_suffix(".jss").name not in kept:
                path.unlink(missing_ok=True)
        with self._changed:
            self._bytes = sum(path.stat().st_size for path in self._folder.iterdir())

    def path(self, name: str) -> Path:
        return self._folder / name

    def take(self, count: int, *, is_first: bool) -> bool:
        """Count bytes that were written; return False if there is no space for more, after a short wait."""
        with self._changed:
            self._bytes += count
            return is_first or self._changed.wait_for(lambda: self._bytes <= self._max_bytes, _POLL)

    def remove(self, name: str) -> None:
        """Delete a file that was read."""
        path = self._folder / name
        with self._changed:
            if path.exists():
                self._bytes -= path.stat().st_size
                path.unlink()
            path.with_suffix(".etag").unlink(missing_ok=True)
            self._changed.notify_all()
