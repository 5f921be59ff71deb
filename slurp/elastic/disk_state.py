"""The state of `--max-disk` in the state index: the oldest day that is still indexed, and the last budget."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from elasticsearch import ConflictError

from slurp.elastic import state_documents
from slurp.elastic.client import Elastic
from slurp.elastic.days import date_of, day_of_date
from slurp.elastic.setup import create_own_index, index_exists
from slurp.elastic.templates import STATE_INDEX

_KIND = "disk"
_TIMEOUT = 15.0
# Attempts of one write, each after a conflict with another worker.
_MAX_ATTEMPTS = 10


class DiskState:
    """One document for each `--index`, shared by all its workers.

    `oldest_day` is never lowered; it is 0 before a day was deleted. `budget` is the `--max-disk` that was
    last enforced, in bytes; None before the first time. All methods raise the exceptions of the client.
    """

    def __init__(self, elastic: Elastic, index: str) -> None:
        self._elastic = elastic
        self._index = index
        self.oldest_day = 0
        self.budget: int | None = None

    def load(self) -> None:
        """Read the state; if the document was deleted, save the oldest day of this worker again."""
        document = self._find()
        source = document["_source"] if document else {}
        self.budget = source.get("max_disk_bytes")
        saved = _oldest_day(source)
        if saved < self.oldest_day:
            self._write({}, self.oldest_day)
        self.oldest_day = max(saved, self.oldest_day)

    def save(self, day: int) -> None:
        """Raise the oldest day to `day`. It takes effect after it is saved."""
        if day > self.oldest_day:
            self._write({}, day)
            self.oldest_day = day

    def save_budget(self, size: int) -> None:
        """Save the `--max-disk` that is enforced, in bytes."""
        self._write({"max_disk_bytes": size}, self.oldest_day)
        self.budget = size

    def _find(self) -> Any:
        client = self._elastic.client.options(request_timeout=_TIMEOUT)
        return state_documents.find(client, _KIND, self._index)

    def _write(self, change: dict[str, Any], day: int) -> None:
        """Change the document by optimistic concurrency control, so that no concurrent write is lost."""
        client = self._elastic.client.options(request_timeout=_TIMEOUT)
        doc_id = state_documents.document_id(_KIND, self._index)
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            document = self._find()
            source = dict(document["_source"]) if document else {"type": _KIND, "index": self._index}
            condition: dict[str, Any] = (
                {"if_seq_no": document["_seq_no"], "if_primary_term": document["_primary_term"]}
                if document
                else {"op_type": "create"}
            )
            # The index may have been deleted; if the write created it, its field types would be guessed.
            if not document and not index_exists(client, STATE_INDEX):
                create_own_index(client, STATE_INDEX)
            if oldest := max(day, _oldest_day(source)):
                source["lowest_day"] = date_of(oldest)
            source |= {**change, "updated_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
            try:
                client.index(index=STATE_INDEX, id=doc_id, document=source, **condition)
            except ConflictError:
                if not attempts_left:
                    raise
            else:
                return


def _oldest_day(source: dict[str, Any]) -> int:
    text = source.get("lowest_day")
    return 0 if text is None else day_of_date(text)
