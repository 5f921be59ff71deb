"""What must become of the documents of an account. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from slurp.deletions.account_states import AccountState
from slurp.deletions.tombstones import SOURCE_FIELDS, tombstone
from slurp.deletions.versions import overwrite, utc_now
from slurp.elastic.bulk import Action, update_hit
from slurp.events.removals import version_us
from slurp.events.times import parse_time

Json = dict[str, Any]

ACCOUNT_REASON = "account"

# The fields of `_source` that `Target.change` reads.
FIELDS = [
    *SOURCE_FIELDS,
    "hidden",
    "redacted.at",
    "account.active",
    "account.status",
    "jetstream.time_us",
]


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

    @classmethod
    def of(cls, state: AccountState, *, is_due: bool) -> Target:
        """Return the target of an account; `is_due` if it is to be redacted now."""
        is_redacted = is_due or state.is_redacted
        return cls(state.times.hidden_until_us, state.times.deleted_until_us if is_redacted else 0)

    def change(self, hit: Json) -> Change | None:
        """Return the change that a document needs; None if it is as it must be."""
        source = hit["_source"]
        written_us = _written_us(source)
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


def inner(source: Mapping[str, Any], name: str) -> Json:
    """Return an object within a source; {} if an ingest pipeline of the user has removed or changed it."""
    value = source.get(name)
    return value if isinstance(value, dict) else {}


def event_times(source: Json) -> tuple[int | None, int | None]:
    """Return when a server and when the worker received the event (Unix microseconds); None for a time that
    cannot be read."""
    time_us = inner(source, "jetstream").get("time_us")
    ingested = parse_time(str(inner(source, "event").get("ingested")))
    return time_us if type(time_us) is int else None, ingested


def _written_us(source: Json) -> int:
    """Return when a version was written (Unix microseconds); 0 if an ingest pipeline of the user has removed
    all times: the content of a deleted account is removed rather than kept."""
    received_us, ingested_us = event_times(source)
    times = [time for time in (parse_time(str(source.get("@timestamp"))), received_us) if time is not None]
    rev = inner(source, "commit").get("rev")
    return version_us(rev if isinstance(rev, str) else None, *(times or [ingested_us or 0]))


def _is_deletion(source: Json) -> bool:
    account = inner(source, "account")
    return account.get("status") == "deleted" and not account.get("active")
