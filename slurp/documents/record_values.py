"""What strangers wrote, taken only where it has the expected type; a wrong type is as good as absent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# A record is 1 MiB at most. Counting the characters of 16 million letters with accents takes 20 s and 1 GB.
_MAX_TEXT = 2**20


def text_of(value: Any) -> str | None:
    """A string with something in it, no longer than a legal record."""
    return value if type(value) is str and 0 < len(value) <= _MAX_TEXT else None


def texts_of(value: Any) -> Iterator[str]:
    if type(value) is list:
        yield from (item for item in value if text_of(item))


def dict_of(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {}


def dicts_of(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if type(item) is dict] if type(value) is list else []
