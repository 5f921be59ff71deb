"""The accounts of the simulated network, and the records that later events refer to."""

from __future__ import annotations

import random
from itertools import accumulate
from typing import NamedTuple

from slurp.simulator import sample_texts
from slurp.simulator.identifiers import base32_text

PROFILE = "app.bsky.actor.profile"

_DAY = 86_400_000_000


class Account:
    """An account, with the clocks that keep its revs and keys unique."""

    __slots__ = (
        "clock",
        "did",
        "handle",
        "inactive",
        "lang",
        "last_key",
        "last_notice_ms",
        "last_rev",
        "name",
        "rev_offset",
        "singletons",
    )

    def __init__(self, number: int, rng: random.Random, lang: str, *, odd_revs: bool = False) -> None:
        name, ascii_name = rng.choice(sample_texts.NAMES)
        self.name = name
        self.handle = f"{ascii_name}{number}.example.com"
        # One in a hundred uses did:web, which is longer and has dots.
        self.did = f"did:web:{self.handle}" if rng.random() < 0.01 else "did:plc:" + base32_text(rng, 24)
        self.lang = lang
        self.clock = rng.randrange(1024)
        self.last_rev = 0
        self.last_key = 0
        self.last_notice_ms = 0
        self.inactive = False
        self.rev_offset = _odd_offset(rng) if odd_revs else 0
        """Microseconds by which the clock of its server is off: the same for all its revs."""
        self.singletons = {PROFILE} if rng.random() < 0.7 else set()
        """Collections of which its only record exists, with the key `self`."""

    def notice_ms(self, now_us: int) -> int:
        """Return the time of an identity or account event, unique per account to distinguish the events."""
        self.last_notice_ms = max(self.last_notice_ms + 1, now_us // 1000)
        return self.last_notice_ms


class RecordRef(NamedTuple):
    """An existing record, as other records refer to it."""

    account: Account
    collection: str
    rkey: str
    cid: str
    root: RecordRef | None = None
    """Of a post within a thread: the first post. Of a repost: the reposted post."""

    @property
    def uri(self) -> str:
        return f"at://{self.account.did}/{self.collection}/{self.rkey}"


class RecordPool:
    """Some existing records of one collection, to be liked, answered, updated and deleted."""

    def __init__(self, rng: random.Random, size: int = 4096) -> None:
        self._random = rng.random
        self._size = size
        self._refs: list[RecordRef] = []

    def __len__(self) -> int:
        return len(self._refs)

    def add(self, ref: RecordRef) -> None:
        """Add a record; in a full pool it replaces a random one."""
        if len(self._refs) < self._size:
            self._refs.append(ref)
        else:
            self._refs[int(self._random() * self._size)] = ref

    def pick(self) -> RecordRef:
        """Return a random record; few are very popular, most are not."""
        return self._refs[int(self._random() ** 3 * len(self._refs))]

    def take(self) -> RecordRef:
        """Remove a random record and return it."""
        index = int(self._random() * len(self._refs))
        ref = self._refs[index]
        last = self._refs.pop()
        if index < len(self._refs):
            self._refs[index] = last
        return ref


class Population:
    """The accounts that write, the popular ones first. Their number is constant."""

    def __init__(self, count: int, rng: random.Random, odd_revs: float) -> None:
        """A share `odd_revs` of the accounts, evenly distributed, are on servers with a wrong clock."""
        self._rng = rng
        self._odd_revs = odd_revs
        self._phase = rng.random()
        self._langs = list(sample_texts.LANGUAGES)
        self._weights = list(accumulate(share for share, _, _ in sample_texts.LANGUAGES.values()))
        self._created = 0
        self.accounts = [self.create() for _ in range(count)]

    def create(self) -> Account:
        """Return a new account; the languages have the shares given in `sample_texts`."""
        (lang,) = self._rng.choices(self._langs, cum_weights=self._weights)
        before = int(self._created * self._odd_revs + self._phase)
        self._created += 1
        odd_revs = int(self._created * self._odd_revs + self._phase) > before
        return Account(self._created, self._rng, lang, odd_revs=odd_revs)

    def replace(self, account: Account) -> Account:
        """Let a new account write in place of `account`, and return it."""
        new = self.create()
        new.singletons.clear()
        self.accounts[self.accounts.index(account)] = new
        return new


def _odd_offset(rng: random.Random) -> int:
    """Return two days to three years in microseconds, mostly negative."""
    offset = int((2 + rng.random() ** 2 * 1100) * _DAY)
    return -offset if rng.random() < 0.8 else offset
