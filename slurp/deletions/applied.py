"""The record that all deletions that are stored in the daily indices of an `--index` were applied."""

from __future__ import annotations

from elasticsearch import NotFoundError

from slurp.deletions.versions import utc_now
from slurp.elastic.client import Elastic
from slurp.elastic.templates import STATE_INDEX


class Applied:
    """One document in the state index. All methods raise the exceptions of the client."""

    def __init__(self, elastic: Elastic, index: str) -> None:
        self._elastic = elastic
        self._index = index
        self._id = f"deletions:{index}"

    def is_recorded(self) -> bool:
        """Return whether all deletions stored before are applied."""
        try:
            self._elastic.client.get(index=STATE_INDEX, id=self._id)
        except NotFoundError:
            return False
        return True

    def record(self) -> None:
        """Record that all stored deletions are applied."""
        document = {"type": "deletions", "index": self._index, "updated_at": utc_now()}
        self._elastic.client.index(index=STATE_INDEX, id=self._id, document=document)

    def forget(self) -> None:
        """Record that some may not be: a worker with --deletions keep runs."""
        self._elastic.client.options(ignore_status=404).delete(index=STATE_INDEX, id=self._id)
