"""Log output on standard error, as text or JSON, without secrets, and with a status line on terminals."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from typing import Any, TextIO
from urllib.parse import quote

log = logging.getLogger(__name__)

_RESET_LINE = "\r\x1b[K"
# Assumed width of a terminal that does not report it.
_DEFAULT_COLUMNS = 80

# Line prefixes that the systemd journal parses as syslog priorities, see sd-daemon(3).
_PRIORITIES = (
    (logging.CRITICAL, "<2>"),
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
    (logging.NOTSET, "<7>"),
)


class Screen(logging.StreamHandler[TextIO]):
    """Logging handler for standard error. On a terminal it keeps a status line below the log.

    Lines for the systemd journal start with their priority, for `journalctl -p`.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream or sys.stderr)
        self.is_terminal = self.stream.isatty()
        self._status_line = ""
        self._is_journal = is_journal(self.stream)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return for_journal(text, record.levelno) if self._is_journal else text

    def emit(self, record: logging.LogRecord) -> None:
        # The handler's lock is held here, so a record is never written inside the status line.
        if not self._status_line:
            super().emit(record)
            return
        self._write(_RESET_LINE)
        super().emit(record)
        self._write(self._fit(self._status_line))

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a record that cannot be written: a closed pipe of the log must not stop the worker."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def show(self, line: str) -> None:
        """Replace the status line, or remove it if `line` is empty. Do nothing unless on a terminal."""
        if not self.is_terminal:
            return
        with self.lock or threading.RLock():
            self._status_line = line
            self._write(_RESET_LINE + self._fit(line))

    def _fit(self, line: str) -> str:
        """Return the beginning of `line` that fits into one row of the terminal."""
        return fit(line, width_of(self.stream))

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.flush()
        except OSError:
            # The terminal was closed. Continue without a status line.
            self.is_terminal, self._status_line = False, ""


def for_journal(text: str, level: int) -> str:
    """Return `text` with the syslog priority of the logging level `level` before each line."""
    prefix = next(prefix for least, prefix in _PRIORITIES if level >= least)
    return "\n".join(prefix + line for line in text.split("\n"))


def is_journal(stream: TextIO) -> bool:
    """Return whether `stream` is connected to the systemd journal.

    JOURNAL_STREAM has device and inode of the journal's socket, see systemd.exec(5). They are compared with
    those of `stream`, as a process may inherit the variable and have another standard error.
    """
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        found = os.fstat(stream.fileno())
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


