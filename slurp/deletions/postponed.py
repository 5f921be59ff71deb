"""Removals that could not be applied in time, stored so that the checkpoint goes on."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from elasticsearch import ConflictError, NotFoundError

from slurp.deletions.versions import utc_now
from slurp.elastic import state_documents
from slurp.elastic.bulk import chunks
from slurp.elastic.client import Elastic
from slurp.elastic.templates import STATE_INDEX
from slurp.events.removals import Removal

_TYPE = "removals"
# Documents that are tried together.
_MAX_DOCUMENTS = 20


@dataclass(frozen=True)
class Postponed:
    """One stored document of removals."""

    id: str
    version: tuple[int, int]
    removals: tuple[Removal, ...]


class PostponedRemovals:
    """The postponed removals of one `--index`. Any worker of that index may retry them.

    All methods raise the exceptions of the client.
    """

    def __init__(self, elastic: Elastic, index: str) -> None:
        self._elastic = elastic
        self._index = index
        self._query = state_documents.of_kind(_TYPE, index)

    def add(self, removals: Iterable[Removal], reason: str) -> None:
        """Store removals with the reason why they cannot be applied."""
        for chunk in chunks(list(removals)):
            document = {
                "type": _TYPE,
                "index": self._index,
                "found_at": utc_now(),
                **_content(chunk, reason),
            }
            self._elastic.client.create(
                index=STATE_INDEX, id=f"{_TYPE}:{self._index}:{uuid.uuid4().hex}", document=document
            )
        self._elastic.client.indices.refresh(index=STATE_INDEX)

    def load(self) -> list[Postponed]:
        """Return some of the stored removals, those that were tried least recently first."""
        found = self._elastic.client.search(
            index=STATE_INDEX,
            query=self._query,
            sort=[{"updated_at": "asc"}],
            size=_MAX_DOCUMENTS,
            seq_no_primary_term=True,
        )
        return [
            Postponed(
                hit["_id"],
                (hit["_seq_no"], hit["_primary_term"]),
                tuple(Removal(**removal) for removal in hit["_source"]["removals"]),
            )
            for hit in found["hits"]["hits"]
        ]

    def keep(self, document: Postponed, removals: list[Removal], reason: str) -> None:
        """Keep these removals of a document, and delete it if there are none."""
        client = self._elastic.client
        condition: dict[str, Any] = dict(zip(("if_seq_no", "if_primary_term"), document.version, strict=True))
        try:
            if removals:
                content = _content(removals, reason)
                client.update(index=STATE_INDEX, id=document.id, doc=content, refresh=True, **condition)
            else:
                client.delete(index=STATE_INDEX, id=document.id, refresh=True, **condition)
        except (ConflictError, NotFoundError):
            pass  # another worker has retried them

    def summary(self) -> tuple[int, datetime | None]:
        """Return the number of stored documents, and when the oldest of them was stored; None without any."""
        found = self._elastic.client.search(
            index=STATE_INDEX,
            query=self._query,
            sort=[{"found_at": "asc"}],
            size=1,
            track_total_hits=True,
        )["hits"]
        times = [datetime.fromisoformat(hit["_source"]["found_at"]) for hit in found["hits"]]
        return int(found["total"]["value"]), next(iter(times), None)


def _content(removals: Sequence[Removal], reason: str) -> dict[str, Any]:
    return {
        "reason": reason[:1000],
        "removals": [removal._asdict() for removal in removals],
        "updated_at": utc_now(),
    }
