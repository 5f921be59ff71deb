"""The accounts of the simulated network, and the records that later events refer to."""

from __future__ import annotations

import random
from itertools import accumulate
from typing import NamedTuple

from slurp.simulator import sample_texts
from slurp.simulator.identifiers import base32_text


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
    )

    def __init__(self, number: int, rng: random.Random, lang: str) -> None:
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


def create_accounts(count: int, rng: random.Random) -> list[Account]:
    """Return `count` accounts; their languages have the shares given in `sample_texts`."""
    langs = list(sample_texts.LANGUAGES)
    weights = list(accumulate(share for share, _, _ in sample_texts.LANGUAGES.values()))
    chosen = rng.choices(langs, cum_weights=weights, k=count)
    return [Account(number, rng, lang) for number, lang in enumerate(chosen, 1)]
