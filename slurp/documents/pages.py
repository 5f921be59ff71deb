"""Records → the page of bsky.app that shows them: an `at://` URI opens in no browser."""

from __future__ import annotations

# By collection.
PLACES = {
    "app.bsky.feed.post": "post",
    "app.bsky.feed.generator": "feed",
    "app.bsky.graph.list": "lists",
}


def page_of(uri: str) -> str | None:
    """The page of `at://did/collection/rkey`; None for records without one of their own."""
    return page_in(uri.split("/"))


def page_in(parts: list[str]) -> str | None:
    """The same of an `at://` URI that is split at all its slashes."""
    if len(parts) != 5 or (place := PLACES.get(parts[3])) is None or parts[0] != "at:" or not parts[4]:
        return None
    return f"https://bsky.app/profile/{parts[2]}/{place}/{parts[4]}"
