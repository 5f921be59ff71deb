"""Bodies of records other than posts, as JSON. Keys are sorted, as in DAG-CBOR."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

import orjson

from slurp.simulator import sample_texts
from slurp.simulator.accounts import Account, RecordPool, RecordRef
from slurp.simulator.identifiers import CidGenerator, IsoFormatter

T = TypeVar("T")
Record = dict[str, Any]


class RecordContext:
    """What record bodies are built from: random numbers, times, CIDs, and the existing records."""

    def __init__(self, rng: random.Random, accounts: Sequence[Account], posts: RecordPool) -> None:
        self.rng = rng
        self.random = rng.random
        self.accounts = accounts
        self.posts = posts
        self.iso = IsoFormatter()
        self.cids = CidGenerator(rng)
        self._zipf_tags = [
            tag for rank, tag in enumerate(sample_texts.TAGS, 1) for _ in range(max(1, 120 // rank))
        ]

    def choose(self, options: Sequence[T]) -> T:
        """Return a random element."""
        return options[int(self.random() * len(options))]

    def happens(self, share: float) -> bool:
        """Return True with the probability `share`."""
        return self.random() < share

    def tag(self) -> str:
        """Return a tag; the frequency follows Zipf's law."""
        return self.choose(self._zipf_tags)

    def random_account(self) -> Account:
        """Return an account; the popular ones come first in the list."""
        return self.accounts[int(self.random() ** 2 * len(self.accounts))]

    def created_at(self, micros: int) -> str:
        """Return a time, mostly as the app writes it; some clients write six digits and an offset."""
        text = self.iso(micros)
        return f"{text[:-1]}{micros % 1000:03d}+00:00" if self.random() < 0.02 else text

    def blob(self, mime: str, size: int) -> Record:
        """Return a reference to a blob of up to `size` bytes more than 1,000."""
        return {
            "$type": "blob",
            "mimeType": mime,
            "ref": {"$link": self.cids.blob()},
            "size": 1000 + int(self.random() * size),
        }


def strong_ref(ref: RecordRef) -> Record:
    """Return a reference with URI and CID."""
    return {"cid": ref.cid, "uri": ref.uri}


