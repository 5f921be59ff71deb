"""A small cache for query results, so that many open browser tabs cause no more queries than one."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    expires: float = float("-inf")


class Cache:
    """A cache of at most `max_entries` values; the least recently used entry is evicted."""

    def __init__(self, max_entries: int = 64, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(self, key: Hashable, seconds: float, compute: Callable[[], T]) -> T:
        """Return the value of `key`; compute it if absent or older than `seconds`.

        Threads that request a key while another thread computes it wait for that result.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        with entry.lock:
            if self._clock() >= entry.expires:
                entry.value = compute()
                entry.expires = self._clock() + seconds
            value: T = entry.value
            return value
