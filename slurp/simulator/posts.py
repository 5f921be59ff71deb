"""Posts: text in several languages, with facets, embeds, replies, tags and labels."""

from __future__ import annotations

from slurp.simulator import sample_texts
from slurp.simulator.accounts import Account, RecordRef
from slurp.simulator.records import Record, RecordContext, strong_ref

_FACET = "app.bsky.richtext.facet"


class _RichText:
    """A text built from pieces, with the UTF-8 byte range of each facet."""

    def __init__(self) -> None:
        self.text = ""
        self.facets: list[Record] = []

    def add(self, piece: str) -> None:
        """Append a piece, separated by a space."""
        self.text += (" " if self.text else "") + piece

    def add_facet(self, piece: str, feature: Record) -> None:
        """Append a piece with a facet: a link, a mention or a tag."""
        self.add(piece)
        end = len(self.text.encode())
        self.facets.append(
            {
                "features": [feature],
                "index": {"byteEnd": end, "byteStart": end - len(piece.encode())},
            }
        )


def post(context: RecordContext, author: Account, at: int, parent: RecordRef | None) -> Record:
    """Return the record of a post, a reply if it has a parent."""
    record: Record = {"$type": "app.bsky.feed.post", "createdAt": context.created_at(at)}
    text = _compose(context, author)
    drawn = context.random()
    link = _add_embed(context, record, drawn)
    if link:
        text.add_facet(link.removeprefix("https://")[:28] + "...", {"$type": f"{_FACET}#link", "uri": link})
    if text.facets:
        record["facets"] = text.facets
    # Every fiftieth post has no language, and some have two.
    if not context.happens(0.02):
        record["langs"] = (
            [author.lang, "en"] if author.lang != "en" and context.happens(0.08) else [author.lang]
        )
    if parent is not None:
        record["reply"] = {"parent": strong_ref(parent), "root": strong_ref(parent.root or parent)}
    if context.happens(0.015):
        label = context.choose(sample_texts.SELF_LABELS)
        record["labels"] = {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": label}]}
    if context.happens(0.03):
        record["tags"] = sorted({context.tag(), context.tag()})
    record["text"] = text.text
    return record


def _compose(context: RecordContext, author: Account) -> _RichText:
    _, sentences, topics = sample_texts.LANGUAGES[author.lang]
    text = _RichText()
    if context.happens(0.09):
        mentioned = context.random_account()
        text.add_facet(f"@{mentioned.handle}", {"$type": f"{_FACET}#mention", "did": mentioned.did})
    for _ in range(1 + int(context.random() ** 2 * 3)):
        text.add(context.choose(sentences).format(context.choose(topics)))
    if context.happens(0.3):
        text.add(context.choose(sample_texts.EMOJI))
    if context.happens(0.22):
        for tag in dict.fromkeys(context.tag() for _ in range(1 + int(context.random() * 3))):
            text.add_facet(f"#{tag}", {"$type": f"{_FACET}#tag", "tag": tag})
    return text


def _add_embed(context: RecordContext, record: Record, drawn: float) -> str:
    """Add the embed that `drawn` selects, if any; return a link for the text, or an empty string."""
    if drawn < 0.16:
        record["embed"] = _images(context)
    elif drawn < 0.25:
        record["embed"], link = _external(context)
        return link if context.happens(0.6) else ""
    elif drawn < 0.31:
        record["embed"] = {"$type": "app.bsky.embed.record", "record": strong_ref(context.posts.pick())}
    elif drawn < 0.325:
        record["embed"] = {
            "$type": "app.bsky.embed.recordWithMedia",
            "media": _images(context),
            "record": {"$type": "app.bsky.embed.record", "record": strong_ref(context.posts.pick())},
        }
    elif drawn < 0.355:
        record["embed"] = _video(context)
    elif drawn < 0.358:
        record["embed"] = _gallery(context)
    elif drawn < 0.38:
        return _external(context)[1]
    return ""


def _images(context: RecordContext) -> Record:
    return {
        "$type": "app.bsky.embed.images",
        "images": [_image(context) for _ in range(1 + int(context.random() ** 3 * 4))],
    }


def _image(context: RecordContext) -> Record:
    return {
        "alt": context.choose(sample_texts.ALT_TEXTS),
        "aspectRatio": {
            "height": 600 + int(context.random() * 1400),
            "width": 600 + int(context.random() * 1400),
        },
        "image": context.blob("image/jpeg", 900_000),
    }


def _gallery(context: RecordContext) -> Record:
    return {
        "$type": "app.bsky.embed.gallery",
        "items": [{"$type": "app.bsky.embed.gallery#image", **_image(context)} for _ in range(5)],
    }


def _external(context: RecordContext) -> tuple[Record, str]:
    # Squared: the first sites are the most popular.
    site, name, title = sample_texts.SITES[int(context.random() ** 2 * len(sample_texts.SITES))]
    link = f"https://{site}/{int(context.random() * 100_000)}"
    external: Record = {"description": f"{title}. From {name}.", "title": title, "uri": link}
    if context.happens(0.7):
        external["thumb"] = context.blob("image/jpeg", 300_000)
    return {"$type": "app.bsky.embed.external", "external": external}, link


def _video(context: RecordContext) -> Record:
    video: Record = {
        "$type": "app.bsky.embed.video",
        "aspectRatio": {"height": 1920, "width": 1080},
        "video": context.blob("video/mp4", 40_000_000),
    }
    if context.happens(0.5):
        video["alt"] = context.choose(sample_texts.ALT_TEXTS[:-1])
    if context.happens(0.2):
        video["captions"] = [{"file": context.blob("text/vtt", 9000), "lang": "en"}]
    return video
