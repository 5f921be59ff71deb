"""`python -m tests.chaos`: run a real worker, node and Jetstream under random faults, then compare."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.defective_worker import Defect
from tests.chaos.deletion_model import Deletions
from tests.chaos.run import RunOptions, run


def main() -> int:
    """Return 0 without lost events and duplicates; with --control, 0 if the oracle finds the defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=600, help="duration of the faults (default: 600)")
    parser.add_argument("--seed", type=int, help="random seed of faults and events (default: random)")
    parser.add_argument("--rate", type=float, default=2000, help="events per second (default: 2000)")
    parser.add_argument(
        "--control",
        nargs="?",
        choices=[one.value for one in Defect],
        const=Defect.DUPLICATE.value,
        help="use a worker with this defect, to test the oracle (default: duplicate)",
    )
    parser.add_argument(
        "--deletions",
        type=Deletions,
        choices=list(Deletions),
        metavar="|".join(one.value for one in Deletions),
        default=Deletions.APPLY,
        help="how the worker handles deletions; apply-at-once redacts deleted accounts without a delay "
        "(default: apply)",
    )
    parser.add_argument("--folder", type=Path, help="keep all files in this new folder")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"chaos for {options.seconds:.0f} s at {options.rate:.0f} events/s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="skeetslurper-chaos-") as temporary:
        report = run(
            options.folder or Path(temporary),
            RunOptions(
                seconds=options.seconds,
                seed=seed,
                rate=options.rate,
                defect=Defect(options.control) if options.control else None,
                deletions=options.deletions,
            ),
        )
    print("\n".join(report.lines()))
    if options.control:
        return 1 if report.verdict.passed else 0
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
