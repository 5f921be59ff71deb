"""The worker, but with `index` and automatic ids in place of `create`: what the oracle must see through."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from slurp.cli import main
from slurp.elastic.bulk import Action
from slurp.pipeline import indexer


def _index(index: str, doc_id: str, body: bytes) -> Action:
    return f'{{"index":{{"_index":"{index}"}}}}\n'.encode() + body


if __name__ == "__main__":
    indexer.create = _index  # type: ignore[attr-defined]
    sys.exit(main())
