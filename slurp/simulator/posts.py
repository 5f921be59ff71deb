"""Posts: text in several languages, with facets, embeds, replies, tags and labels."""

from __future__ import annotations

from slurp.simulator import words
from slurp.simulator.people import Person, Ref
from slurp.simulator.records import Desk, Record, strong_ref

_FACET = "app.bsky.richtext.facet"


class _Text:
    """A text that grows by pieces and knows where in UTF-8 each facet lies."""

    def __init__(self) -> None:
        self.text = ""
        self.facets: list[Record] = []

    def add(self, piece: str) -> None:
        self.text += (" " if self.text else "") + piece

    def mark(self, piece: str, feature: Record) -> None:
        self.add(piece)
        end = len(self.text.encode())
        self.facets.append(
            {
                "features": [feature],
                "index": {"byteEnd": end, "byteStart": end - len(piece.encode())},
            }
        )


def post(desk: Desk, author: Person, at: int, parent: Ref | None) -> Record:
    record: Record = {"$type": "app.bsky.feed.post", "createdAt": desk.created_at(at)}
    text = _compose(desk, author)
    dice = desk.random()
    link = _embed(desk, record, dice)
    if link:
        text.mark(link.removeprefix("https://")[:28] + "...", {"$type": f"{_FACET}#link", "uri": link})
    if text.facets:
        record["facets"] = text.facets
    # Every fiftieth client names no language, and some people use two.
    if not desk.chance(0.02):
        record["langs"] = [author.lang, "en"] if author.lang != "en" and desk.chance(0.08) else [author.lang]
    if parent is not None:
        record["reply"] = {"parent": strong_ref(parent), "root": strong_ref(parent.root or parent)}
    if desk.chance(0.015):
        label = desk.one_of(words.SELF_LABELS)
        record["labels"] = {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": label}]}
    if desk.chance(0.03):
        record["tags"] = sorted({desk.tag(), desk.tag()})
    record["text"] = text.text
    return record


def _compose(desk: Desk, author: Person) -> _Text:
    _, sentences, things = words.LANGUAGES[author.lang]
    text = _Text()
    if desk.chance(0.09):
        friend = desk.somebody()
        text.mark(f"@{friend.handle}", {"$type": f"{_FACET}#mention", "did": friend.did})
    for _ in range(1 + int(desk.random() ** 2 * 3)):
        text.add(desk.one_of(sentences).format(desk.one_of(things)))
    if desk.chance(0.3):
        text.add(desk.one_of(words.EMOJI))
    if desk.chance(0.22):
        for tag in dict.fromkeys(desk.tag() for _ in range(1 + int(desk.random() * 3))):
            text.mark(f"#{tag}", {"$type": f"{_FACET}#tag", "tag": tag})
    return text


def _embed(desk: Desk, record: Record, dice: float) -> str:
    """Perhaps adds an embed; returns a link that the text should show."""
    if dice < 0.16:
        record["embed"] = _images(desk)
    elif dice < 0.25:
        record["embed"], link = _external(desk)
        return link if desk.chance(0.6) else ""
    elif dice < 0.31:
        record["embed"] = {"$type": "app.bsky.embed.record", "record": strong_ref(desk.posts.pick())}
    elif dice < 0.325:
        record["embed"] = {
            "$type": "app.bsky.embed.recordWithMedia",
            "media": _images(desk),
            "record": {"$type": "app.bsky.embed.record", "record": strong_ref(desk.posts.pick())},
        }
    elif dice < 0.355:
        record["embed"] = _video(desk)
    elif dice < 0.358:
        record["embed"] = _gallery(desk)
    elif dice < 0.38:
        return _external(desk)[1]
    return ""


def _images(desk: Desk) -> Record:
    return {
        "$type": "app.bsky.embed.images",
        "images": [_image(desk) for _ in range(1 + int(desk.random() ** 3 * 4))],
    }


def _image(desk: Desk) -> Record:
    return {
        "alt": desk.one_of(words.ALT_TEXTS),
        "aspectRatio": {"height": 600 + int(desk.random() * 1400), "width": 600 + int(desk.random() * 1400)},
        "image": desk.blob("image/jpeg", 900_000),
    }


def _gallery(desk: Desk) -> Record:
    return {
        "$type": "app.bsky.embed.gallery",
        "items": [{"$type": "app.bsky.embed.gallery#image", **_image(desk)} for _ in range(5)],
    }


def _external(desk: Desk) -> tuple[Record, str]:
    # Squared: the first sites are the popular ones.
    site, name, title = words.SITES[int(desk.random() ** 2 * len(words.SITES))]
    link = f"https://{site}/{int(desk.random() * 100_000)}"
    external: Record = {"description": f"{title}. From {name}.", "title": title, "uri": link}
    if desk.chance(0.7):
        external["thumb"] = desk.blob("image/jpeg", 300_000)
    return {"$type": "app.bsky.embed.external", "external": external}, link


def _video(desk: Desk) -> Record:
    video: Record = {
        "$type": "app.bsky.embed.video",
        "aspectRatio": {"height": 1920, "width": 1080},
        "video": desk.blob("video/mp4", 40_000_000),
    }
    if desk.chance(0.5):
        video["alt"] = desk.one_of(words.ALT_TEXTS[:-1])
    if desk.chance(0.2):
        video["captions"] = [{"file": desk.blob("text/vtt", 9000), "lang": "en"}]
    return video
