"""What strangers wrote, taken only where it has the expected type; a wrong type is as good as absent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def text_of(value: Any) -> str | None:
    """A string with something in it."""
    return value if type(value) is str and value else None


def texts_of(value: Any) -> Iterator[str]:
    if type(value) is list:
        yield from (item for item in value if type(item) is str and item)


def dict_of(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {}


def dicts_of(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if type(item) is dict] if type(value) is list else []


def at_uri(text: str) -> list[str] | None:
    """An `at://` URI split at its slashes, with the authority, a DID or handle, in the third place.

    None for any other text. https://atproto.com/specs/at-uri-scheme
    """
    return text.split("/") if text.startswith("at://") else None


def is_did(text: str) -> bool:
    return text.startswith("did:")
