"""Log output: text or JSON on standard error, free of secrets, beside one live line on a terminal."""

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
# Of a terminal that does not say how wide it is.
_COLUMNS = 80

# What the journal of systemd takes from the begin of a line: syslog's, see sd-daemon(3).
_PRIORITIES = (
    (logging.CRITICAL, "<2>"),
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
    (logging.NOTSET, "<7>"),
)


class Screen(logging.StreamHandler[TextIO]):
    """Writes log records, and keeps one live line below them when the stream is a terminal.

    Where it is the journal of systemd, each line tells its priority, which `journalctl -p` goes by.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream or sys.stderr)
        self.is_terminal = self.stream.isatty()
        self._live = ""
        self._is_journal = is_journal(self.stream)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return for_journal(text, record.levelno) if self._is_journal else text

    def emit(self, record: logging.LogRecord) -> None:
        # The handler's lock is held here, so a record never lands inside the live line.
        if not self._live:
            super().emit(record)
            return
        self._write(_RESET_LINE)
        super().emit(record)
        self._write(self._fitted(self._live))

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a record that cannot be written: a reader of the log that is gone must not stop the work."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def show(self, line: str) -> None:
        """Replace the live line; an empty one takes it away. Does nothing when redirected."""
        if not self.is_terminal:
            return
        with self.lock or threading.RLock():
            self._live = line
            self._write(_RESET_LINE + self._fitted(line))

    def _fitted(self, line: str) -> str:
        """Return what of `line` fits into one row of the terminal."""
        return fit(line, width_of(self.stream))

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.flush()
        except OSError:
            # The terminal is gone; the work goes on without a live line.
            self.is_terminal, self._live = False, ""


def for_journal(text: str, level: int) -> str:
    """Each line with the priority of `level`, which is one of `logging`."""
    prefix = next(prefix for least, prefix in _PRIORITIES if level >= least)
    return "\n".join(prefix + line for line in text.split("\n"))


def is_journal(stream: TextIO) -> bool:
    """Whether systemd has connected it, see JOURNAL_STREAM in systemd.exec(5): who inherits the variable may
    write elsewhere."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        found = os.fstat(stream.fileno())
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


class _Redacted(logging.Formatter):
    """Puts *** for every known secret, and escapes what could pass for a line of ours or move the cursor."""

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
            # Set off from the margin, where lines of the log begin: strangers' text may be in the error.
            trace = self.secrets.scrub(self.formatException(record.exc_info))
            lines += [f"    {line}" for line in trace.split("\n")]
        return "\n".join(map(printable, lines))


class _Json(_Redacted):
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
        """Text by text: over the finished line a secret could take the quotes with it."""
        if isinstance(value, str):
            return self.secrets.scrub(value)
        if isinstance(value, dict):
            return {name: self._scrubbed(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._scrubbed(item) for item in value]
        return value


# Where somebody else's words were cut, perhaps in the middle of a secret.
CUT = "…"
# Characters of a secret that tell something of it.
_TELLING = 3


def width_of(stream: TextIO) -> int:
    """Return how many columns a live line may take on the terminal `stream`, which may change at any time."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    # Some terminals wrap as soon as the last column is written.
    return (columns or _COLUMNS) - 1


def fit(line: str, columns: int) -> str:
    """Return the beginning of `line` that takes at most `columns` columns of a terminal.

    Characters of East Asian width "ambiguous" count two: some terminals show them so.
    """
    for at, char in enumerate(line):
        columns -= 2 if unicodedata.east_asian_width(char) in "WFA" else 1
        if columns < 0:
            return line[:at]
    return line


def cut(text: str, most: int) -> str:
    """A text of at most `most` characters and a sign, by which `Secrets` knows its end."""
    return text if len(text) <= most else f"{text[:most]}{CUT}"


class Secrets:
    """The values that no log line may hold; a password read again from its file is added."""

    def __init__(self, values: tuple[str, ...] = ()) -> None:
        self._values: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self.add(*values)

    def add(self, *values: str) -> None:
        found: set[str] = set()
        for value in values:
            # As it is, and as it stands in JSON, in the repr of an error, and in a URL.
            found |= {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            found |= {repr(value)[1:-1], quote(value), quote(value, safe="")}
        # Longest first, or a secret that is part of another would leave the rest of it standing.
        with self._lock:
            self._values = tuple(sorted({*self._values, *found} - {""}, key=len, reverse=True))

    def scrub(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, "***")
        if CUT in text:
            for value in self._values:
                for size in range(len(value) - 1, _TELLING - 1, -1):
                    text = text.replace(value[:size] + CUT, f"***{CUT}")
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


def log_crashes() -> None:
    """What nobody catches goes to the log as well, and not as it is to standard error."""

    def of_thread(crash: threading.ExceptHookArgs) -> None:
        name = crash.thread.name if crash.thread else "a thread"
        if crash.exc_value is not None:
            log.error("%s died, which is a bug", name, exc_info=crash.exc_value)

    threading.excepthook = of_thread
    sys.excepthook = lambda kind, error, trace: log.critical("died, which is a bug", exc_info=error)


def printable(line: str) -> str:
    """Return a line with escapes in place of what could pass for another line or move the cursor."""
    return _escaped(line, lambda c: "\\n" if c == "\n" else f"\\x{ord(c):02x}")


def _escaped(line: str, escape: Callable[[str], str]) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else escape(c) for c in line)
