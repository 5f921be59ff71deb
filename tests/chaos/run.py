"""One chaos run from begin to verdict, and what it prints."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from slurp.elastic.client import REQUEST_TIMEOUT
from tests.chaos.faults import GENTLE, KINDS, carry_out
from tests.chaos.oracle import ItemClass
from tests.chaos.plan import Order, orders
from tests.chaos.runs import Ended
from tests.chaos.stage import Stage
from tests.worker import PROGRAM

MAX_MEMORY = 250_000_000
_SETTLES_WITHIN = 600.0
# A frozen connection holds what is under way on it until the client gives it up; then it is sent again.
_PATIENCE = REQUEST_TIMEOUT + 30
# The share of the time that takes all kinds of faults.
_WILD = 0.8


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    seed: int
    faults: Counter[str]
    published: int
    verdict: ItemClass
    lives: Sequence[Ended]
    strange_letters: int
    peak: int

    @property
    def failures(self) -> list[str]:
        """What must not be, in words; empty when all held."""
        verdict = self.verdict
        wrong = [
            (verdict.lost, "lost"),
            (verdict.double, "double"),
            (verdict.strange, "never published"),
            (verdict.misnamed, "under another `_id`"),
            (verdict.wronged, "in quarantine without a reason"),
            (sum(not one.as_it_should for one in self.lives), "lives that ended as none should"),
            (self.strange_letters, "dead letters that are no garbage"),
            (sum(one.adds_up is False for one in self.lives), "lives whose counters do not add up"),
        ]
        told = [f"{count:,} {what}" for count, what in wrong if count]
        if self.peak > MAX_MEMORY:
            told.append(f"{self.peak / 1e6:.0f} MB of memory, more than {MAX_MEMORY / 1e6:.0f}")
        if self.lives[-1].code != 0:
            told.append(f"the last life ended with {self.lives[-1].code}: {self.lives[-1].said}")
        return told

    def lines(self) -> Iterable[str]:
        verdict = self.verdict
        yield f"faults injected  {self.faults.total()} of {len(self.faults)} kinds (seed {self.seed})"
        yield from (f"    {count:>3} × {kind}" for kind, count in sorted(self.faults.items()))
        unasked = [one for one in self.lives if not (one.asked and one.as_it_should)]
        yield f"worker lives     {len(self.lives)}, ended by itself or otherwise than asked {len(unasked)}"
        yield from (f"    exit {one.code}: {one.said}" for one in unasked)
        yield f"events           {self.published:,} published, {verdict.documents:,} documents"
        yield f"quarantined      {verdict.quarantined:,}"
        yield f"lost             {verdict.lost:,}"
        yield f"double           {verdict.double:,}"
        yield f"peak memory      {self.peak / 1e6:.0f} MB"
        yield "verdict          " + ("; ".join(self.failures) or "every event is there, once")


def _plan(seed: int, kinds: Sequence[str], calm: Callable[[], bool]) -> Iterator[Order]:
    """All kinds, and at last those alone after which nothing is read again: that would mend a loss."""
    yield from takewhile(lambda _: not calm(), orders(seed, kinds))
    gentle = [kind for kind in kinds if kind in GENTLE] or kinds
    yield from (replace(order, kill=False) for order in orders(seed, gentle))


def run(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    rate: float = 2000,
    kinds: Sequence[str] = tuple(KINDS),
    program: Path = PROGRAM,
    outage_log: float = _PATIENCE,
    wild: float = _WILD,
) -> Report:
    """Faults for `seconds`, then peace until every event is in the index, then the verdict."""
    done: Counter[str] = Counter()
    with Stage(folder, seed=seed, rate=rate, program=program) as stage:
        stage.begin()
        began = time.monotonic()
        for order in _plan(seed, kinds, lambda: time.monotonic() - began >= seconds * wild):
            time.sleep(order.pause)
            at = time.monotonic() - began
            if at >= seconds:
                break
            also = ", and the worker killed" if order.kill else ""
            print(f"{at:6.1f} s  {order.kind}{also}", flush=True)
            carry_out(stage, order)
            done[order.kind] += 1
            done["worker killed in the middle of another fault"] += order.kill
        print(f"{time.monotonic() - began:6.1f} s  no more faults; waiting for the last event", flush=True)
        stage.settle(_SETTLES_WITHIN, outage_log)
        stage.runs.finish()
        print(f"{time.monotonic() - began:6.1f} s  comparing", flush=True)
        verdict = stage.classify()
        return Report(
            seed=seed,
            faults=+done,
            published=len(stage.published),
            verdict=verdict,
            lives=stage.runs.ended,
            strange_letters=stage.strange_letters(),
            peak=stage.runs.peak,
        )
