"""Typed access to user-written values: a value of the wrong type is treated as absent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Characters. A record is 1 MiB at most. Counting the graphemes of 16 million accented letters takes 20 s and
# 1 GB.
_MAX_TEXT = 2**20


def text_of(value: Any) -> str | None:
    """Return a non-empty string that is not longer than a legal record; None for any other value."""
    return value if type(value) is str and 0 < len(value) <= _MAX_TEXT else None


def texts_of(value: Any) -> Iterator[str]:
    """Yield the strings in a list that `text_of` accepts."""
    if type(value) is list:
        yield from (item for item in value if text_of(item))


def dict_of(value: Any) -> dict[str, Any]:
    """Return an object; an empty one for any other value."""
    return value if type(value) is dict else {}


def dicts_of(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; an empty list for any other value."""
    return [item for item in value if type(item) is dict] if type(value) is list else []
