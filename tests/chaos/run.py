"""One chaos run from begin to verdict, and what it prints."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import KINDS, carry_out
from tests.chaos.oracle import Verdict
from tests.chaos.plan import orders
from tests.chaos.runs import Ended
from tests.chaos.stage import Stage
from tests.worker import PROGRAM

MAX_MEMORY = 250_000_000
_SETTLES_WITHIN = 600.0


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    seed: int
    faults: Counter[str]
    published: int
    verdict: Verdict
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
        unasked = [one for one in self.lives if not one.asked]
        yield f"worker lives     {len(self.lives)}, ended by itself {len(unasked)}"
        yield from (f"    exit {one.code}: {one.said}" for one in unasked)
        yield f"events           {self.published:,} published, {verdict.documents:,} documents"
        yield f"quarantined      {verdict.quarantined:,}"
        yield f"lost             {verdict.lost:,}"
        yield f"double           {verdict.double:,}"
        yield f"peak memory      {self.peak / 1e6:.0f} MB"
        yield "verdict          " + ("; ".join(self.failures) or "every event is there, once")


def run(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    rate: float = 2000,
    kinds: Sequence[str] = tuple(KINDS),
    program: Path = PROGRAM,
) -> Report:
    """Faults for `seconds`, then peace until every event is in the index, then the verdict."""
    done: Counter[str] = Counter()
    with Stage(folder, seed=seed, rate=rate, program=program) as stage:
        stage.begin()
        began = time.monotonic()
        for order in orders(seed, kinds):
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
        stage.settle(_SETTLES_WITHIN)
        stage.runs.finish()
        print(f"{time.monotonic() - began:6.1f} s  comparing", flush=True)
        verdict = stage.judge()
        return Report(
            seed=seed,
            faults=+done,
            published=len(stage.published),
            verdict=verdict,
            lives=stage.runs.ended,
            strange_letters=stage.strange_letters(),
            peak=stage.runs.peak,
        )
