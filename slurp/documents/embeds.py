"""Summarize the embeds of a post: images, videos, link cards, quoted posts, and the texts inside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from slurp.documents.record_values import dict_of, dicts_of, text_of, type_of, visible_of
from slurp.documents.urls import host_of, is_did, split_at_uri

POST = "app.bsky.feed.post"

# Hosts used by the GIF picker of the app; a link card to one of them is shown as a GIF.
_GIF_HOST = re.compile(r"media\d*\.tenor\.com|static\.klipy\.com|media\d*\.giphy\.com|i\.giphy\.com")
_GIF_NAME = re.compile("tenor|klipy|giphy", re.IGNORECASE)

# The app writes `Alt: ` before a text by the user, and `ALT: ` before that of the picker.
_GIF_ALT = re.compile(r"\Aalt[:：]", re.IGNORECASE)


def is_gif(link: str) -> bool:
    """Return whether a link is a GIF of the picker."""
    if not _GIF_NAME.search(link):
        return False
    host = host_of(link)
    return host is not None and _GIF_HOST.fullmatch(host) is not None


class EmbedSummary:
    """The kinds, alternative texts, links, card texts and quote of an embed, collected from its parts."""

    def __init__(self) -> None:
        self.kinds: dict[str, None] = {}
        self.count = 0
        self.alts: list[str] = []
        self.external: dict[str, str] = {}
        self.links: list[str] = []
        self.quote: dict[str, str] = {}

    def add(self, embed: dict[str, Any], *, inside: bool = False) -> None:
        """Add an embed. `inside` a recordWithMedia another recordWithMedia is ignored."""
        kind = type_of(embed)
        if kind == "app.bsky.embed.images":
            self._add_images(dicts_of(embed.get("images")))
        elif kind == "app.bsky.embed.gallery":
            self._add_images(dicts_of(embed.get("items")))
        elif kind == "app.bsky.embed.video":
            self._add_medium("gif" if embed.get("presentation") == "gif" else "video", embed)
        elif kind == "app.bsky.embed.external":
            self._add_link_card(dict_of(embed.get("external")))
        elif kind == "app.bsky.embed.record":
            self._add_quote_or_record(dict_of(embed.get("record")))
        elif kind == "app.bsky.embed.recordWithMedia" and not inside:
            self.add(dict_of(embed.get("media")), inside=True)
            self._add_quote_or_record(dict_of(dict_of(embed.get("record")).get("record")))

    def _add_images(self, images: Iterable[dict[str, Any]]) -> None:
        for image in images:
            self._add_medium("image", image)

    def _add_medium(self, kind: str, medium: dict[str, Any]) -> None:
        self.kinds[kind] = None
        self.count += 1
        if alt := text_of(medium.get("alt")):
            self.alts.append(alt)

    def _add_link_card(self, card: dict[str, Any]) -> None:
        uri = text_of(card.get("uri"))
        title, description = visible_of(card.get("title")), visible_of(card.get("description"))
        if uri and is_gif(uri):
            # A GIF is a link card by format only: nobody links to its host.
            self.kinds["gif"] = None
            self.count += 1
            if description and (alt := _GIF_ALT.sub("", description.strip(), count=1).strip()):
                self.alts.append(alt)
            description = None
        else:
            self.kinds["external"] = None
            if uri:
                self.links.append(uri)
        for name, text in (("title", title), ("description", description)):
            if text:
                self.external[name] = text

    def _add_quote_or_record(self, record: dict[str, Any]) -> None:
        uri = text_of(record.get("uri"))
        if not uri or (parts := split_at_uri(uri)) is None:
            return
        if len(parts) < 4 or parts[3] != POST:
            self.kinds["record"] = None
            return
        self.kinds["quote"] = None
        self.quote["uri"] = uri
        if is_did(parts[2]):
            self.quote["did"] = parts[2]
