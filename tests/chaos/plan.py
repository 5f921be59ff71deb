"""Which fault comes when: a function of the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Seconds. A fault ends soon enough for the next to meet a worker that is at work again.
_LENGTHS = (0.5, 8.0)
_PAUSES = (0.5, 6.0)
_SHARE_WITH_KILL = 0.2


@dataclass(frozen=True, slots=True)
class Order:
    """One fault: seconds to wait before it, and for which it lasts where it has a length."""

    kind: str
    pause: float
    length: float
    kill: bool
    """Whether the worker is killed in the middle of it as well."""
    number: int
    """For whatever else is to be chosen."""


def orders(seed: int, kinds: Sequence[str]) -> Iterator[Order]:
    """Endless: all kinds in one random order after the other."""
    dice = random.Random(seed)
    while True:
        for kind in dice.sample(kinds, len(kinds)):
            yield Order(
                kind,
                dice.uniform(*_PAUSES),
                dice.uniform(*_LENGTHS),
                dice.random() < _SHARE_WITH_KILL,
                dice.randrange(10_000),
            )