class _TextFormatter(logging.Formatter):
    """Text formatter. Secrets become ***, and control characters are escaped: no text can forge a line."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(threadName)-12s %(message)s")
        self.secrets = secrets
        self.converter = time.gmtime
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"
        self.default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        record.message = self.secrets.scrub(record.getMessage())
        record.asctime = self.formatTime(record)
        lines = [self.formatMessage(record)]
        if record.exc_info:
            # Indented, so that untrusted text in the error cannot look like the start of a log line.
            trace = self.secrets.scrub(self.formatException(record.exc_info))
            lines += [f"    {line}" for line in trace.split("\n")]
        return "\n".join(map(printable, lines))


class _JsonFormatter(_TextFormatter):
    """JSON formatter with field names of the Elastic Common Schema."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "@timestamp": self.formatTime(record),
            "log.level": record.levelname.lower(),
            "process.thread.name": record.threadName,
            "log.logger": record.name,
            "message": self.secrets.scrub(record.getMessage()),
        }
        fields |= self._scrubbed(getattr(record, "fields", {}))
        if record.exc_info:
            fields["error.stack_trace"] = self.secrets.scrub(self.formatException(record.exc_info))
        return _escaped(json.dumps(fields, ensure_ascii=False), lambda c: json.dumps(c)[1:-1])

    def _scrubbed(self, value: Any) -> Any:
        """Return `value` with each string scrubbed. In the finished JSON a secret could include quotes."""
        if isinstance(value, str):
            return self.secrets.scrub(value)
        if isinstance(value, dict):
            return {name: self._scrubbed(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._scrubbed(item) for item in value]
        return value


# Marks the end of a text that was cut, perhaps in the middle of a secret.
_ELLIPSIS = "…"
_BAR_WIDTH = 30
# A cut secret is hidden if at least so many of its first characters are left.
_MIN_SECRET_PREFIX = 3


def width_of(stream: TextIO) -> int:
    """Return how many columns a status line may have on the terminal `stream`, which may be resized."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    # Some terminals wrap as soon as the last column is written.
    return (columns or _DEFAULT_COLUMNS) - 1


def bar(done: int, total: int) -> str:
    """Return a progress bar for the status line."""
    filled = _BAR_WIDTH * done // total
    return f"[{'#' * filled}{'-' * (_BAR_WIDTH - filled)}]"


def fit(line: str, columns: int) -> str:
    """Return the beginning of `line` that fits into `columns` columns of a terminal.

    Characters of East Asian width "ambiguous" count as two columns, as some terminals show them so.
    """
    for at, char in enumerate(line):
        columns -= 2 if unicodedata.east_asian_width(char) in "WFA" else 1
        if columns < 0:
            return line[:at]
    return line


def cut(text: str, max_length: int) -> str:
    """Return `text`, cut to `max_length` characters and an ellipsis if it is longer.

    `Secrets.scrub` also hides a secret that was cut before the ellipsis.
    """
    return text if len(text) <= max_length else f"{text[:max_length]}{_ELLIPSIS}"


class Secrets:
    """The secrets to remove from log lines. A password that was read again from its file is added."""

    def __init__(self, values: tuple[str, ...] = ()) -> None:
        self._values: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self.add(*values)

    def add(self, *values: str) -> None:
        """Hide these values from now on, in every form in which they may be logged."""
        found: set[str] = set()
        for value in values:
            # Verbatim, in JSON, in the repr of an error, and in a URL.
            found |= {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            found |= {repr(value)[1:-1], quote(value), quote(value, safe="")}
        # Longest first: if a secret is part of another one, replacing it first would leave the rest.
        with self._lock:
            self._values = tuple(sorted({*self._values, *found} - {""}, key=len, reverse=True))

    def scrub(self, text: str) -> str:
        """Return `text` with *** in place of each secret, and of the beginning of a secret that was cut."""
        for value in self._values:
            text = text.replace(value, "***")
        if _ELLIPSIS in text:
            for value in self._values:
                for size in range(len(value) - 1, _MIN_SECRET_PREFIX - 1, -1):
                    text = text.replace(value[:size] + _ELLIPSIS, f"***{_ELLIPSIS}")
        return text


def set_up(level: str, style: str, secrets: Secrets, stream: TextIO | None = None) -> Screen:
    """Send all logging to one `Screen` and return it. Mute the libraries unless `level` is debug."""
    screen = Screen(stream)
    screen.setFormatter(_JsonFormatter(secrets) if style == "json" else _TextFormatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [screen]
    root.setLevel(level.upper())
    if level != "debug":
        # They log each request at INFO and each failed one at WARNING; the worker logs an outage itself.
        logging.getLogger("elastic_transport").setLevel(logging.ERROR)
        logging.getLogger("websocket").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.ERROR)
    return screen


def log_crashes() -> None:
    """Log uncaught exceptions, which Python would write to standard error with the secrets in them."""

    def log_thread_crash(crash: threading.ExceptHookArgs) -> None:
        name = crash.thread.name if crash.thread else "a thread"
        if crash.exc_value is not None:
            log.error("%s: unexpected exception, which is a bug", name, exc_info=crash.exc_value)

    threading.excepthook = log_thread_crash
    sys.excepthook = lambda kind, error, trace: log.critical(
        "unexpected exception, which is a bug", exc_info=error
    )


def printable(line: str) -> str:
    """Return `line` with line ends and other control characters escaped."""
    return _escaped(line, lambda c: "\\n" if c == "\n" else f"\\x{ord(c):02x}")


def _escaped(line: str, escape: Callable[[str], str]) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else escape(c) for c in line)
