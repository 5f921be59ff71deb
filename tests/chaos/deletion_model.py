"""What `--deletions` must leave of each stored document, at rest. Pure: it knows only the published events.

A document is stored in one of three forms: with its content, hidden or not, or as a tombstone. Where the
order in which a worker applies deletions decides, several forms are allowed.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slurp.events import tid
from slurp.events.identity import identify
from slurp.events.times import parse_time

TOLERANCE_US = 5 * 60_000_000
"""A change of an account applies to versions up to this long after its inner time."""

_NEVER = -1
_REASONS = {"delete": "deleted", "update": "updated"}


class Deletions(enum.Enum):
    """How the worker handles deletions."""

    KEEP = "keep"
    APPLY = "apply"
    """The delay before a deleted account is redacted does not end during the run."""
    APPLY_AT_ONCE = "apply-at-once"
    """With `--deletions-delay 0s`."""

    @property
    def options(self) -> list[str]:
        """The options of the worker."""
        match self:
            case Deletions.KEEP:
                return ["--deletions", "keep"]
            case Deletions.APPLY:
                return ["--deletions", "apply"]
            case Deletions.APPLY_AT_ONCE:
                return ["--deletions", "apply", "--deletions-delay", "0s"]


class AccountEvent(NamedTuple):
    """The content of an account event, and its number in the stream."""

    time_us: int
    number: int
    active: bool
    status: str | None

    @property
    def deleted(self) -> bool:
        """Whether it is the deletion of the account."""
        return not self.active and self.status == "deleted"


class Version(NamedTuple):
    """One published event. The fields of a commit are empty for other kinds."""

    kind: str
    did: str
    collection: str
    rkey: str
    rev: str
    operation: str
    time_us: int
    """The time that is compared with that of an account event."""
    quarantined: bool
    account: AccountEvent | None


class Expected(NamedTuple):
    """The forms in which a document may be stored."""

    content: bool = True
    """Whether it may have its content."""
    hidden: bool | None = False
    """With its content: whether it must be hidden; None if both are allowed."""
    reasons: frozenset[str] = frozenset()
    """The reasons that a tombstone may give; empty if there must be none."""


class _Account(NamedTuple):
    """Up to which version time the events of an account hide or redact its documents."""

    hidden_until: int = _NEVER
    perhaps_hidden_until: int = _NEVER
    redacted_until: int = _NEVER
    perhaps_redacted_until: int = _NEVER
    deleted_us: int = _NEVER
    """The inner time of the deletion that redacts them. Its own document keeps the DID."""


_CONTENT = Expected()
_UNCHANGED = _Account()


class DeletionModel:
    """The expected form of each document. Add all events in the order of the stream, then ask."""

    def __init__(self, deletions: Deletions) -> None:
        self._deletions = deletions
        self._versions: dict[str, Version] = {}
        # The highest rev of a deletion and of an update, by DID, collection and rkey.
        self._highest: dict[str, dict[tuple[str, str, str], str]] = {name: {} for name in _REASONS}
        self._account_events: defaultdict[str, list[AccountEvent]] = defaultdict(list)
        self._accounts: dict[str, _Account] = {}
        self._now_us = 0

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self._versions

    def version(self, doc_id: str) -> Version:
        """Return the event with this `_id`."""
        return self._versions[doc_id]

    def add(self, event: Mapping[str, Any], *, quarantined: bool = False) -> str:
        """Add an event of the v1 protocol, and return its `_id`."""
        self._now_us = max(self._now_us, event["time_us"])
        identity = identify(event, self._now_us)
        if identity.id in self._versions:
            return identity.id
        kind, did = event["kind"], event["did"]
        inner = event[kind]
        collection, rkey, rev, operation = (
            inner.get(name, "") for name in ("collection", "rkey", "rev", "operation")
        )
        rev_us = tid.to_micros(rev)
        times = [identity.instant_us, event["time_us"]]
        time_us = min(times if rev_us is None else [*times, rev_us])
        account = self._add_account(did, inner) if kind == "account" else None
        if operation in self._highest:
            key = did, collection, rkey
            self._highest[operation][key] = max(rev, self._highest[operation].get(key, ""))
        self._versions[identity.id] = Version(
            kind, did, collection, rkey, rev, operation, time_us, quarantined, account
        )
        return identity.id

    def expected(self, doc_id: str) -> Expected:
        """Return the forms in which the document may be stored."""
        version = self._versions[doc_id]
        if self._deletions is Deletions.KEEP:
            return _CONTENT
        account = self._account(version.did)
        is_deletion = version.account is not None and version.account.deleted
        if version.time_us <= account.redacted_until and not is_deletion:
            return Expected(content=False, reasons=frozenset({"account"}))
        reasons = self._reasons(version)
        content = not reasons
        redacted_until = max(account.redacted_until, account.perhaps_redacted_until)
        keeps_did = version.account is not None and version.account.time_us == account.deleted_us
        if version.time_us <= redacted_until and not (is_deletion and keeps_did):
            reasons.add("account")
        return Expected(content, _is_hidden(version, account), frozenset(reasons))

    def _add_account(self, did: str, inner: Mapping[str, Any]) -> AccountEvent | None:
        if (time_us := parse_time(inner["time"])) is None:
            return None
        one = AccountEvent(time_us, len(self._versions), inner["active"], inner.get("status"))
        self._account_events[did].append(one)
        self._accounts.pop(did, None)
        return one

    def _reasons(self, version: Version) -> set[str]:
        """Return the reasons for which a later version of the record replaces this one."""
        # A deletion has no content, unless its raw JSON is in quarantine.
        if version.kind != "commit" or (version.operation == "delete" and not version.quarantined):
            return set()
        key = version.did, version.collection, version.rkey
        return {
            _REASONS[operation]
            for operation, highest in self._highest.items()
            if highest.get(key, "") > version.rev
        }

    def _account(self, did: str) -> _Account:
        if (found := self._accounts.get(did)) is None:
            found = self._accounts[did] = _account(
                self._account_events.get(did, ()), at_once=self._deletions is Deletions.APPLY_AT_ONCE
            )
        return found


def _account(events: Sequence[AccountEvent], *, at_once: bool) -> _Account:
    """Return what all events of an account mean for its documents."""
    if not events:
        return _UNCHANGED
    newest_us = max(one.time_us for one in events)
    newest = {one.active for one in events if one.time_us == newest_us}
    until = newest_us + TOLERANCE_US
    # Two events of the same time that contradict each other: the order in which they are applied decides.
    found = _Account(
        hidden_until=until if newest == {False} else _NEVER,
        perhaps_hidden_until=until if newest == {False, True} else _NEVER,
    )
    for one in events if at_once else ():
        if not one.deleted:
            continue
        until = one.time_us + TOLERANCE_US
        returns = [other for other in events if other.active and other.time_us >= one.time_us]
        if not returns:
            found = found._replace(
                redacted_until=max(until, found.redacted_until),
                deleted_us=max(one.time_us, found.deleted_us),
            )
        elif all(other.number > one.number or other.time_us == one.time_us for other in returns):
            # It may be redacted before the account returns. After that it is not: a migration.
            found = found._replace(perhaps_redacted_until=max(until, found.perhaps_redacted_until))
    return found


def _is_hidden(version: Version, account: _Account) -> bool | None:
    if version.kind == "account":
        return False
    if version.time_us <= account.hidden_until:
        return True
    return None if version.time_us <= account.perhaps_hidden_until else False
