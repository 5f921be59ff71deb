"""Exit codes, and the exceptions that end the program."""

from __future__ import annotations

import traceback
from enum import IntEnum
from pathlib import PurePath

# Characters of an exception's text to show. It may quote a whole record.
_MAX_TEXT = 300


class Exit(IntEnum):
    """Exit codes of the program."""

    DONE = 0
    FAILED = 1
    USAGE = 2


class Stopped(Exception):
    """A stop was requested before a step had finished. The step has neither succeeded nor failed."""


class Fatal(Exception):
    """An error that ends the program. The message is for the user: it says how to fix it, without secrets."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def describe_bug(error: Exception) -> str:
    """Return type, text and origin of an unexpected exception: "KeyError: 'a' (documents/tags.py:12)".

    The text is cut to 300 characters and can be encoded in UTF-8 whatever it quotes.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    origin = "unknown place"
    if frames:
        frame, line = frames[-1]
        origin = f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-2:])}:{line}"
    text = str(error)[:_MAX_TEXT].encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}: {text} ({origin})"
