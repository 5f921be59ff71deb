"""Hide the documents of accounts that are not active, and redact those of deleted ones.

The state of an account is stored first, as pending. From then on it is applied in slices, so that an account
with a million records delays nothing else, and a crash loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from slurp.config import Config
from slurp.deletions.account_states import AccountState, AccountStates
from slurp.deletions.brake import Brake
from slurp.deletions.due import Due
from slurp.deletions.targets import FIELDS, Target, event_times, inner, query_for
from slurp.deletions.versions import CONFLICT, Versions, text_in
from slurp.elastic.bulk import CHUNK, chunks
from slurp.elastic.client import Elastic
from slurp.elastic.days import day_of_index
from slurp.elastic.error_classes import Item, ItemClass, classify, is_transient
from slurp.events.removals import (
    NEVER,
    TOLERANCE_US,
    AccountChange,
    AccountTimes,
    account_times,
    merged,
)
from slurp.events.times import DAY_US, parse_time
from slurp.pipeline.inactive_accounts import InactiveAccounts

Json = dict[str, Any]

# Accounts that are applied together, and their documents, at most: the next records are not delayed by more.
_ACCOUNTS = 500
_DOCUMENTS = 2000
# An index that rejected a write is not written to for this many seconds.
_AVOID_FOR = 60.0
# Accounts that a search finds, more than are asked for.
_MAX_FOUND = 10_000
_ACCOUNT_EVENT: Json = {"term": {"kind": "account"}}
_AVOIDED = Item(0, "index_not_writable", "the index rejected a document within the last minute")


@dataclass
class Slice:
    """The result for some accounts.

    Attributes:
        has_more: whether another slice would achieve something.
        is_complete: whether no document is left to be changed, but those in `errors`.
        errors: accounts of which a document still has to be changed, with the error of the last attempt.
    """

    has_more: bool = False
    is_complete: bool = True
    errors: dict[str, Item] = field(default_factory=dict)


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
        self.brake = Brake(elastic, config.index, config.deletions_brake)
        self._versions = versions
        self._states = AccountStates(elastic, config.index)
        self._delay = timedelta(seconds=config.deletions_delay)
        self._inactive = inactive
        # Until when an index that rejected a write is avoided (monotonic seconds).
        self._avoided: dict[str, float] = {}

    def load(self) -> None:
        """Read which accounts are not active; before the first document is indexed."""
        newest = self._states.newest(self._inactive.limit)
        until = {state.did: state.times.hidden_until_us for state in newest}
        is_complete = len(newest) < self._inactive.limit
        self._inactive.load({did: time for did, time in until.items() if time}, is_complete=is_complete)

    def record(self, changes: Iterable[AccountChange], *, with_history: bool = False) -> bool:
        """Store changes as pending; return False if some must be tried again, as another worker has changed
        the same account.

        Needs no daily index. With `with_history` the stored events of all these accounts are read again
        later, else only of those that become inactive. Raises the exceptions of the client.
        """
        wanted = merged(changes)
        stored = self._states.get(wanted)
        states = []
        for did, times in wanted.items():
            # Nothing of an account without a state is hidden.
            if did not in stored and not (times.hidden_until_us or with_history):
                continue
            state = stored.get(did, AccountState(did))
            # A deletion that is not due, because its account may be active again in an index that could not
            # be searched: that index may be searched now.
            is_uncertain = state.times.deleted_until_us > 0 and state.found_at is None
            has_history = state.has_history and not with_history and not is_uncertain
            states.append(state.advanced(times, self._delay, has_history=has_history))
        return self._put(states)

    def renew(self, day: str, since_us: int, after: str) -> str | None:
        """Record accounts to be applied again of which one daily index, which could not be searched, has
        documents that may not be as they must be; of those that were inactive at a time or later, and those
        with hidden documents.

        Goes by DID, for some accounts after `after`; returns the last of them, None if there are no more.
        """
        inactive = {state.did: state for state in self._states.inactive_since(since_us, after)}
        hidden = self._versions.accounts({"term": {"hidden": True}}, CHUNK, day, after)
        last = min((max(page) for page in (inactive, hidden) if len(page) >= CHUNK), default=None)
        stored = inactive | self._states.get(set(hidden) - inactive.keys())
        found = {
            did: stored.get(did, AccountState(did))
            for did in {*inactive, *hidden}
            if last is None or did <= last
        }
        targets = {did: Target.of(state, is_due=False) for did, state in found.items()}
        with_event = {"bool": {"filter": [_ACCOUNT_EVENT, {"terms": {"did": list(found)}}]}}
        wanted = {"bool": {"should": [query_for(targets), with_event]}}
        concerned = found.keys() & self._versions.accounts(wanted, _MAX_FOUND, day, after) if found else set()
        # A deletion that is not due, as an event that the account is active again may be in the index.
        concerned |= {did for did, state in found.items() if state.times.deleted_us and not state.found_at}
        # With their history, for the same reason.
        states = [found[did].advanced(NEVER, self._delay, has_history=False) for did in sorted(concerned)]
        # Another worker has changed one of them: again.
        return last if self._put(states) else after

    def forget(self) -> None:
        """Delete the states of accounts all of whose documents are past retention."""
        if days := self._versions.days():
            oldest = day_of_index(self._versions.index, days[0]) or 0
            self._states.delete_before(oldest * DAY_US - TOLERANCE_US)

    def work(self, due: Due | None) -> Slice:
        """Apply some of the pending states, and of the deletions that are due, with None no deletion.

        The earlier events of all recorded changes must be acknowledged. Raises the exceptions of the client.
        """
        pending = self._states.pending(_ACCOUNTS)
        ended: list[AccountState] = []
        if due is not None:
            found = self._states.due(due, _ACCOUNTS, self.brake.periods(self._states))
            # Without history the account may be active again.
            ended = [state for state in found if state.has_history]
        result = self._apply([*pending, *ended], {state.did for state in ended})
        is_full = max(len(pending), len(ended)) >= _ACCOUNTS
        self.pending_since = self._states.oldest_pending() if pending or ended else None
        result.has_more &= is_full or not result.is_complete or self.pending_since is not None
        return result

    def settle(self, dids: Iterable[str]) -> dict[str, Item]:
        """Apply the states of these accounts completely; return the errors of those that are left."""
        errors: dict[str, Item] = {}
        for some in chunks(sorted(dids), _ACCOUNTS):
            while states := [
                state
                for state in self._states.get(some).values()
                if state.pending_since is not None and state.did not in errors
            ]:
                errors |= self._apply(states).errors
        return errors

    @property
    def held(self) -> int:
        """Number of deleted accounts that wait for the operator."""
        return self.brake.held(self._states)

    def unexpected(self, dids: Iterable[str]) -> list[Json]:
        """Return the documents of accounts that are not as their stored events require."""
        history = self._history(sorted(dids))
        stored = self._states.get(history)
        targets = {}
        for did, times in history.items():
            state = stored.get(did, AccountState(did))
            targets[did] = Target.of(replace(state, times=state.times.merge(times)), is_due=False)
        pages = self._versions.search(query_for(targets), FIELDS)
        return [
            hit
            for hits in pages
            for hit in hits
            if (target := targets.get(text_in(hit, "did"))) and target.change(hit) is not None
        ]

    def _put(self, states: Sequence[AccountState]) -> bool:
        """Store states; return whether no other worker has changed one of them."""
        if any(state.due_at is not None for state in states):
            missing_until_us = self._missing_until_us()
            states = [_not_due_before(state, missing_until_us) for state in states]
        for state in states:
            self._inactive.update(state.did, state.times.hidden_until_us)
        conflicts = self._states.put(states)
        self.brake.check(self._states, [state.found_at for state in states if state.found_at is not None])
        return not conflicts

    def _apply(self, states: Sequence[AccountState], due: Iterable[str] = ()) -> Slice:
        """Take the next step of these states: read their history, or change some of their documents."""
        if lacking := [state for state in states if not state.has_history]:
            self._versions.refresh()
            history = self._history([state.did for state in lacking])
            self._put(
                [state.advanced(history[state.did], self._delay, has_history=True) for state in lacking]
            )
            return Slice(has_more=True, is_complete=False)
        found = {state.did: state for state in states}
        if not found:
            return Slice()
        self._versions.refresh()
        targets = {did: Target.of(state, is_due=did in due) for did, state in found.items()}
        self._versions.derived.hide({did: target.hidden_until_us > 0 for did, target in targets.items()})
        errors: dict[str, Item] = {}
        written, is_complete = self._write(targets, errors)
        # Those with errors are written as well, so that others have their turn first.
        done = found if is_complete else {did: found[did] for did in errors}
        redacted = [did for did in done if targets[did].redacted_until_us and did not in errors]
        errors |= self._versions.derived.remove_accounts(redacted)
        self._states.put([_applied(state, targets[did], errors) for did, state in done.items()])
        return Slice(written > 0 or len(done) > len(errors), is_complete, errors)

    def _missing_until_us(self) -> int:
        """Return the end of the last day whose events cannot be searched (Unix microseconds); 0 for none."""
        names = {*self._versions.days("closed"), *self._versions.excluded}
        days = (day_of_index(self._versions.index, name) for name in names)
        return max(((day + 1) * DAY_US for day in days if day is not None), default=0)

    def _history(self, dids: Sequence[str]) -> dict[str, AccountTimes]:
        """Return the times that the stored events of these accounts say."""
        found = dict.fromkeys(dids, NEVER)
        for chunk in chunks(dids):
            query = {"bool": {"filter": [_ACCOUNT_EVENT, {"terms": {"did": chunk}}]}}
            for hits in self._versions.search(query, ["@timestamp", "did", "account", "jetstream", "event"]):
                for hit in hits:
                    if (did := text_in(hit, "did")) in found:
                        found[did] = found[did].merge(_times_in(hit["_source"]))
        return found

    def _write(self, targets: Mapping[str, Target], errors: dict[str, Item]) -> tuple[int, bool]:
        """Change some documents; return how many were changed, and whether these were all but those in
        `errors`."""
        now = time.monotonic()
        self._avoided = {name: until for name, until in self._avoided.items() if until > now}
        query = query_for(targets)
        written, budget = 0, _DOCUMENTS
        for hits in self._versions.search(self._without_avoided(query), FIELDS):
            chosen = [
                (did, hit, change)
                for hit in hits
                if hit["_index"] not in self._avoided
                and (target := targets.get(did := text_in(hit, "did")))
                and (change := target.change(hit))
            ]
            if not chosen:
                continue
            results = self._versions.write([change.action for _, _, change in chosen])
            for (did, hit, change), error in zip(chosen, results, strict=True):
                if error is None:
                    written += 1
                    self.redacted += change.redacts
                else:
                    errors[did] = error
                    if _is_of_index(error):
                        self._avoided[hit["_index"]] = now + _AVOID_FOR
            budget -= len(chosen)
            if budget <= 0:
                return written, False
        if self._avoided:
            avoided = {"bool": {"filter": [query, {"terms": {"_index": list(self._avoided)}}]}}
            for did in targets.keys() & self._versions.accounts(avoided, _MAX_FOUND):
                errors.setdefault(did, _AVOIDED)
        return written, True

    def _without_avoided(self, query: Json) -> Json:
        if not self._avoided:
            return query
        return {"bool": {"filter": [query], "must_not": [{"terms": {"_index": list(self._avoided)}}]}}


def _is_of_index(error: Item) -> bool:
    """Return whether an index rejects all writes, and not only one document."""
    if error.status == CONFLICT:
        return False
    return is_transient(error) or classify(error) in (ItemClass.CLUSTER_ERROR, ItemClass.ACCESS_DENIED)


def _times_in(source: Json) -> AccountTimes:
    """Return the times that a stored account event says. An ingest pipeline of the user may have
    changed it."""
    account = inner(source, "account")
    received_us, ingested_us = event_times(source)
    known = [time for time in (received_us, ingested_us, parse_time(str(source.get("@timestamp")))) if time]
    if not isinstance(account.get("active"), bool) or not known:
        return NEVER
    # A clock of the worker that was behind must not move a return before the deletion.
    latest_us = known[0] if account["active"] or ingested_us is None else ingested_us
    return account_times(account, known[0], latest_us)


def _not_due_before(state: AccountState, missing_until_us: int) -> AccountState:
    """Return the state of an account; not to be redacted if an event that it is active again may be missing.

    Its history is read again when the days can be searched.
    """
    if state.due_at is not None and state.times.deleted_us < missing_until_us:
        return replace(state, found_at=None, due_at=None)
    return state


def _applied(state: AccountState, target: Target, errors: Mapping[str, Item]) -> AccountState:
    if state.did in errors:
        return state
    if target.redacted_until_us:
        state = replace(state, due_at=None, redacted_us=state.times.deleted_us)
    return replace(state, pending_since=None)
