"""The errors that end the program, with the exit code they end it with."""

from __future__ import annotations

import traceback
from enum import IntEnum
from pathlib import PurePath

# Characters of an exception's text: it may quote a record.
_TEXT = 300


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2


class Stopped(Exception):
    """A step was given up because a stop was requested; it is neither done nor failed."""


class Fatal(Exception):
    """Stops the service. The message is for the user: it says what to do, and holds no secret."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def describe_bug(error: Exception) -> str:
    """Type, text and origin of an unexpected exception, for one line: "KeyError: 'a' (documents/tags.py:12)".

    The text is bounded and can be encoded, whatever it quotes.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    place = "unknown place"
    if frames:
        frame, line = frames[-1]
        place = f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-2:])}:{line}"
    text = str(error)[:_TEXT].encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}: {text} ({place})"
