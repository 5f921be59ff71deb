"""Events that remove content: deletions and updates of records, and changes of accounts. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from slurp.events import tid
from slurp.events.frames import uri_of
from slurp.events.times import parse_time

_REASONS = {"delete": "deleted", "update": "updated"}
# A change of an account applies to versions up to this long after its time: the clocks of servers differ.
TOLERANCE_US = 300_000_000
# Longer values are not indexed (slurp/elastic/assets/events.json), so no search finds their documents.
_MAX_URI = 4096
_MAX_DID = 2048


class Removal(NamedTuple):
    """A deletion or update of a record. Its versions with a lower rev are earlier ones.

    Revs are TIDs of one repository, so they sort by time as text (https://atproto.com/specs/tid).
    """

    uri: str
    rev: str
    reason: str
    """`deleted` or `updated`."""


class StoredVersion(NamedTuple):
    """A version of a record, whose later removals may have been applied before it was stored."""

    uri: str


class AccountTimes(NamedTuple):
    """The latest times (Unix microseconds) at which an account was active, not active, and deleted; 0 for
    never.

    They come from the events themselves, so the state does not depend on the order of arrival. `received_us`
    is when a server received the last deletion.
    """

    active_us: int = 0
    inactive_us: int = 0
    deleted_us: int = 0
    received_us: int = 0

    def merge(self, other: AccountTimes) -> AccountTimes:
        """Return the later of both times each."""
        return AccountTimes(*map(max, self, other))

    @property
    def hidden_until_us(self) -> int:
        """Versions up to this time are hidden; 0 if the account is active."""
        return self.inactive_us + TOLERANCE_US if self.inactive_us > self.active_us else 0

    @property
    def deleted_until_us(self) -> int:
        """Versions up to this time are deleted with the account; 0 if it is not deleted."""
        return self.deleted_us + TOLERANCE_US if self.deleted_us > self.active_us else 0


NEVER = AccountTimes()


class AccountChange(NamedTuple):
    """Times of an account that an event adds. Without any, its state is only applied once more."""

    did: str
    times: AccountTimes = NEVER


def version_uri(event: Mapping[str, Any]) -> str | None:
    """Return the URI of the record that a checked event creates or updates; None for other events."""
    if event["kind"] != "commit" or event["commit"]["operation"] == "delete":
        return None
    uri = uri_of(event)
    return uri if len(uri) <= _MAX_URI else None


def removal_of(event: Mapping[str, Any], now_us: int) -> Removal | AccountChange | None:
    """Return what a checked event removes or changes; None for an event that does neither."""
    kind = event["kind"]
    if kind == "commit":
        commit = event["commit"]
        if (reason := _REASONS.get(commit["operation"])) is None:
            return None
        uri = uri_of(event)
        return Removal(uri, commit["rev"], reason) if len(uri) <= _MAX_URI else None
    if kind == "account" and is_indexed(event["did"]):
        return AccountChange(event["did"], account_times(event["account"], event["time_us"], now_us))
    return None


def is_indexed(did: str) -> bool:
    """Return whether the documents of an account are found by its DID."""
    return len(did) <= _MAX_DID


def account_times(account: Mapping[str, Any], time_us: int, now_us: int) -> AccountTimes:
    """Return the times that one account event says; `time_us` is when a server received it, at `now_us` at
    the latest.

    Its own time counts, unless that cannot be read or is more than five minutes after `time_us`: such a time
    would outweigh later events.
    """
    received_us = min(time_us, now_us)
    own = parse_time(str(account.get("time")))
    instant = own if own is not None and own <= received_us + TOLERANCE_US else received_us
    if account.get("active") is True:
        return AccountTimes(active_us=instant)
    if account.get("status") != "deleted":
        return AccountTimes(inactive_us=instant)
    return AccountTimes(inactive_us=instant, deleted_us=instant, received_us=received_us)


def version_us(rev: str | None, *times_us: int) -> int:
    """Return when a version was written (Unix microseconds).

    It is the earliest of the time in its rev, if that is a TID, and of times at which the version existed:
    the clock of the rev may be ahead.
    """
    own = tid.to_micros(rev) if rev else None
    return min(times_us if own is None else (own, *times_us))


def latest(removals: Iterable[Removal]) -> dict[str, Removal]:
    """Return the removal with the highest rev of each record, by `uri`: it includes the others."""
    found: dict[str, Removal] = {}
    for removal in removals:
        known = found.get(removal.uri)
        if known is None or removal.rev > known.rev:
            found[removal.uri] = removal
    return found


def merged(changes: Iterable[AccountChange]) -> dict[str, AccountTimes]:
    """Return the times of each account, by `did`."""
    found: dict[str, AccountTimes] = {}
    for did, times in changes:
        found[did] = found.get(did, NEVER).merge(times)
    return found
