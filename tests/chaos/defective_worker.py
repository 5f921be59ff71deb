"""The worker with a defect that the oracle must detect: `defective_worker.py --defect=lose OPTIONS...`.

`duplicate`: bulk operation `index` with automatic ids in place of `create`.
`lose`: every second batch is acknowledged without being sent.
`skip-deletion`: one in a thousand deletions, updates and account events is stored but not applied.
"""

from __future__ import annotations

import enum
import itertools
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from slurp.cli import main
from slurp.elastic.bulk import Action
from slurp.events.identity import event_id
from slurp.pipeline import indexer
from slurp.pipeline.ack_tracker import BatchAck
from slurp.pipeline.batches import Batch
from slurp.pipeline.progress import BatchOutcome

PROGRAM = Path(__file__)


class Defect(enum.Enum):
    """What the worker does wrong."""

    DUPLICATE = "duplicate"
    LOSE = "lose"
    SKIP_DELETION = "skip-deletion"

    @property
    def option(self) -> str:
        """The first argument of this program."""
        return f"--defect={self.value}"


_LOSE_EVERY = 2
_SKIP_EVERY = 1000
_index_batch = indexer.Indexer._index
_numbers = itertools.count(1)


def _create_duplicates(index: str, doc_id: str, body: bytes) -> Action:
    return f'{{"index":{{"_index":"{index}"}}}}\n'.encode() + body


def _lose_batches(self: indexer.Indexer, batch: Batch) -> tuple[BatchOutcome, BatchAck]:
    if next(_numbers) % _LOSE_EVERY:
        return _index_batch(self, batch)
    count = len(batch.frames)
    return BatchOutcome(indexed=count), BatchAck(batch.position, None)


def _skip_deletions(
    removal_of: Callable[[Mapping[str, Any], int], Any],
) -> Callable[[Mapping[str, Any], int], Any]:
    """Return `removal_of`, but for each thousandth event that removes something None, also when it is read
    again."""
    lock = threading.Lock()
    removals = itertools.count(1)
    skipped: set[str] = set()

    def skipping(event: Mapping[str, Any], now_us: int) -> Any:
        if (removal := removal_of(event, now_us)) is None:
            return None
        doc_id = event_id(event)
        with lock:
            if doc_id not in skipped and next(removals) % _SKIP_EVERY == 0:
                skipped.add(doc_id)
            return None if doc_id in skipped else removal

    return skipping


def _apply(defect: Defect) -> None:
    match defect:
        case Defect.DUPLICATE:
            indexer.create = _create_duplicates  # type: ignore[attr-defined]
        case Defect.LOSE:
            indexer.Indexer._index = _lose_batches  # type: ignore[method-assign]
        case Defect.SKIP_DELETION:
            names = vars(indexer)
            names["removal_of"] = _skip_deletions(names["removal_of"])


if __name__ == "__main__":
    _apply(Defect(sys.argv.pop(1).removeprefix("--defect=")))
    sys.exit(main())
