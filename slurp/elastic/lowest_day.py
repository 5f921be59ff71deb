"""The lowest day that is still indexed where `--max-disk` deletes days, kept in the state index."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from elasticsearch import ConflictError, NotFoundError

from slurp.elastic.client import Elastic
from slurp.elastic.setup import create_own_index, index_exists
from slurp.elastic.templates import STATE_INDEX

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ATTEMPTS = 10


class LowestDay:
    """One document for each `--index`, which all its workers share. The day in it is never lowered.

    `day` counts from 1970-01-01, UTC; 0 where no day was deleted. `budget` is the `--max-disk` that was last
    enforced, in bytes; None before the first time.
    """

    def __init__(self, elastic: Elastic, index: str) -> None:
        self._elastic = elastic
        self._index = index
        self._id = f"disk:{index}"
        self.day = 0
        self.budget: int | None = None

    def load(self) -> None:
        """Read what workers have saved, and save ours again if it was deleted. Raises what the client
        raises."""
        found = self._find()
        source = found["_source"] if found else {}
        self.budget = source.get("max_disk_bytes")
        saved = _day(source)
        if saved < self.day:
            self._write({}, self.day)
        self.day = max(saved, self.day)

    def save(self, day: int) -> None:
        """Raise it to `day`, which counts once it is saved. Raises what the client raises."""
        if day > self.day:
            self._write({}, day)
            self.day = day

    def save_budget(self, size: int) -> None:
        """Remember the `--max-disk` that is enforced, in bytes."""
        self._write({"max_disk_bytes": size}, self.day)
        self.budget = size

    def _find(self) -> Any:
        client = self._elastic.client.options(request_timeout=15)
        try:
            return client.get(index=STATE_INDEX, id=self._id)
        except NotFoundError:
            return None

    def _write(self, change: dict[str, Any], day: int) -> None:
        """Change the document without losing what another worker writes meanwhile."""
        client = self._elastic.client.options(request_timeout=15)
        for left in reversed(range(_ATTEMPTS)):
            found = self._find()
            source = dict(found["_source"]) if found else {"type": "disk", "index": self._index}
            condition: dict[str, Any] = (
                {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
                if found
                else {"op_type": "create"}
            )
            # It may have been deleted; created by a write it would guess its types.
            if not found and not index_exists(client, STATE_INDEX):
                create_own_index(client, STATE_INDEX)
            if lowest := max(day, _day(source)):
                source["lowest_day"] = date_of(lowest)
            source |= {**change, "updated_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
            try:
                client.index(index=STATE_INDEX, id=self._id, document=source, **condition)
            except ConflictError:
                if not left:
                    raise
            else:
                return


def date_of(day: int) -> str:
    """Return a day as `2026-11-26`."""
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")


def _day(source: dict[str, Any]) -> int:
    text = source.get("lowest_day")
    return 0 if text is None else (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH).days
