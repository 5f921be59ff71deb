"""`python -m tests.chaos`: a real worker, node and Jetstream under random faults, then the oracle."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run
from tests.worker import PROGRAM

CONTROL = Path(__file__).with_name("control.py")
LOSER = Path(__file__).with_name("loser.py")


def main() -> int:
    """0: nothing lost, nothing double. With --control 0 when the oracle finds the doubles."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=600, help="how long faults happen (default: 600)")
    parser.add_argument("--seed", type=int, help="the same seed is the same faults and events")
    parser.add_argument("--rate", type=float, default=2000, help="events a second (default: 2000)")
    parser.add_argument(
        "--control", action="store_true", help="a worker that doubles events: the oracle has to see it"
    )
    parser.add_argument("--folder", type=Path, help="keep all files in this new folder")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"chaos for {options.seconds:.0f} s at {options.rate:.0f} events/s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="skeetslurper-chaos-") as temporary:
        report = run(
            options.folder or Path(temporary),
            seconds=options.seconds,
            seed=seed,
            rate=options.rate,
            program=CONTROL if options.control else PROGRAM,
        )
    print("\n".join(report.lines()))
    if options.control:
        return 0 if report.verdict.double else 1
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
