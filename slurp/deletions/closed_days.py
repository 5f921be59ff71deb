"""Daily indices that were closed while deletions were applied: what they missed is applied once they open."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from slurp.deletions.accounts import Accounts
from slurp.deletions.records import IS_REMOVAL, Redaction, redact, removal_pages
from slurp.deletions.versions import Versions, text_in, utc_now
from slurp.elastic import state_documents
from slurp.elastic.client import Elastic
from slurp.elastic.templates import STATE_INDEX
from slurp.events.removals import AccountChange

log = logging.getLogger(__name__)

_TYPE = "closed-day"
# Deletions that arrived shortly before an index was seen closed may have been applied after it was closed.
_BEFORE = timedelta(hours=1)


class ClosedDays:
    """The closed daily indices of one `--index`. All methods raise the exceptions of the client."""

    def __init__(self, elastic: Elastic, versions: Versions, accounts: Accounts) -> None:
        self._elastic = elastic
        self._versions = versions
        self._accounts = accounts
        self._query = state_documents.of_kind(_TYPE, versions.index)
        self._known: set[str] | None = None

    def step(self) -> Redaction:
        """Record newly closed indices, before deletions are applied to the others, and apply to reopened ones
        what they missed."""
        closed = set(self._versions.days("closed"))
        if self._known is None:
            self._known = {name for name, _ in self._stored()}
        for name in sorted(closed - self._known):
            self._record(name)
        result = Redaction()
        if self._known - closed:
            for name, since in list(self._stored()):
                if name not in closed:
                    self._reopen(name, since, result)
        return result

    def _reopen(self, name: str, since: datetime, result: Redaction) -> None:
        log.info("%s was closed: applying the deletions since %s to it", name, since.isoformat())
        arrived = {"range": {"event.ingested": {"gte": since.isoformat()}}}
        query = {"bool": {"filter": [{"term": {"kind": "account"}}, arrived]}}
        for hits in self._versions.search(query, ["did"]):
            changes = [AccountChange(text_in(hit, "did")) for hit in hits]
            if not self._accounts.record(changes, with_history=True):
                return  # tried again
        query = {"bool": {"filter": [IS_REMOVAL, arrived]}}
        for _, removals in removal_pages(self._versions, [query]):
            result.add(redact(self._versions, removals, name))
        if not result.failed:
            self._elastic.client.delete(index=STATE_INDEX, id=self._id(name), refresh=True)
            self._known = (self._known or set()) - {name}

    def _record(self, name: str) -> None:
        log.warning("%s is closed: deletions will be applied to it once it is open", name)
        document: dict[str, Any] = {
            "type": _TYPE,
            "index": self._versions.index,
            "day": name,
            "found_at": utc_now() - _BEFORE,
            "updated_at": utc_now(),
        }
        self._elastic.client.index(
            index=STATE_INDEX, id=self._id(name), document=document, op_type="create", refresh=True
        )
        self._known = (self._known or set()) | {name}

    def _stored(self) -> Iterator[tuple[str, datetime]]:
        """Yield the recorded indices, and since when they have missed deletions."""
        client = self._elastic.client
        client.indices.refresh(index=STATE_INDEX)
        found = client.search(index=STATE_INDEX, query=self._query, size=1000)
        for hit in found["hits"]["hits"]:
            yield hit["_source"]["day"], datetime.fromisoformat(hit["_source"]["found_at"])

    def _id(self, name: str) -> str:
        return f"{_TYPE}:{name}"
