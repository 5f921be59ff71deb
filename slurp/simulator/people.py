"""The people of the simulated network, and what is remembered of their records."""

from __future__ import annotations

import random
from itertools import accumulate
from typing import NamedTuple

from slurp.simulator import words
from slurp.simulator.stamps import base32_text


class Person:
    """An account, with the clocks that keep its revs and keys unique."""

    __slots__ = ("away", "clock", "did", "handle", "lang", "last_key", "last_notice", "last_rev", "name")

    def __init__(self, number: int, rng: random.Random, lang: str) -> None:
        name, ascii_name = rng.choice(words.NAMES)
        self.name = name
        self.handle = f"{ascii_name}{number}.example.com"
        # One in a hundred uses did:web, which is longer and has dots.
        self.did = f"did:web:{self.handle}" if rng.random() < 0.01 else "did:plc:" + base32_text(rng, 24)
        self.lang = lang
        self.clock = rng.randrange(1024)
        self.last_rev = 0
        self.last_key = 0
        self.last_notice = 0
        self.away = False


class Ref(NamedTuple):
    """A record that exists, as others refer to it."""

    person: Person
    collection: str
    rkey: str
    cid: str
    root: Ref | None = None
    """For a post within a thread: the post that opened it. For a repost: the post."""

    @property
    def uri(self) -> str:
        return f"at://{self.person.did}/{self.collection}/{self.rkey}"


class Pool:
    """Some existing records of one collection, to be liked, answered, updated and deleted."""

    def __init__(self, rng: random.Random, size: int = 4096) -> None:
        self._random = rng.random
        self._size = size
        self._refs: list[Ref] = []

    def __len__(self) -> int:
        return len(self._refs)

    def add(self, ref: Ref) -> None:
        if len(self._refs) < self._size:
            self._refs.append(ref)
        else:
            self._refs[int(self._random() * self._size)] = ref

    def pick(self) -> Ref:
        """One of them; few are very popular, most are not."""
        return self._refs[int(self._random() ** 3 * len(self._refs))]

    def take(self) -> Ref:
        """Any one of them, which is gone from now on."""
        index = int(self._random() * len(self._refs))
        ref = self._refs[index]
        last = self._refs.pop()
        if index < len(self._refs):
            self._refs[index] = last
        return ref


def populate(count: int, rng: random.Random) -> list[Person]:
    """`count` people; their languages have the shares given in `words`."""
    langs = list(words.LANGUAGES)
    weights = list(accumulate(share for share, _, _ in words.LANGUAGES.values()))
    chosen = rng.choices(langs, cum_weights=weights, k=count)
    return [Person(number, rng, lang) for number, lang in enumerate(chosen, 1)]
