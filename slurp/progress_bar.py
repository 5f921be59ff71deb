"""Progress of a command: a bar on a terminal, else a log message every ten seconds."""

from __future__ import annotations

import logging
import time

from slurp.logs import Screen, bar
from slurp.units import format_duration

log = logging.getLogger(__name__)

_LOG_EVERY = 10.0
_SHOW_EVERY = 0.2


class ProgressBar:
    """Counts what is done of a known total."""

    def __init__(self, screen: Screen, title: str, total: int) -> None:
        self._screen = screen
        self._title = title
        self._total = max(total, 1)
        self._done = 0
        self._began = self._shown = time.monotonic()

    def advance(self, count: int) -> None:
        """Count more as done."""
        self._done = min(self._done + count, self._total)
        now = time.monotonic()
        if now - self._shown < (_SHOW_EVERY if self._screen.is_terminal else _LOG_EVERY):
            return
        self._shown = now
        left = (now - self._began) / self._done * (self._total - self._done) if self._done else 0.0
        text = f"{self._done:,} of {self._total:,}, {format_duration(left)} left"
        if self._screen.is_terminal:
            self._screen.show(f"{self._title} {bar(self._done, self._total)} {text}")
        else:
            log.info("%s: %s", self._title, text)

    def end(self) -> None:
        """Remove the bar."""
        self._screen.show("")
