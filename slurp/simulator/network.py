"""A made-up social network: an endless run of distinct events, the same for the same seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from slurp.simulator import posts, records
from slurp.simulator.people import Person, Pool, Ref, populate
from slurp.simulator.records import Desk, Record
from slurp.simulator.stamps import tid
from slurp.simulator.store import Entry

POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
REPOST = "app.bsky.feed.repost"
FOLLOW = "app.bsky.graph.follow"
BLOCK = "app.bsky.graph.block"
LIST = "app.bsky.graph.list"
LIST_ITEM = "app.bsky.graph.listitem"
STARTER_PACK = "app.bsky.graph.starterpack"

_DAY = 86_400_000_000
_OLDER_POSTS = 300
"""Posts that exist before the first event, for the first likes to have something to like."""


class _Change(NamedTuple):
    """One operation on a record, before it has a rev."""

    person: Person
    operation: str
    collection: str
    rkey: str
    record: str = ""
    cid: str = ""


class Network:
    """Makes events one by one. Not thread-safe: one producer at a time."""

    def __init__(
        self,
        seed: int,
        people: int = 2000,
        *,
        odd_revs: float = 1 / 200,
        backdated: float = 0.0,
        cursors: bool = True,
    ) -> None:
        if people < 2:
            raise ValueError(f"{people} people are no network; at least 2 are needed")
        self._rng = random.Random(seed)
        self._random = self._rng.random
        self.people = populate(people, self._rng)
        self._odd_revs = odd_revs
        self._backdated = backdated
        self._cursors = cursors
        self._pools: defaultdict[str, Pool] = defaultdict(lambda: Pool(self._rng))
        self._desk = Desk(self._rng, self.people, self._pools[POST])
        self._away: list[Person] = []
        self._relay_seq = 31_000_000_000
        self._now = 0
        # A second operation of the same commit: the same person, the same rev.
        self._same_commit: tuple[_Change, int] | None = None
        self._mix = self._weigh()

    def event(self, time_us: int, cursor: int) -> Entry:
        """The next event, seen by the server at `time_us`."""
        if not self._now:
            self._begin(time_us)
        shown = time_us
        if self._backdated and self._random() < self._backdated:
            shown -= int((1 + self._random() * 72) * _DAY / 24)
        envelope = f'"time_us":{shown},"cursor":{cursor}' if self._cursors else f'"time_us":{shown}'
        # How long ago it was written: mostly a fraction of a second.
        self._now = time_us - 20_000 - int(self._random() ** 3 * 2_000_000)
        if self._same_commit is not None:
            (change, rev), self._same_commit = self._same_commit, None
            frame, did, collection = self._commit(change, rev, envelope)
        else:
            made = self._mix[int(self._random() * 10_000)]()
            if isinstance(made, _Change):
                frame, did, collection = self._commit(made, self._next_rev(made.person), envelope)
            else:
                (kind, did, body), collection = made, ""
                frame = f'{{"did":"{did}",{envelope},"kind":"{kind}","{kind}":{{{body}}}}}'
        return Entry(frame.encode(), did, collection, shown, cursor if self._cursors else None, time_us)

    def _commit(self, change: _Change, rev: int, envelope: str) -> tuple[str, str, str]:
        person, operation, collection, rkey, record, cid = change
        shown_rev = rev
        if self._random() < self._odd_revs:
            # Two days to three years off, mostly in the past, as of a server with a wrong clock.
            off = int((2 + self._random() ** 2 * 1100) * _DAY)
            shown_rev = rev - off if self._random() < 0.8 else rev + off
        body = f',"record":{record},"cid":"{cid}"' if record else ""
        shown = tid(shown_rev, person.clock)
        frame = (
            f'{{"did":"{person.did}",{envelope},"kind":"commit","commit":{{"rev":"{shown}",'
            f'"operation":"{operation}","collection":"{collection}","rkey":"{rkey}"{body}}}}}'
        )
        return frame, person.did, collection

    def _next_rev(self, person: Person) -> int:
        person.last_rev = max(person.last_rev + 1, self._now)
        return person.last_rev

    def _next_key(self, person: Person) -> str:
        """A key that this person has not used; records are written a little before their commit."""
        person.last_key = max(person.last_key + 1, self._now - int(self._random() * 400_000))
        return tid(person.last_key, person.clock)

    def _begin(self, time_us: int) -> None:
        for _ in range(_OLDER_POSTS):
            self._now = time_us - int((1 + self._random() * 24) * _DAY / 24)
            person = self._desk.somebody()
            rkey = tid(self._now, self._rng.randrange(1024))
            self._desk.posts.add(Ref(person, POST, rkey, self._desk.cids.record()))

    # What may happen next. Each returns a change, or (kind, did, body) for what is no commit.

    def _weigh(self) -> list[Callable[[], _Change | tuple[str, str, str]]]:
        """Ten thousand slots, filled in the proportions of the real network."""
        shares: list[tuple[int, Callable[[], _Change | tuple[str, str, str]]]] = [
            (1340, self._post),
            (940, lambda: self._attention(REPOST)),
            (940, self._follow),
            (240, self._block),
            (500, lambda: self._delete(LIKE)),
            (100, lambda: self._delete(POST)),
            (90, lambda: self._delete(FOLLOW)),
            (60, lambda: self._delete(REPOST)),
            (15, lambda: self._delete(BLOCK)),
            (10, lambda: self._delete(LIST_ITEM)),
            (8, lambda: self._delete("fm.teal.alpha.feed.play")),
            (4, lambda: self._delete("xyz.statusphere.status")),
            (40, self._edit_post),
            (90, lambda: self._own("app.bsky.actor.profile", records.profile)),
            (12, lambda: self._own("app.bsky.actor.status", records.live_status)),
            (30, lambda: self._own("fm.teal.alpha.actor.status", records.playing)),
            (25, lambda: self._long("app.bsky.graph.list", records.new_list)),
            (110, self._list_item),
            (12, self._list_block),
            (8, self._starter_pack),
            (6, lambda: self._long("app.bsky.feed.generator", records.feed_generator)),
            (130, lambda: self._long("fm.teal.alpha.feed.play", records.play)),
            (70, lambda: self._long("xyz.statusphere.status", records.statusphere)),
            (12, lambda: self._long("com.whtwnd.blog.entry", records.blog_entry)),
            (15, lambda: self._long("social.pinksky.app.preference", records.preference)),
            (30, lambda: self._long("org.example.birdlog.sighting", records.unknown_field)),
            (30, lambda: self._long("net.example.weather.reading", records.weather)),
            (25, self._identity),
            (20, self._account),
        ]
        slots = [action for share, action in shares for _ in range(share)]
        return slots + [self._like] * (10_000 - len(slots))

    def _person(self) -> Person:
        while (person := self._desk.somebody()).away:
            pass  # at most one in twenty is
        return person

    def _create(self, person: Person, collection: str, record: str, root: Ref | None = None) -> _Change:
        rkey, cid = self._next_key(person), self._desk.cids.record()
        self._pools[collection].add(Ref(person, collection, rkey, cid, root))
        return _Change(person, "create", collection, rkey, record, cid)

    def _like(self) -> _Change:
        return self._attention(LIKE)

    def _attention(self, collection: str) -> _Change:
        """A like or repost; one in twelve came to the post by a repost of it."""
        via = self._via(REPOST, 0.08)
        target = self._desk.posts.pick() if via is None or via.root is None else via.root
        record = records.attention(self._desk, self._now, collection, target, via)
        return self._create(self._person(), collection, record, target if collection == REPOST else None)

    def _follow(self) -> _Change:
        """One in twenty through a starter pack."""
        record = records.relation(self._desk, self._now, FOLLOW, self._via(STARTER_PACK, 0.05))
        return self._create(self._person(), FOLLOW, record)

    def _block(self) -> _Change:
        return self._create(self._person(), BLOCK, records.relation(self._desk, self._now, BLOCK))

    def _via(self, collection: str, share: float) -> Ref | None:
        pool = self._pools[collection]
        return pool.pick() if self._random() < share and len(pool) else None

    def _long(self, collection: str, write: Callable[[Desk, Person, int], Record]) -> _Change:
        person = self._person()
        return self._create(person, collection, records.to_json(write(self._desk, person, self._now)))

    def _own(self, collection: str, write: Callable[[Desk, Person, int], Record]) -> _Change:
        """A record of which everybody has one, mostly changed and seldom made."""
        person = self._person()
        operation = "create" if self._random() < 0.3 else "update"
        record = records.to_json(write(self._desk, person, self._now))
        return _Change(person, operation, collection, "self", record, self._desk.cids.record())

    def _post(self) -> _Change:
        person, desk = self._person(), self._desk
        parent = desk.posts.pick() if desk.chance(0.38) else None
        record = records.to_json(posts.post(desk, person, self._now, parent))
        change = self._create(person, POST, record, (parent.root or parent) if parent else None)
        if parent is None and desk.chance(0.06):
            self._gate(change)
        return change

    def _gate(self, post: _Change) -> None:
        """A gate goes with its post: the same key, the same commit."""
        ref = Ref(post.person, POST, post.rkey, post.cid)
        if self._random() < 0.6:
            collection, record = "app.bsky.feed.threadgate", records.thread_gate(self._desk, self._now, ref)
        else:
            collection, record = "app.bsky.feed.postgate", records.post_gate(self._desk, self._now, ref)
        gate = _Change(
            post.person, "create", collection, post.rkey, records.to_json(record), self._desk.cids.record()
        )
        # `event` asks for the rev of the post right after this, so it is known already.
        self._same_commit = (gate, max(post.person.last_rev + 1, self._now))

    def _edit_post(self) -> _Change:
        """The same key with another text; others go on referring to the old CID, as in real life."""
        pool = self._pools[POST]
        ref = pool.take()
        if ref.person.away:
            return self._like()
        record = records.to_json(posts.post(self._desk, ref.person, self._now, None))
        cid = self._desk.cids.record()
        pool.add(ref._replace(cid=cid))
        return _Change(ref.person, "update", POST, ref.rkey, record, cid)

    def _delete(self, collection: str) -> _Change:
        pool = self._pools[collection]
        # The first likes need posts to like, so a few always stay.
        if len(pool) <= _OLDER_POSTS // 10:
            return self._like()
        ref = pool.take()
        return _Change(ref.person, "delete", collection, ref.rkey)

    def _list_item(self) -> _Change:
        lists = self._pools[LIST]
        if not len(lists):
            return self._long(LIST, records.new_list)
        target = lists.pick()
        record = records.to_json(records.list_item(self._desk, self._now, target))
        return self._create(target.person, LIST_ITEM, record)

    def _list_block(self) -> _Change:
        lists = self._pools[LIST]
        if not len(lists):
            return self._long(LIST, records.new_list)
        record = records.to_json(records.list_block(self._desk, self._now, lists.pick()))
        return self._create(self._person(), "app.bsky.graph.listblock", record)

    def _starter_pack(self) -> _Change:
        lists = self._pools[LIST]
        if not len(lists):
            return self._long(LIST, records.new_list)
        target = lists.pick()
        record = records.to_json(records.starter_pack(self._desk, target.person, self._now, target))
        return self._create(target.person, STARTER_PACK, record)

    def _notice_time(self, person: Person) -> str:
        """To the millisecond, and never twice the same for a person: it is all that tells them apart."""
        person.last_notice = max(person.last_notice + 1, self._now // 1000)
        return self._desk.iso(person.last_notice * 1000)

    def _identity(self) -> tuple[str, str, str]:
        person = self._person()
        self._relay_seq += 1 + int(self._random() * 5)
        handle = f'"handle":"{person.handle}",' if self._random() < 0.7 else ""
        body = f'"did":"{person.did}",{handle}"seq":{self._relay_seq},"time":"{self._notice_time(person)}"'
        return "identity", person.did, body

    def _account(self) -> tuple[str, str, str]:
        self._relay_seq += 1 + int(self._random() * 5)
        back = bool(self._away) and (len(self._away) >= len(self.people) // 20 or self._random() < 0.4)
        if back:
            person = self._away.pop(int(self._random() * len(self._away)))
            person.away = False
            status = ""
        else:
            person = self._person()
            # In a village of twenty nobody goes: there would soon be nobody left to speak.
            person.away = self._random() < 0.8 and len(self._away) < len(self.people) // 20
            choices = ("deactivated", "takendown", "deleted", "suspended")
            status = f',"status":"{self._desk.one_of(choices)}"' if person.away else ""
            if person.away:
                self._away.append(person)
        active = "false" if person.away else "true"
        body = (
            f'"active":{active},"did":"{person.did}","seq":{self._relay_seq}{status},'
            f'"time":"{self._notice_time(person)}"'
        )
        return "account", person.did, body
