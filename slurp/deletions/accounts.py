"""Hide the documents of accounts that are not active, and redact those of deleted ones.

The state of an account is stored first, as pending. From then on it is applied in slices, so that an account
with a million records delays nothing else, and a crash loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from slurp.config import Config
from slurp.deletions.account_states import AccountState, AccountStates
from slurp.deletions.brake import Brake
from slurp.deletions.examples import remove_examples
from slurp.deletions.tombstones import SOURCE_FIELDS, tombstone
from slurp.deletions.versions import (
    Versions,
    chunks,
    not_written,
    overwrite,
    rejected,
    text_in,
    utc_now,
)
from slurp.elastic.bulk import Action, update_hit
from slurp.elastic.client import Elastic
from slurp.elastic.days import day_of_index
from slurp.elastic.error_classes import Item
from slurp.events.removals import (
    NEVER,
    TOLERANCE_US,
    AccountChange,
    AccountTimes,
    account_times,
    merged,
    version_us,
)
from slurp.events.times import DAY_US, parse_time
from slurp.pipeline.inactive_accounts import InactiveAccounts

Json = dict[str, Any]

ACCOUNT_REASON = "account"

_FIELDS = [*SOURCE_FIELDS, "hidden", "redacted.at", "account.active", "account.status"]
# Accounts that are applied together, and their documents, at most: the next records are not delayed by more.
_ACCOUNTS = 100
_DOCUMENTS = 2000


class Change(NamedTuple):
    """What a document needs: to be redacted, or else hidden or shown."""

    action: Action
    redacts: bool


@dataclass(frozen=True)
class Target:
    """What must become of the documents of an account; times in Unix microseconds, 0 for none.

    Versions up to `redacted_until_us` are redacted, others up to `hidden_until_us` are hidden.
    """

    hidden_until_us: int = 0
    redacted_until_us: int = 0

    def change(self, hit: Json) -> Change | None:
        """Return the change that a document needs; None if it is as it must be."""
        source = hit["_source"]
        rev = _inner(source, "commit").get("rev")
        written_us = version_us(rev, parse_time(str(source.get("@timestamp"))) or 0)
        if written_us <= self.redacted_until_us:
            if _is_deletion(source):
                return None
            stone = tombstone(source, ACCOUNT_REASON, utc_now(), anonymous=True)
            return Change(overwrite(hit, stone), redacts=True)
        # Account events have no content, and say when the account changed.
        if source.get("kind") == "account" or "redacted" in source:
            return None
        must_hide = written_us <= self.hidden_until_us
        if must_hide == (source.get("hidden") is True):
            return None
        return Change(update_hit(hit, {"hidden": True if must_hide else None}), redacts=False)


class Accounts:
    """Applies changes of accounts to the documents of one `--index`.

    Attributes:
        redacted: number of documents that lost their content.
        pending_since: since when the oldest state waits to be applied; None if none does.
    """

    def __init__(
        self, elastic: Elastic, config: Config, versions: Versions, inactive: InactiveAccounts
    ) -> None:
        """`inactive` is kept up to date."""
        self.redacted = 0
        self.pending_since: datetime | None = None
        self._versions = versions
        self._elastic = elastic
        self._states = AccountStates(elastic, config.index)
        self._delay = timedelta(seconds=config.deletions_delay)
        self.brake = Brake(elastic, config.index, config.deletions_brake)
        self._inactive = inactive

    def load(self) -> None:
        """Read which accounts are not active; before the first document is indexed."""
        newest = self._states.newest(self._inactive.limit)
        until = {state.did: state.times.hidden_until_us for state in newest}
        is_complete = len(newest) < self._inactive.limit
        self._inactive.load({did: time for did, time in until.items() if time}, is_complete=is_complete)

    def record(self, changes: Iterable[AccountChange], *, with_history: bool = False) -> bool:
        """Store changes as pending; return False if some must be tried again, as another worker has changed
        the same account.

        Their earlier events must be acknowledged. With `with_history` the stored events of all these accounts
        are read, else only of those that become inactive. Raises the exceptions of the client.
        """
        wanted = merged(changes)
        stored = self._states.get(wanted)
        history = self._history(
            [
                did
                for did, times in wanted.items()
                if with_history or (did not in stored and times.hidden_until_us)
            ]
        )
        states = []
        for did, times in wanted.items():
            state = stored.get(did, AccountState(did))
            if state.version is None and did not in history:
                continue  # nothing of an account without a state is hidden
            state = self._advanced(state, times.merge(history.get(did, NEVER)))
            self._inactive.update(did, state.times.hidden_until_us)
            if state.version is not None or state.times.hidden_until_us or with_history:
                states.append(state)
        conflicts = self._states.put(states)
        if any(state.found_at is not None for state in states):
            self.brake.check(self._states)
        return not conflicts

    def forget(self) -> None:
        """Delete the states of accounts all of whose documents are past retention."""
        if days := self._versions.days():
            oldest = day_of_index(self._versions.index, days[0]) or 0
            self._states.delete_before(oldest * DAY_US - TOLERANCE_US)

    def work(self) -> bool:
        """Apply some of the pending states and due deletions; return whether there is more to do.

        Raises the exceptions of the client, and NotWritten if Elasticsearch rejects a document.
        """
        due = self._states.due(utc_now(), _ACCOUNTS, self.brake.periods(self._states))
        pending = self._states.pending(_ACCOUNTS)
        self.pending_since = self._states.oldest_pending() if pending else None
        found = {state.did: state for state in (*pending, *due)}
        if not found:
            return False
        self._versions.refresh()
        due_dids = {state.did for state in due}
        targets = {did: target_of(state, is_due=did in due_dids) for did, state in found.items()}
        errors: dict[str, Item] = {}
        is_complete = self._apply(targets, errors)
        if is_complete:
            if redacted := [did for did, target in targets.items() if target.redacted_until_us]:
                remove_examples(self._elastic, redacted)
            self._states.put([_applied(state, errors, targets[did]) for did, state in found.items()])
        if lasting := rejected(errors):
            raise not_written(f"documents of {len(lasting)} account(s)", lasting)
        self.pending_since = self._states.oldest_pending()
        return self.pending_since is not None or len(due) >= _ACCOUNTS

    @property
    def held(self) -> int:
        """Number of deleted accounts that wait for the operator."""
        return self.brake.held(self._states)

    def unexpected(self, did: str) -> list[Json]:
        """Return the documents of an account that are not as its stored events require."""
        state = self._states.get([did]).get(did, AccountState(did))
        target = target_of(replace(state, times=state.times.merge(self._history([did])[did])), is_due=False)
        query = query_for({did: target})
        pages = self._versions.search(query, _FIELDS)
        return [hit for hits in pages for hit in hits if target.change(hit) is not None]

    def _history(self, dids: Sequence[str]) -> dict[str, AccountTimes]:
        """Return the times that the stored events of these accounts say."""
        found = dict.fromkeys(dids, NEVER)
        for chunk in chunks(dids):
            query = {"bool": {"filter": [{"term": {"kind": "account"}}, {"terms": {"did": chunk}}]}}
            for hits in self._versions.search(query, ["did", "account", "jetstream.time_us"]):
                for hit in hits:
                    source, did = hit["_source"], text_in(hit, "did")
                    time_us = _inner(source, "jetstream").get("time_us", 0)
                    times = account_times(_inner(source, "account"), time_us)
                    found[did] = found.get(did, NEVER).merge(times)
        return found

    def _advanced(self, state: AccountState, times: AccountTimes) -> AccountState:
        """Return a state with the times of more events, to be applied."""
        now = utc_now()
        before, times = state.times, state.times.merge(times)
        state = replace(state, times=times, pending_since=state.pending_since or now)
        if not times.deleted_until_us:
            return replace(state, found_at=None, due_at=None)
        if times.deleted_us != before.deleted_us or (state.found_at is None and not state.is_redacted):
            return replace(state, found_at=now, due_at=now + self._delay)
        return state

    def _apply(self, targets: Mapping[str, Target], errors: dict[str, Item]) -> bool:
        """Apply targets to some documents; return whether these were all."""
        budget = _DOCUMENTS
        for hits in self._versions.search(query_for(targets), _FIELDS):
            chosen = [
                (did, change)
                for hit in hits
                if (target := targets.get(did := text_in(hit, "did"))) and (change := target.change(hit))
            ]
            if not chosen:
                continue
            results = self._versions.write([change.action for _, change in chosen])
            for (did, change), error in zip(chosen, results, strict=True):
                if error is not None:
                    errors[did] = error
                else:
                    self.redacted += change.redacts
            budget -= len(chosen)
            if budget <= 0:
                return False
        return True


def target_of(state: AccountState, *, is_due: bool) -> Target:
    """Return what must become of the documents of an account; `is_due` if it is to be redacted now."""
    is_redacted = is_due or state.is_redacted
    return Target(state.times.hidden_until_us, state.times.deleted_until_us if is_redacted else 0)


def query_for(targets: Mapping[str, Target]) -> Json:
    """Return the query for the documents that may have to change."""
    redacted = [did for did, target in targets.items() if target.redacted_until_us]
    hidden = [did for did, target in targets.items() if target.hidden_until_us and did not in redacted]
    shown = [did for did, target in targets.items() if not target.hidden_until_us]
    is_hidden = {"term": {"hidden": True}}
    has_no_content = [{"exists": {"field": "redacted.at"}}, {"term": {"kind": "account"}}]
    return {
        "bool": {
            "should": [
                {"terms": {"did": redacted}},
                {"bool": {"filter": [{"terms": {"did": hidden}}], "must_not": [is_hidden, *has_no_content]}},
                {"bool": {"filter": [{"terms": {"did": shown}}, is_hidden]}},
            ]
        }
    }


def _applied(state: AccountState, errors: Mapping[str, Item], target: Target) -> AccountState:
    if state.did in errors:
        return state  # written nevertheless, so that others have their turn first
    if target.redacted_until_us:
        state = replace(state, due_at=None, redacted_us=state.times.deleted_us)
    return replace(state, pending_since=None)


def _is_deletion(source: Json) -> bool:
    account = _inner(source, "account")
    return account.get("status") == "deleted" and not account.get("active")


def _inner(source: Json, name: str) -> Json:
    """Return an object within a source; {} if an ingest pipeline of the user has removed or changed it."""
    inner = source.get(name)
    return inner if isinstance(inner, dict) else {}
