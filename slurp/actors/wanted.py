"""Accounts of which the page needs the names: the thread for names looks them up."""

from __future__ import annotations

import threading
from collections.abc import Iterable

_MAX = 1000


class WantedNames:
    """A bounded set of accounts, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dids: dict[str, None] = {}

    def add(self, dids: Iterable[str]) -> None:
        """Ask for names; the latest requests are kept."""
        with self._lock:
            for did in dids:
                self._dids.pop(did, None)
                self._dids[did] = None
            for did in list(self._dids)[: max(0, len(self._dids) - _MAX)]:
                del self._dids[did]

    def take(self, count: int) -> list[str]:
        """Remove and return some of them, the latest ones."""
        with self._lock:
            taken = list(self._dids)[-count:]
            for did in taken:
                del self._dids[did]
            return taken
