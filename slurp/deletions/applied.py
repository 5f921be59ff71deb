"""The record that all deletions that are stored in the daily indices of an `--index` were applied."""

from __future__ import annotations

from slurp.elastic import state_documents
from slurp.elastic.client import Elastic
from slurp.elastic.templates import STATE_INDEX

_KIND = "deletions"


class Applied:
    """One document in the state index. All methods raise the exceptions of the client."""

    def __init__(self, elastic: Elastic, index: str) -> None:
        self._elastic = elastic
        self._index = index

    def is_recorded(self) -> bool:
        """Return whether all deletions stored before are applied."""
        return state_documents.find(self._elastic.client, _KIND, self._index) is not None

    def record(self) -> None:
        """Record that all stored deletions are applied."""
        state_documents.save(self._elastic.client, _KIND, self._index, {})

    def forget(self) -> None:
        """Record that some may not be: a worker with --deletions keep runs."""
        doc_id = state_documents.document_id(_KIND, self._index)
        self._elastic.client.options(ignore_status=404).delete(index=STATE_INDEX, id=doc_id)
