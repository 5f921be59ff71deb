"""One chaos run from start to verdict, and its report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slurp.elastic.client import REQUEST_TIMEOUT
from tests.chaos.defective_worker import Defect
from tests.chaos.deletion_model import Deletions
from tests.chaos.environment import ChaosEnvironment
from tests.chaos.faults import KINDS, WITHOUT_REPLAY, inject
from tests.chaos.oracle import Verdict
from tests.chaos.schedule import schedule
from tests.chaos.worker_runs import WorkerExit

MAX_MEMORY = 250_000_000
_SETTLE_TIMEOUT = 600.0
_REPLAY_TIMEOUT = 900.0


@dataclass(frozen=True)
class RunOptions:
    """Duration, load and faults of a run."""

    seconds: float
    seed: int
    rate: float = 2000
    """Events per second."""
    kinds: Sequence[str] = tuple(KINDS)
    defect: Defect | None = None
    """Use a defective worker, to test the oracle."""
    deletions: Deletions = Deletions.APPLY
    deletion_timeout: float = 600
    """Seconds until deletions that are not applied count as failures. After ten minutes of faults 150,000
    documents or more are to be hidden or shown, at about a thousand per second beside everything else."""
    replay: bool = True
    """Read all events again after the comparison: no document may change."""
    idle_timeout: float = REQUEST_TIMEOUT + 30
    """Seconds without a new document after which missing events count as lost. Requests on a frozen
    connection are in flight until the client times out; then they are sent again."""
    all_kinds_share: float = 0.85
    """Share of the time with faults of all kinds; see `schedule`."""
    least_faults: int = 0
    """Faults of all kinds to inject, even if that takes longer than `seconds`: on a busy machine a node needs
    half a minute to start."""


@dataclass(frozen=True)
class Report:
    """The result of a run."""

    seed: int
    faults: Counter[str]
    published: int
    verdict: Verdict
    exits: Sequence[WorkerExit]
    unexpected_dead_letters: int
    peak_memory: int
    """Bytes."""
    replay_failure: str = ""
    """What was wrong after a full replay."""

    @property
    def failures(self) -> list[str]:
        """Descriptions of all broken promises; empty when the run passed."""
        verdict = self.verdict
        counts = [
            (verdict.lost, "lost"),
            (verdict.duplicates, "duplicates"),
            (verdict.unknown, "never published"),
            (verdict.wrong_id, "under another `_id`"),
            (verdict.wrongly_quarantined, "quarantined without a reason"),
            (verdict.unredacted, "deleted or updated, but not redacted"),
            (verdict.wrongly_redacted, "redacted without a reason"),
            (verdict.bad_tombstones, "tombstones with another reason or content"),
            (verdict.not_hidden, "of inactive accounts, but not hidden"),
            (verdict.wrongly_hidden, "hidden without a reason"),
            (sum(not one.expected for one in self.exits), "unexpected exits of the worker"),
            (self.unexpected_dead_letters, "dead letters that are not injected garbage"),
            (sum(one.adds_up is False for one in self.exits), "worker runs whose counters do not add up"),
        ]
        failures = [f"{count:,} {text}" for count, text in counts if count]
        if self.replay_failure:
            failures.append(self.replay_failure)
        if self.peak_memory > MAX_MEMORY:
            failures.append(f"{self.peak_memory / 1e6:.0f} MB of memory, more than {MAX_MEMORY / 1e6:.0f}")
        if self.exits[-1].code != 0:
            failures.append(f"the last exit code is {self.exits[-1].code}: {self.exits[-1].last_line}")
        return failures

    def lines(self) -> Iterable[str]:
        """Yield the report as text."""
        verdict = self.verdict
        yield f"faults injected  {self.faults.total()} of {len(self.faults)} kinds (seed {self.seed})"
        yield from (f"    {count:>3} × {kind}" for kind, count in sorted(self.faults.items()))
        shown = [one for one in self.exits if not (one.requested and one.expected)]
        yield f"worker runs      {len(self.exits)}, not requested or unexpected exits {len(shown)}"
        yield from (f"    exit code {one.code}: {one.last_line}" for one in shown)
        yield f"events           {self.published:,} published, {verdict.documents:,} documents"
        yield f"quarantined      {verdict.quarantined:,}"
        yield f"redacted         {verdict.redacted:,}, hidden {verdict.hidden:,}"
        yield f"lost             {verdict.lost:,}"
        yield f"duplicates       {verdict.duplicates:,}"
        yield f"peak memory      {self.peak_memory / 1e6:.0f} MB"
        yield "verdict          " + ("; ".join(self.failures) or "no lost events, no duplicates")


def run(folder: Path, options: RunOptions) -> Report:
    """Inject faults, wait until every event is indexed, compare, and return the report."""
    injected: Counter[str] = Counter()
    with ChaosEnvironment(
        folder, seed=options.seed, rate=options.rate, deletions=options.deletions, defect=options.defect
    ) as environment:
        environment.begin()
        began = time.monotonic()

        def elapsed() -> float:
            return time.monotonic() - began

        def is_final_phase(number: int) -> bool:
            late = elapsed() >= options.seconds * options.all_kinds_share
            return late and number >= options.least_faults

        faults = schedule(options.seed, options.kinds, WITHOUT_REPLAY, is_final_phase)
        for number, fault in enumerate(faults):
            time.sleep(fault.pause)
            if (at := elapsed()) >= options.seconds and number >= options.least_faults:
                break
            also = ", worker killed meanwhile" if fault.kill else ""
            print(f"{at:6.1f} s  {fault.kind}{also}", flush=True)
            inject(environment, fault)
            injected[fault.kind] += 1
            injected["worker killed during another fault"] += fault.kill
        print(f"{elapsed():6.1f} s  faults ended; waiting for the last event", flush=True)
        environment.settle(_SETTLE_TIMEOUT, options.idle_timeout)
        environment.wait_until_applied(options.deletion_timeout)
        environment.runs.finish()
        print(f"{elapsed():6.1f} s  comparing", flush=True)
        verdict = environment.compare()
        replay_failure = _replay(environment) if options.replay and options.defect is None else ""
        return Report(
            seed=options.seed,
            faults=+injected,
            published=len(environment.published),
            verdict=verdict,
            exits=environment.runs.exits,
            unexpected_dead_letters=environment.unexpected_dead_letters(),
            peak_memory=environment.runs.peak_memory,
            replay_failure=replay_failure,
        )


def _replay(environment: ChaosEnvironment) -> str:
    """Read all events again; return what was wrong, an empty string if no document changed."""
    before = environment.digest()
    if code := environment.replay(_REPLAY_TIMEOUT):
        return f"exit code {code} of a full replay"
    after = environment.digest()
    return "" if after == before else f"a full replay changed documents: {before} became {after}"
