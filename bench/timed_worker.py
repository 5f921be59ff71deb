"""The worker, instrumented: it writes to $BENCH_TIMES when each event was acknowledged and generated.

It computes no trends: those of the days that the benchmark has filled would take the CPU that it measures.

A program of its own, because it replaces a method of the worker and runs in another process.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from slurp import service
from slurp.cli import main
from slurp.events.frames import BadFrame, parse
from slurp.pipeline.ack_tracker import BatchAck
from slurp.pipeline.batches import Batch
from slurp.pipeline.progress import BatchOutcome, Counters

_acknowledged = Counters.acknowledged
_out = Path(os.environ["BENCH_TIMES"]).open("w", encoding="ascii")  # noqa: SIM115 - open until the exit


def acknowledged(self: Counters, batch: Batch, outcome: BatchOutcome, ack: BatchAck) -> None:
    now = time.time()
    _acknowledged(self, batch, outcome, ack)
    for frame in batch.frames:
        try:
            _out.write(f"{now:.6f} {parse(frame)['time_us'] / 1e6:.6f}\n")
        except BadFrame:
            continue


if __name__ == "__main__":
    Counters.acknowledged = acknowledged  # type: ignore[method-assign]
    service.keep_trends = lambda config, status, *others: status.stop.wait()  # type: ignore[attr-defined]
    code = main()
    _out.close()
    sys.exit(code)