def to_json(record: Record) -> str:
    """Serialize a record with sorted keys."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS).decode()


# The most frequent kinds are written without a dictionary.


def like_or_repost(
    context: RecordContext, at: int, collection: str, target: RecordRef, via: RecordRef | None
) -> str:
    """Return a like or repost of a post, optionally reached via a repost."""
    return (
        f'{{"$type":"{collection}","createdAt":"{context.created_at(at)}",'
        f'"subject":{{"cid":"{target.cid}",'
        f'"uri":"at://{target.account.did}/{target.collection}/{target.rkey}"}}{_via(via)}}}'
    )


def follow_or_block(context: RecordContext, at: int, collection: str, via: RecordRef | None = None) -> str:
    """Return a follow, optionally via a starter pack, or a block."""
    return (
        f'{{"$type":"{collection}","createdAt":"{context.created_at(at)}",'
        f'"subject":"{context.random_account().did}"{_via(via)}}}'
    )


def _via(ref: RecordRef | None) -> str:
    return "" if ref is None else f',"via":{{"cid":"{ref.cid}","uri":"{ref.uri}"}}'


# All others: one function each, with the context, the author and the time in microseconds.


def new_list(context: RecordContext, author: Account, at: int) -> Record:
    return {
        "$type": "app.bsky.graph.list",
        "createdAt": context.created_at(at),
        "description": context.choose(sample_texts.BIOS),
        "name": context.choose(sample_texts.LIST_NAMES),
        "purpose": context.choose(("app.bsky.graph.defs#curatelist", "app.bsky.graph.defs#modlist")),
    }


def list_item(context: RecordContext, at: int, target: RecordRef) -> Record:
    return {
        "$type": "app.bsky.graph.listitem",
        "createdAt": context.created_at(at),
        "list": target.uri,
        "subject": context.random_account().did,
    }


def list_block(context: RecordContext, at: int, target: RecordRef) -> Record:
    return {"$type": "app.bsky.graph.listblock", "createdAt": context.created_at(at), "subject": target.uri}


def starter_pack(context: RecordContext, author: Account, at: int, target: RecordRef) -> Record:
    return {
        "$type": "app.bsky.graph.starterpack",
        "createdAt": context.created_at(at),
        "description": "Everyone I would miss",
        "feeds": [{"uri": f"at://{author.did}/app.bsky.feed.generator/daily"}],
        "list": target.uri,
        "name": f"{author.name}: {context.choose(sample_texts.LIST_NAMES)}",
    }


def profile(context: RecordContext, author: Account, at: int) -> Record:
    record: Record = {
        "$type": "app.bsky.actor.profile",
        "avatar": context.blob("image/jpeg", 400_000),
        "createdAt": context.created_at(at - 40_000_000_000_000),
        "description": context.choose(sample_texts.BIOS),
        "displayName": f"{author.name} {context.choose(sample_texts.EMOJI)}",
    }
    if context.happens(0.2):
        record["pronouns"] = context.choose(("she/her", "he/him", "they/them"))
    if context.happens(0.2):
        record["website"] = f"https://{author.handle}/"
    if context.happens(0.3):
        record["pinnedPost"] = strong_ref(context.posts.pick())
    return record


def thread_gate(context: RecordContext, at: int, post: RecordRef) -> Record:
    allow = context.choose(([], ["mention"], ["following"], ["mention", "following"], ["follower"]))
    return {
        "$type": "app.bsky.feed.threadgate",
        "allow": [{"$type": f"app.bsky.feed.threadgate#{rule}Rule"} for rule in allow],
        "createdAt": context.created_at(at),
        "hiddenReplies": [context.posts.pick().uri] if context.happens(0.2) else [],
        "post": post.uri,
    }


def post_gate(context: RecordContext, at: int, post: RecordRef) -> Record:
    return {
        "$type": "app.bsky.feed.postgate",
        "createdAt": context.created_at(at),
        "detachedEmbeddingUris": [],
        "embeddingRules": [{"$type": "app.bsky.feed.postgate#disableRule"}],
        "post": post.uri,
    }


def feed_generator(context: RecordContext, author: Account, at: int) -> Record:
    topic = context.tag()
    return {
        "$type": "app.bsky.feed.generator",
        "acceptsInteractions": context.happens(0.5),
        "createdAt": context.created_at(at),
        "description": f"Everything about {topic}, newest first",
        "did": "did:web:feeds.example.com",
        "displayName": topic[:24],
    }


def live_status(context: RecordContext, author: Account, at: int) -> Record:
    return {
        "$type": "app.bsky.actor.status",
        "createdAt": context.created_at(at),
        "durationMinutes": context.choose((30, 60, 120, 240)),
        "embed": {
            "$type": "app.bsky.embed.external",
            "external": {
                "$type": "app.bsky.embed.external#external",
                "description": f"{author.name} is painting, come and watch",
                "title": f"{author.name} live",
                "uri": f"https://video.example.net/live/{author.handle}",
            },
        },
        "status": "app.bsky.actor.status#live",
    }


# Lexicons of third parties, and some unknown ones.


def play(context: RecordContext, author: Account, at: int) -> Record:
    track, artist, release = context.choose(sample_texts.TRACKS)
    return {
        "$type": "fm.teal.alpha.feed.play",
        "artists": [{"artistName": artist}],
        "duration": 120 + int(context.random() * 300),
        "playedTime": context.iso(at),
        "releaseName": release,
        "submissionClientAgent": "simulated-scrobbler/1.0",
        "trackName": track,
    }


def now_playing(context: RecordContext, author: Account, at: int) -> Record:
    track, artist, release = context.choose(sample_texts.TRACKS)
    return {
        "$type": "fm.teal.alpha.actor.status",
        "expiry": context.iso(at + 600_000_000),
        "item": {
            "artists": [{"artistName": artist}],
            "duration": None,
            "releaseName": release,
            "trackName": track,
        },
        "time": context.iso(at),
    }


def statusphere(context: RecordContext, author: Account, at: int) -> Record:
    return {
        "$type": "xyz.statusphere.status",
        "createdAt": context.iso(at),
        "status": context.choose(sample_texts.EMOJI),
    }


def blog_entry(context: RecordContext, author: Account, at: int) -> Record:
    _, sentences, topics = sample_texts.LANGUAGES[author.lang]
    topic = context.choose(topics)
    lines = [context.choose(sentences).format(context.choose(topics)) for _ in range(6)]
    return {
        "$type": "com.whtwnd.blog.entry",
        "content": f"# {topic}\n\n" + "\n\n".join(lines),
        "createdAt": context.iso(at),
        "theme": "github-light",
        "title": topic,
        "visibility": context.choose(("public", "url")),
    }


def preference(context: RecordContext, author: Account, at: int) -> Record:
    return {
        "$type": "social.pinksky.app.preference",
        "createdAt": context.iso(at),
        "slug": context.choose(("gridLayout", "stories", "hideReplies")),
        "value": context.choose(("on", "off")),
    }


def bird_sighting(context: RecordContext, author: Account, at: int) -> Record:
    return {
        "$type": "org.example.birdlog.sighting",
        "count": 1 + int(context.random() * 30),
        "place": {"alt": None, "lat": f"{context.random() * 60:.4f}", "lon": f"{context.random() * 20:.4f}"},
        "seenAt": context.iso(at),
        "species": context.choose(("Erithacus rubecula", "Apus apus", "Ciconia ciconia", "Larus canus")),
        "sure": context.happens(0.8),
    }


def weather(context: RecordContext, author: Account, at: int) -> Record:
    return {
        "$type": "net.example.weather.reading",
        "celsius10": int(context.random() * 400) - 100,
        "readAt": context.iso(at),
        "samples": [int(context.random() * 100) for _ in range(6)],
        "station": f"st-{author.clock}",
    }
