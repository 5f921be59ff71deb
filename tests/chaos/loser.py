"""The worker, but every second batch is answered for and never sent: a loss that the oracle must see."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from slurp.cli import main
from slurp.pipeline.batches import Batch
from slurp.pipeline.indexer import Indexer
from slurp.pipeline.progress import BatchAck, Outcome

_EVERY = 2
_index = Indexer._index
_numbers = itertools.count(1)


def _lose(self: Indexer, batch: Batch) -> tuple[Outcome, BatchAck]:
    if next(_numbers) % _EVERY:
        return _index(self, batch)
    count = len(batch.frames)
    return Outcome(indexed=count), BatchAck(batch.position, None)


if __name__ == "__main__":
    Indexer._index = _lose  # type: ignore[method-assign]
    sys.exit(main())
