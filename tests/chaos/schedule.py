"""The sequence of faults of a run: a function of the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

# Seconds. A fault ends soon enough that the next one meets a worker that is running again.
_LENGTHS = (0.5, 8.0)
_PAUSES = (0.5, 6.0)
_SHARE_WITH_KILL = 0.2


@dataclass(frozen=True, slots=True)
class ScheduledFault:
    """One fault: the pause before it and its length, both in seconds."""

    kind: str
    pause: float
    length: float
    kill: bool
    """Whether the worker is also killed in the middle of it."""
    number: int
    """A random number for the details of the fault."""


def random_faults(seed: int, kinds: Sequence[str]) -> Iterator[ScheduledFault]:
    """Yield faults without end: all kinds in one random order after the other."""
    rng = random.Random(seed)
    while True:
        for kind in rng.sample(kinds, len(kinds)):
            yield ScheduledFault(
                kind,
                rng.uniform(*_PAUSES),
                rng.uniform(*_LENGTHS),
                rng.random() < _SHARE_WITH_KILL,
                rng.randrange(10_000),
            )


def schedule(
    seed: int, kinds: Sequence[str], without_replay: Sequence[str], is_final_phase: Callable[[int], bool]
) -> Iterator[ScheduledFault]:
    """Yield faults of all kinds, and in the final phase only those that cause no replay.

    A replay would repair a loss before the oracle could detect it. `is_final_phase` gets the number of faults
    so far.
    """
    for number, fault in enumerate(random_faults(seed, kinds)):
        if is_final_phase(number):
            break
        yield fault
    final_kinds = [kind for kind in kinds if kind in without_replay] or kinds
    yield from (replace(fault, kill=False) for fault in random_faults(seed, final_kinds))
