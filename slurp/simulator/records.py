"""Record bodies other than posts, as JSON. Keys are sorted, as DAG-CBOR gives them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

import orjson

from slurp.simulator import words
from slurp.simulator.people import Person, Pool, Ref
from slurp.simulator.stamps import CidMint, IsoClock

T = TypeVar("T")
Record = dict[str, Any]


class Desk:
    """Where records are written: dice, clock, CIDs, and the records that exist already."""

    def __init__(self, rng: random.Random, people: Sequence[Person], posts: Pool) -> None:
        self.rng = rng
        self.random = rng.random
        self.people = people
        self.posts = posts
        self.iso = IsoClock()
        self.cids = CidMint(rng)
        self._zipf_tags = [tag for rank, tag in enumerate(words.TAGS, 1) for _ in range(max(1, 120 // rank))]

    def one_of(self, things: Sequence[T]) -> T:
        return things[int(self.random() * len(things))]

    def chance(self, share: float) -> bool:
        return self.random() < share

    def tag(self) -> str:
        return self.one_of(self._zipf_tags)

    def somebody(self) -> Person:
        """The popular ones come first in the list."""
        return self.people[int(self.random() ** 2 * len(self.people))]

    def created_at(self, micros: int) -> str:
        """Mostly as the app writes it; some clients write six digits and an offset."""
        text = self.iso(micros)
        return f"{text[:-1]}{micros % 1000:03d}+00:00" if self.random() < 0.02 else text

    def blob(self, mime: str, size: int) -> Record:
        return {
            "$type": "blob",
            "mimeType": mime,
            "ref": {"$link": self.cids.blob()},
            "size": 1000 + int(self.random() * size),
        }


def strong_ref(ref: Ref) -> Record:
    return {"cid": ref.cid, "uri": ref.uri}


def to_json(record: Record) -> str:
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS).decode()


# The three that make up most of the network are written without a dictionary.


def attention(desk: Desk, at: int, collection: str, target: Ref, via: Ref | None) -> str:
    """A like or repost of a post, perhaps seen by a repost."""
    return (
        f'{{"$type":"{collection}","createdAt":"{desk.created_at(at)}",'
        f'"subject":{{"cid":"{target.cid}",'
        f'"uri":"at://{target.person.did}/{target.collection}/{target.rkey}"}}{_via(via)}}}'
    )


def relation(desk: Desk, at: int, collection: str, via: Ref | None = None) -> str:
    """A follow, perhaps through a starter pack, or a block."""
    return (
        f'{{"$type":"{collection}","createdAt":"{desk.created_at(at)}",'
        f'"subject":"{desk.somebody().did}"{_via(via)}}}'
    )


def _via(ref: Ref | None) -> str:
    return "" if ref is None else f',"via":{{"cid":"{ref.cid}","uri":"{ref.uri}"}}'


# Others: one function each, called with the desk, the author and the time.


def new_list(desk: Desk, author: Person, at: int) -> Record:
    return {
        "$type": "app.bsky.graph.list",
        "createdAt": desk.created_at(at),
        "description": desk.one_of(words.BIOS),
        "name": desk.one_of(words.LIST_NAMES),
        "purpose": desk.one_of(("app.bsky.graph.defs#curatelist", "app.bsky.graph.defs#modlist")),
    }


def list_item(desk: Desk, at: int, target: Ref) -> Record:
    return {
        "$type": "app.bsky.graph.listitem",
        "createdAt": desk.created_at(at),
        "list": target.uri,
        "subject": desk.somebody().did,
    }


def list_block(desk: Desk, at: int, target: Ref) -> Record:
    return {"$type": "app.bsky.graph.listblock", "createdAt": desk.created_at(at), "subject": target.uri}


def starter_pack(desk: Desk, author: Person, at: int, target: Ref) -> Record:
    return {
        "$type": "app.bsky.graph.starterpack",
        "createdAt": desk.created_at(at),
        "description": "Everyone I would miss",
        "feeds": [{"uri": f"at://{author.did}/app.bsky.feed.generator/daily"}],
        "list": target.uri,
        "name": f"{author.name}: {desk.one_of(words.LIST_NAMES)}",
    }


def profile(desk: Desk, author: Person, at: int) -> Record:
    record: Record = {
        "$type": "app.bsky.actor.profile",
        "avatar": desk.blob("image/jpeg", 400_000),
        "createdAt": desk.created_at(at - 40_000_000_000_000),
        "description": desk.one_of(words.BIOS),
        "displayName": f"{author.name} {desk.one_of(words.EMOJI)}",
    }
    if desk.chance(0.2):
        record["pronouns"] = desk.one_of(("she/her", "he/him", "they/them"))
    if desk.chance(0.2):
        record["website"] = f"https://{author.handle}/"
    if desk.chance(0.3):
        record["pinnedPost"] = strong_ref(desk.posts.pick())
    return record


def thread_gate(desk: Desk, at: int, post: Ref) -> Record:
    allow = desk.one_of(([], ["mention"], ["following"], ["mention", "following"], ["follower"]))
    return {
        "$type": "app.bsky.feed.threadgate",
        "allow": [{"$type": f"app.bsky.feed.threadgate#{rule}Rule"} for rule in allow],
        "createdAt": desk.created_at(at),
        "hiddenReplies": [desk.posts.pick().uri] if desk.chance(0.2) else [],
        "post": post.uri,
    }


def post_gate(desk: Desk, at: int, post: Ref) -> Record:
    return {
        "$type": "app.bsky.feed.postgate",
        "createdAt": desk.created_at(at),
        "detachedEmbeddingUris": [],
        "embeddingRules": [{"$type": "app.bsky.feed.postgate#disableRule"}],
        "post": post.uri,
    }


def feed_generator(desk: Desk, author: Person, at: int) -> Record:
    topic = desk.tag()
    return {
        "$type": "app.bsky.feed.generator",
        "acceptsInteractions": desk.chance(0.5),
        "createdAt": desk.created_at(at),
        "description": f"Everything about {topic}, newest first",
        "did": "did:web:feeds.example.com",
        "displayName": topic[:24],
    }


def live_status(desk: Desk, author: Person, at: int) -> Record:
    return {
        "$type": "app.bsky.actor.status",
        "createdAt": desk.created_at(at),
        "durationMinutes": desk.one_of((30, 60, 120, 240)),
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


# Lexicons of third parties, and some that nobody has heard of.


def play(desk: Desk, author: Person, at: int) -> Record:
    track, artist, release = desk.one_of(words.TRACKS)
    return {
        "$type": "fm.teal.alpha.feed.play",
        "artists": [{"artistName": artist}],
        "duration": 120 + int(desk.random() * 300),
        "playedTime": desk.iso(at),
        "releaseName": release,
        "submissionClientAgent": "simulated-scrobbler/1.0",
        "trackName": track,
    }


def playing(desk: Desk, author: Person, at: int) -> Record:
    track, artist, release = desk.one_of(words.TRACKS)
    return {
        "$type": "fm.teal.alpha.actor.status",
        "expiry": desk.iso(at + 600_000_000),
        "item": {
            "artists": [{"artistName": artist}],
            "duration": None,
            "releaseName": release,
            "trackName": track,
        },
        "time": desk.iso(at),
    }


def statusphere(desk: Desk, author: Person, at: int) -> Record:
    return {
        "$type": "xyz.statusphere.status",
        "createdAt": desk.iso(at),
        "status": desk.one_of(words.EMOJI),
    }


def blog_entry(desk: Desk, author: Person, at: int) -> Record:
    _, sentences, things = words.LANGUAGES[author.lang]
    thing = desk.one_of(things)
    lines = [desk.one_of(sentences).format(desk.one_of(things)) for _ in range(6)]
    return {
        "$type": "com.whtwnd.blog.entry",
        "content": f"# {thing}\n\n" + "\n\n".join(lines),
        "createdAt": desk.iso(at),
        "theme": "github-light",
        "title": thing,
        "visibility": desk.one_of(("public", "url")),
    }


def preference(desk: Desk, author: Person, at: int) -> Record:
    return {
        "$type": "social.pinksky.app.preference",
        "createdAt": desk.iso(at),
        "slug": desk.one_of(("gridLayout", "stories", "hideReplies")),
        "value": desk.one_of(("on", "off")),
    }


def unknown_field(desk: Desk, author: Person, at: int) -> Record:
    return {
        "$type": "org.example.birdlog.sighting",
        "count": 1 + int(desk.random() * 30),
        "place": {"alt": None, "lat": f"{desk.random() * 60:.4f}", "lon": f"{desk.random() * 20:.4f}"},
        "seenAt": desk.iso(at),
        "species": desk.one_of(("Erithacus rubecula", "Apus apus", "Ciconia ciconia", "Larus canus")),
        "sure": desk.chance(0.8),
    }


def weather(desk: Desk, author: Person, at: int) -> Record:
    return {
        "$type": "net.example.weather.reading",
        "celsius10": int(desk.random() * 400) - 100,
        "readAt": desk.iso(at),
        "samples": [int(desk.random() * 100) for _ in range(6)],
        "station": f"st-{author.clock}",
    }
