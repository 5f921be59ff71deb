"""Sources that end before the present: the deletions of what they bring may have been applied long ago.

The worker reads on, and meets each deletion after its record. A replay of dead letters ends before it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from slurp.config import Config
from slurp.deletions.accounts import Accounts
from slurp.deletions.records import redact, stored_removals
from slurp.deletions.versions import NotWritten, RatePause, Versions, not_written
from slurp.elastic.client import Elastic
from slurp.events.frames import BadFrame, parse, uri_of
from slurp.events.removals import AccountChange, Removal, is_indexed, latest, removal_of
from slurp.pipeline.inactive_accounts import InactiveAccounts

Json = dict[str, Any]


class LateEvents:
    """Events that were stored after the deletions of their records may have been applied."""

    def __init__(self, elastic: Elastic, config: Config) -> None:
        self._is_on = config.applies_deletions
        self._versions = Versions(elastic, config.index, RatePause(config.deletions_rate, threading.Event()))
        self._accounts = Accounts(elastic, config, self._versions, InactiveAccounts())

    def apply(self, frames: Iterable[bytes]) -> None:
        """Apply to newly stored events what is stored about their records and accounts, and what they say.

        Raises the exceptions of the client, and NotWritten if a document could not be changed: then the
        source must not go on.
        """
        if not self._is_on:
            return
        events = list(_events(frames))
        now_us = int(time.time() * 1e6)
        found = [removal_of(event, now_us) for event in events]
        removals = [one for one in found if isinstance(one, Removal)]
        changes = [one for one in found if isinstance(one, AccountChange)]
        uris = {uri_of(event) for event in events if event["kind"] == "commit"}
        dids = {did for event in events if is_indexed(did := event["did"])}
        if not self._accounts.record([*changes, *map(AccountChange, dids)]):
            raise NotWritten("another worker changes the same accounts")
        self._versions.refresh()
        wanted = latest([*stored_removals(self._versions, uris).values(), *removals])
        errors = redact(self._versions, wanted).failed | self._accounts.settle(dids)
        if errors:
            raise not_written(errors)


def _events(frames: Iterable[bytes]) -> Iterable[Json]:
    for frame in frames:
        try:
            yield parse(frame)
        except BadFrame:
            continue  # it was not stored
