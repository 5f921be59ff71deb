"""Log output: text or JSON on standard error, free of secrets, beside one live line on a terminal."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any, TextIO

_RESET_LINE = "\r\x1b[K"


class Screen(logging.StreamHandler[TextIO]):
    """Writes log records, and keeps one live line below them when the stream is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream or sys.stderr)
        self.is_terminal = self.stream.isatty()
        self._live = ""

    def emit(self, record: logging.LogRecord) -> None:
        # The handler's lock is held here, so a record never lands inside the live line.
        if not self._live:
            super().emit(record)
            return
        self._write(_RESET_LINE)
        super().emit(record)
        self._write(self._live)

    def show(self, line: str) -> None:
        """Replace the live line; an empty one takes it away. Does nothing when redirected."""
        if not self.is_terminal:
            return
        with self.lock or threading.RLock():
            self._live = line
            self._write(_RESET_LINE + line)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.flush()
        except OSError:
            # The terminal is gone; the work goes on without a live line.
            self.is_terminal, self._live = False, ""


class _Redacted(logging.Formatter):
    """Puts *** for every known secret, wherever in the finished line it stands."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(threadName)-12s %(message)s")
        self.secrets = secrets
        self.converter = time.gmtime
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"
        self.default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        return self.secrets.scrub(_printable(self.line(record)))

    def line(self, record: logging.LogRecord) -> str:
        # A newline in a message would let a stranger write log lines; those of a traceback are ours.
        record.message = record.getMessage().replace("\n", "\\n")
        record.asctime = self.formatTime(record)
        line = self.formatMessage(record)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(_Redacted):
    def line(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "@timestamp": self.formatTime(record),
            "log.level": record.levelname.lower(),
            "process.thread.name": record.threadName,
            "log.logger": record.name,
            "message": record.getMessage(),
        }
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["error.stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class Secrets:
    """The values that no log line may hold; a password read again from its file is added."""

    def __init__(self, values: tuple[str, ...] = ()) -> None:
        self._values: tuple[str, ...] = ()
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        escaped = json.dumps(value)[1:-1]
        found = {*self._values, value, escaped} - {""}
        # Longest first, or a secret that is part of another would leave the rest of it standing.
        self._values = tuple(sorted(found, key=len, reverse=True))

    def scrub(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, "***")
        return text


def set_up(level: str, style: str, secrets: Secrets, stream: TextIO | None = None) -> Screen:
    """Send all logging to one `Screen`; the libraries below us speak from warnings up."""
    screen = Screen(stream)
    screen.setFormatter(_Json(secrets) if style == "json" else _Redacted(secrets))
    root = logging.getLogger()
    root.handlers[:] = [screen]
    root.setLevel(level.upper())
    if level != "debug":
        # Each request at INFO, each failed one at WARNING with its own text: we tell it once, ourselves.
        logging.getLogger("elastic_transport").setLevel(logging.ERROR)
        logging.getLogger("websocket").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.ERROR)
    return screen


def _printable(line: str) -> str:
    """Strangers' text must not forge lines or move the cursor; our own tracebacks keep their newlines."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in line)
