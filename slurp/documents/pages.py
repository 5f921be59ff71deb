"""Records → the page of bsky.app that shows them: an `at://` URI opens in no browser."""

from __future__ import annotations

_PLACES = {
    "app.bsky.feed.post": "post",
    "app.bsky.feed.generator": "feed",
    "app.bsky.graph.list": "lists",
}


def page_of(uri: str) -> str | None:
    """The page of `at://did/collection/rkey`; None for records without one of their own."""
    parts = uri.split("/")
    if len(parts) != 5 or parts[0] != "at:" or not parts[4] or (place := _PLACES.get(parts[3])) is None:
        return None
    return f"https://bsky.app/profile/{parts[2]}/{place}/{parts[4]}"
