"""Events of accounts: known ones are looked up again, and get the status that the events say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from slurp.actors.names import Actors
from slurp.actors.wanted import WantedNames
from slurp.deletions.targets import inner
from slurp.deletions.versions import Versions, text_in, utc_now
from slurp.events.removals import TOLERANCE_US
from slurp.events.times import parse_time

_EVERY = 60.0
# Accounts of one step: two calls.
_WANTED = 50
# An event may be found so long after its arrival. One that is found later changes no name for a week.
_OVERLAP = timedelta(minutes=2)
# A handle in an identity event is what the account claims; the AppView checks it.
_CHANGES: dict[str, Any] = {
    "bool": {
        "should": [
            {"terms": {"kind": ["identity", "account"]}},
            {"term": {"commit.collection": "app.bsky.actor.profile"}},
        ]
    }
}


class WantedLookup:
    """Looks up the accounts of which the page needs the names."""

    def __init__(self, wanted: WantedNames, actors: Actors) -> None:
        self._wanted = wanted
        self._actors = actors

    def step(self) -> bool:
        """Look up some; return whether there were any. Raises the exceptions of the client."""
        dids = self._wanted.take(_WANTED)
        self._actors.names(dids)
        return bool(dids)


class ActorChanges:
    """Looks up known accounts again after their events, and records their status."""

    def __init__(self, versions: Versions, actors: Actors, monotonic: Callable[[], float]) -> None:
        self._versions = versions
        self._actors = actors
        self._monotonic = monotonic
        self._due = 0.0
        self._since: datetime = utc_now()

    def step(self) -> bool:
        """Look up accounts that have changed in the last minute; return whether it was time for that.

        Raises the exceptions of the client.
        """
        if self._monotonic() < self._due:
            return False
        self._due = self._monotonic() + _EVERY
        now = utc_now()
        arrived = {"range": {"event.ingested": {"gte": (self._since - _OVERLAP).isoformat()}}}
        query = {"bool": {"filter": [_CHANGES, arrived]}}
        newest: dict[str, tuple[int, str]] = {}
        for hits in self._versions.search(query, ["did", "kind", "account", "@timestamp"]):
            self._actors.refresh({did for hit in hits if (did := text_in(hit, "did"))})
            for hit in hits:
                if (change := _status(hit["_source"])) is not None and (did := text_in(hit, "did")):
                    newest[did] = max(change, newest.get(did, change))
        # After the lookups, which write the whole document.
        self._actors.set_statuses(newest)
        self._since = now
        return True


def _status(source: Mapping[str, Any]) -> tuple[int, str] | None:
    """Return time (Unix microseconds) and status that an account event says; None for another event."""
    account, received_us = inner(source, "account"), parse_time(str(source.get("@timestamp")))
    if not isinstance(account.get("active"), bool) or received_us is None:
        return None
    # A time in the future, or none, must not stay the latest for ever.
    time_us = min(parse_time(str(account.get("time"))) or received_us, received_us + TOLERANCE_US)
    return time_us, "active" if account["active"] else str(account.get("status") or "inactive")
