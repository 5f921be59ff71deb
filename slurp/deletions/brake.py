"""A brake on the redaction of deleted accounts: it is irreversible, and the events are not authenticated."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from slurp.deletions.account_states import AccountStates
from slurp.deletions.versions import utc_now
from slurp.elastic import state_documents
from slurp.elastic.client import Elastic

log = logging.getLogger(__name__)

_KIND = "deletions-brake"
_PERIOD = timedelta(hours=1)
_LOG_EVERY = timedelta(minutes=10)


class Brake:
    """Holds the redaction of all accounts whose deletion a server received in an hour with too many of them.

    Their documents are hidden; they are redacted once the operator confirms. All methods raise the exceptions
    of the client.
    """

    def __init__(self, elastic: Elastic, index: str, limit: int) -> None:
        """`limit` is the number of deleted accounts within an hour that are redacted without a question."""
        self._elastic = elastic
        self._index = index
        self._limit = limit
        self._logged_at: datetime | None = None
        self.is_on = False

    def check(self, states: AccountStates, found: Iterable[datetime]) -> None:
        """Hold the deletions around these times, at which servers received deletions that are stored now, if
        there are too many."""
        # The last of each hour, as the others are within an hour before it. A history may come in any
        # order, so the hour after it counts as well.
        for last in {
            time.replace(minute=0, second=0, microsecond=0): time for time in sorted(found)
        }.values():
            document = self.load()
            start = last - _PERIOD
            if document.get("confirmed_until"):
                start = max(start, datetime.fromisoformat(document["confirmed_until"]))
            count, end = states.last_found(start, last + _PERIOD)
            if count > self._limit and end is not None:
                held = [start, end, *(datetime.fromisoformat(text) for text in _period(document))]
                self._store(document | {"from": min(held).isoformat(), "to": max(held).isoformat()})

    def periods(self, states: AccountStates) -> list[tuple[str, str]]:
        """Return the periods whose deletions wait for the operator."""
        document = self.load()
        self.is_on = bool(_period(document))
        if not self.is_on:
            return []
        now = utc_now()
        if self._logged_at is None or now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            log.error(
                "%s deleted accounts wait for your confirmation, as more than --deletions-brake %s were "
                "deleted within an hour: their documents are hidden, not removed; check them, then run %s",
                f"{self.held(states):,}",
                f"{self._limit:,}",
                "python -m slurp.deletions --confirm --yes",
            )
        return [(document["from"], document["to"])]

    def held(self, states: AccountStates) -> int:
        """Return the number of deleted accounts that wait for the operator."""
        document = self.load()
        if not _period(document):
            return 0
        period = {"range": {"found_at": {"gte": document["from"], "lte": document["to"]}}}
        return states.count({"bool": {"filter": [period, {"exists": {"field": "due_at"}}]}})

    def confirm(self) -> None:
        """Let all deletions that wait be carried out."""
        self._store({"confirmed_until": self.load().get("to"), "from": None, "to": None})

    def load(self) -> dict[str, Any]:
        """Return the stored period `from` and `to` (both None if none waits) and `confirmed_until`."""
        found = state_documents.find(self._elastic.client, _KIND, self._index)
        return {} if found is None else dict(found["_source"])

    def _store(self, fields: dict[str, Any]) -> None:
        state_documents.save(self._elastic.client, _KIND, self._index, fields)


def _period(document: dict[str, Any]) -> list[str]:
    return [document["from"], document["to"]] if document.get("from") else []
