"""What hangs on a post: pictures, videos, link cards, quoted posts, and the texts inside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from slurp.documents.record_values import dict_of, dicts_of, text_of
from slurp.documents.urls import at_uri, is_did, page_in

POST = "app.bsky.feed.post"

# Where the app's picker of moving pictures takes them from; such a card is shown as a picture.
_GIF = re.compile(r"https://(?:media\.tenor\.com|static\.klipy\.com|media\d*\.giphy\.com)/", re.IGNORECASE)


class Embed:
    """Collects over the parts of an embed."""

    def __init__(self) -> None:
        self.kinds: dict[str, None] = {}
        self.count = 0
        self.alts: list[str] = []
        self.external: dict[str, str] = {}
        self.links: list[str] = []
        self.quote: dict[str, str] = {}

    def add(self, embed: dict[str, Any], *, inside: bool = False) -> None:
        """`inside` a record-with-media there is no other one."""
        kind = embed.get("$type")
        if kind == "app.bsky.embed.images":
            self._pictures(dicts_of(embed.get("images")))
        elif kind == "app.bsky.embed.gallery":
            self._pictures(dicts_of(embed.get("items")))
        elif kind == "app.bsky.embed.video":
            self._medium("gif" if embed.get("presentation") == "gif" else "video", embed)
        elif kind == "app.bsky.embed.external":
            self._card(dict_of(embed.get("external")))
        elif kind == "app.bsky.embed.record":
            self._reference(dict_of(embed.get("record")))
        elif kind == "app.bsky.embed.recordWithMedia" and not inside:
            self.add(dict_of(embed.get("media")), inside=True)
            self._reference(dict_of(dict_of(embed.get("record")).get("record")))

    def _pictures(self, pictures: Iterable[dict[str, Any]]) -> None:
        for picture in pictures:
            self._medium("image", picture)

    def _medium(self, kind: str, medium: dict[str, Any]) -> None:
        self.kinds[kind] = None
        self.count += 1
        if alt := text_of(medium.get("alt")):
            self.alts.append(alt)

    def _card(self, card: dict[str, Any]) -> None:
        uri = text_of(card.get("uri"))
        if uri and _GIF.match(uri):
            self.kinds["gif"] = None
            self.count += 1
        else:
            self.kinds["external"] = None
        if uri:
            self.links.append(uri)
        for name in ("title", "description"):
            if text := text_of(card.get(name)):
                self.external[name] = text

    def _reference(self, record: dict[str, Any]) -> None:
        uri = text_of(record.get("uri"))
        if not uri or (parts := at_uri(uri)) is None:
            return
        if len(parts) < 4 or parts[3] != POST:
            self.kinds["record"] = None
            return
        self.kinds["quote"] = None
        self.quote["uri"] = uri
        if url := page_in(parts):
            self.quote["url"] = url
        if is_did(parts[2]):
            self.quote["did"] = parts[2]
