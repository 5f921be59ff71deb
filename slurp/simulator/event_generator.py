"""An invented social network: an endless sequence of distinct events, reproducible by seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from slurp.simulator import posts, records
from slurp.simulator.account_life import AccountChange, AccountLife
from slurp.simulator.accounts import PROFILE, Account, Population, RecordPool, RecordRef
from slurp.simulator.event_store import StoredEvent
from slurp.simulator.identifiers import tid
from slurp.simulator.options import NetworkOptions
from slurp.simulator.records import Record, RecordContext

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
"""Posts that exist before the first event, for the first likes."""
_RECREATED = (POST, LIKE, FOLLOW)
_DELETED = 512
"""Deleted records that may be created again."""


class Change(NamedTuple):
    """One operation on a record, before a rev is assigned."""

    account: Account
    operation: str
    collection: str
    rkey: str
    record: str = ""
    cid: str = ""


Action = Callable[[], Change | AccountChange | tuple[str, str, str]]
"""Returns a change, or (kind, did, body) of an identity event."""


class EventGenerator:
    """Generates events one by one. Not thread-safe: one producer at a time."""

    def __init__(self, seed: int, options: NetworkOptions | None = None) -> None:
        options = options or NetworkOptions()
        if options.accounts < 2:
            raise ValueError(f"invalid number of accounts: {options.accounts} (at least 2)")
        self._rng = random.Random(seed)
        self._random = self._rng.random
        self.population = Population(options.accounts, self._rng, options.odd_revs)
        self._backdated = options.backdated
        self._cursors = options.cursors
        self._pools: defaultdict[str, RecordPool] = defaultdict(lambda: RecordPool(self._rng))
        self._deleted = RecordPool(self._rng, _DELETED)
        self._context = RecordContext(self._rng, self.population.accounts, self._pools[POST])
        self._life = AccountLife(self.population, self._rng, self._active_account)
        self._relay_seq = 31_000_000_000
        self._now = 0
        # A second operation of the same commit: the same account, the same rev.
        self._same_commit: tuple[Change, int] | None = None
        self._slots = self._make_slots()

    @property
    def now_us(self) -> int:
        """When the current event was written."""
        return self._now

    def event(self, time_us: int, cursor: int, action: Action | None = None) -> StoredEvent:
        """Return the next event, received by the server at `time_us`, or the one that `action` makes."""
        if not self._now:
            self._create_old_posts(time_us)
        shown = time_us
        if self._backdated and self._random() < self._backdated:
            shown -= int((1 + self._random() * 72) * _DAY / 24)
        envelope = f'"time_us":{shown},"cursor":{cursor}' if self._cursors else f'"time_us":{shown}'
        # When it was written: mostly a fraction of a second ago.
        self._now = time_us - 20_000 - int(self._random() ** 3 * 2_000_000)
        if self._same_commit is not None and action is None:
            (change, rev), self._same_commit = self._same_commit, None
            frame, did, collection = self._commit(change, rev, envelope)
        else:
            made = action() if action else self._slots[int(self._random() * 10_000)]()
            if isinstance(made, Change):
                frame, did, collection = self._commit(made, self._next_rev(made.account), envelope)
            else:
                kind, did, body = self._account_body(made) if isinstance(made, AccountChange) else made
                collection = ""
                frame = f'{{"did":"{did}",{envelope},"kind":"{kind}","{kind}":{{{body}}}}}'
        return StoredEvent(frame.encode(), did, collection, shown, cursor if self._cursors else None, time_us)

    def _commit(self, change: Change, rev: int, envelope: str) -> tuple[str, str, str]:
        account, operation, collection, rkey, record, cid = change
        body = f',"record":{record},"cid":"{cid}"' if record else ""
        shown = tid(rev + account.rev_offset, account.clock)
        frame = (
            f'{{"did":"{account.did}",{envelope},"kind":"commit","commit":{{"rev":"{shown}",'
            f'"operation":"{operation}","collection":"{collection}","rkey":"{rkey}"{body}}}}}'
        )
        return frame, account.did, collection

    def _next_rev(self, account: Account) -> int:
        account.last_rev = max(account.last_rev + 1, self._now)
        return account.last_rev

    def _next_key(self, account: Account) -> str:
        """Return an unused record key of the account; records are written shortly before their commit."""
        account.last_key = max(account.last_key + 1, self._now - int(self._random() * 400_000))
        return tid(account.last_key, account.clock)

    def _create_old_posts(self, time_us: int) -> None:
        for _ in range(_OLDER_POSTS):
            self._now = time_us - int((1 + self._random() * 24) * _DAY / 24)
            account = self._context.random_account()
            rkey = tid(self._now, self._rng.randrange(1024))
            self._context.posts.add(RecordRef(account, POST, rkey, self._context.cids.record()))

    # The events by kind.

    def _make_slots(self) -> list[Action]:
        """Return ten thousand slots, filled in the proportions of the real network."""
        shares: list[tuple[int, Action]] = [
            (1340, self._post),
            (940, lambda: self._like_or_repost(REPOST)),
            (940, self._follow),
            (240, self._block),
            (550, lambda: self._delete(LIKE)),
            (110, lambda: self._delete(POST)),
            (90, lambda: self._delete(FOLLOW)),
            (60, lambda: self._delete(REPOST)),
            (15, lambda: self._delete(BLOCK)),
            (10, lambda: self._delete(LIST_ITEM)),
            (8, lambda: self._delete("fm.teal.alpha.feed.play")),
            (4, lambda: self._delete("xyz.statusphere.status")),
            (12, self._recreate),
            (50, self._edit_post),
            (110, lambda: self._singleton(PROFILE, records.profile, 0.04)),
            (16, lambda: self._singleton("app.bsky.actor.status", records.live_status, 0.3)),
            (40, lambda: self._singleton("fm.teal.alpha.actor.status", records.now_playing, 0.1)),
            (25, lambda: self._new("app.bsky.graph.list", records.new_list)),
            (110, self._list_item),
            (12, self._list_block),
            (8, self._starter_pack),
            (6, lambda: self._new("app.bsky.feed.generator", records.feed_generator)),
            (130, lambda: self._new("fm.teal.alpha.feed.play", records.play)),
            (70, lambda: self._new("xyz.statusphere.status", records.statusphere)),
            (12, lambda: self._new("com.whtwnd.blog.entry", records.blog_entry)),
            (15, lambda: self._new("social.pinksky.app.preference", records.preference)),
            (30, lambda: self._new("org.example.birdlog.sighting", records.bird_sighting)),
            (30, lambda: self._new("net.example.weather.reading", records.weather)),
            (25, self._identity),
            (20, lambda: self._life.next_change(self._now)),
        ]
        slots = [action for share, action in shares for _ in range(share)]
        return slots + [self._like] * (10_000 - len(slots))

    def _active_account(self) -> Account:
        while (account := self._context.random_account()).inactive:
            pass  # at most one in twenty is
        return account

    def _create(
        self,
        account: Account,
        collection: str,
        record: str,
        root: RecordRef | None = None,
        rkey: str | None = None,
    ) -> Change:
        rkey, cid = rkey or self._next_key(account), self._context.cids.record()
        self._pools[collection].add(RecordRef(account, collection, rkey, cid, root))
        return Change(account, "create", collection, rkey, record, cid)

    def _like(self) -> Change:
        return self._like_or_repost(LIKE)

    def _like_or_repost(self, collection: str) -> Change:
        """Create a like or repost; one in twelve is via a repost of the post."""
        via = self._via(REPOST, 0.08)
        target = self._context.posts.pick() if via is None or via.root is None else via.root
        record = records.like_or_repost(self._context, self._now, collection, target, via)
        return self._create(
            self._active_account(), collection, record, target if collection == REPOST else None
        )

    def _follow(self) -> Change:
        """Create a follow; one in twenty is via a starter pack."""
        record = records.follow_or_block(self._context, self._now, FOLLOW, self._via(STARTER_PACK, 0.05))
        return self._create(self._active_account(), FOLLOW, record)

    def _block(self) -> Change:
        return self._create(
            self._active_account(), BLOCK, records.follow_or_block(self._context, self._now, BLOCK)
        )

    def _via(self, collection: str, share: float) -> RecordRef | None:
        pool = self._pools[collection]
        return pool.pick() if self._random() < share and len(pool) else None

    def _new(self, collection: str, write: Callable[[RecordContext, Account, int], Record]) -> Change:
        account = self._active_account()
        return self._create(account, collection, records.to_json(write(self._context, account, self._now)))

    def new_record(self, account: Account, collection: str) -> Change:
        """Create a like, repost or post outside of the pools: no other record refers to it."""
        rkey, cid = self._next_key(account), self._context.cids.record()
        return Change(account, "create", collection, rkey, self._write(account, collection), cid)

    def _write(self, account: Account, collection: str) -> str:
        """Return the body of a post, follow, like or repost without a reference to its thread or a repost."""
        if collection == POST:
            return records.to_json(posts.post(self._context, account, self._now, None))
        if collection == FOLLOW:
            return records.follow_or_block(self._context, self._now, FOLLOW)
        return records.like_or_repost(self._context, self._now, collection, self._context.posts.pick(), None)

    def _recreate(self) -> Change:
        """Create a record again, with the key of one that was deleted."""
        if not len(self._deleted):
            return self._like()
        account, collection, rkey, _, root = self._deleted.take()
        if account.inactive:
            return self._like()
        return self._create(account, collection, self._write(account, collection), root, rkey)

    def _singleton(
        self,
        collection: str,
        write: Callable[[RecordContext, Account, int], Record],
        deleted: float,
    ) -> Change:
        """Create the only record that an account has of a collection; if it exists update it, or delete a
        share `deleted` of them."""
        account, operation = self._active_account(), "update"
        if collection not in account.singletons:
            account.singletons.add(collection)
            operation = "create"
        elif self._random() < deleted:
            account.singletons.remove(collection)
            return Change(account, "delete", collection, "self")
        record = records.to_json(write(self._context, account, self._now))
        return Change(account, operation, collection, "self", record, self._context.cids.record())

    def _post(self) -> Change:
        account, context = self._active_account(), self._context
        parent = context.posts.pick() if context.happens(0.38) else None
        record = records.to_json(posts.post(context, account, self._now, parent))
        change = self._create(account, POST, record, (parent.root or parent) if parent else None)
        if parent is None and context.happens(0.06):
            self._queue_gate(change)
        return change

    def _queue_gate(self, post: Change) -> None:
        """Queue a gate as the second operation of the commit of its post, with the same key."""
        ref = RecordRef(post.account, POST, post.rkey, post.cid)
        if self._random() < 0.6:
            collection, record = (
                "app.bsky.feed.threadgate",
                records.thread_gate(self._context, self._now, ref),
            )
        else:
            collection, record = "app.bsky.feed.postgate", records.post_gate(self._context, self._now, ref)
        gate = Change(
            post.account,
            "create",
            collection,
            post.rkey,
            records.to_json(record),
            self._context.cids.record(),
        )
        # `event` assigns the rev of the post right after this; it is computed the same way here.
        self._same_commit = (gate, max(post.account.last_rev + 1, self._now))

    def _edit_post(self) -> Change:
        """Update a post; other records still refer to the old CID, as on the real network."""
        pool = self._pools[POST]
        ref = pool.take()
        if ref.account.inactive:
            return self._like()
        record = records.to_json(posts.post(self._context, ref.account, self._now, None))
        cid = self._context.cids.record()
        pool.add(ref._replace(cid=cid))
        return Change(ref.account, "update", POST, ref.rkey, record, cid)

    def _delete(self, collection: str) -> Change:
        pool = self._pools[collection]
        # Likes need posts, so some are always kept.
        if len(pool) <= _OLDER_POSTS // 10:
            return self._like()
        ref = pool.take()
        if ref.account.inactive:
            return self._like()
        if collection in _RECREATED:
            self._deleted.add(ref)
        return Change(ref.account, "delete", collection, ref.rkey)

    def _list_item(self) -> Change:
        lists = self._pools[LIST]
        if not len(lists):
            return self._new(LIST, records.new_list)
        target = lists.pick()
        if target.account.inactive:
            return self._new(LIST, records.new_list)
        record = records.to_json(records.list_item(self._context, self._now, target))
        return self._create(target.account, LIST_ITEM, record)

    def _list_block(self) -> Change:
        lists = self._pools[LIST]
        if not len(lists):
            return self._new(LIST, records.new_list)
        record = records.to_json(records.list_block(self._context, self._now, lists.pick()))
        return self._create(self._active_account(), "app.bsky.graph.listblock", record)

    def _starter_pack(self) -> Change:
        lists = self._pools[LIST]
        if not len(lists):
            return self._new(LIST, records.new_list)
        target = lists.pick()
        if target.account.inactive:
            return self._new(LIST, records.new_list)
        record = records.to_json(records.starter_pack(self._context, target.account, self._now, target))
        return self._create(target.account, STARTER_PACK, record)

    def _identity(self) -> tuple[str, str, str]:
        account = self._active_account()
        self._relay_seq += 1 + int(self._random() * 5)
        handle = f'"handle":"{account.handle}",' if self._random() < 0.7 else ""
        when = self._context.iso(account.notice_ms(self._now) * 1000)
        return (
            "identity",
            account.did,
            f'"did":"{account.did}",{handle}"seq":{self._relay_seq},"time":"{when}"',
        )

    def _account_body(self, change: AccountChange) -> tuple[str, str, str]:
        self._relay_seq += 1 + int(self._random() * 5)
        did = change.account.did
        status = f',"status":"{change.status}"' if change.status else ""
        body = (
            f'"active":{"true" if change.active else "false"},"did":"{did}","seq":{self._relay_seq}{status},'
            f'"time":"{self._context.iso(change.time_ms * 1000)}"'
        )
        return "account", did, body
