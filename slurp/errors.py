"""The errors that end the program, with the exit code they end it with."""

from __future__ import annotations

from enum import IntEnum


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
