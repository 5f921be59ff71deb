"""The model of deletions that the chaos oracle uses."""

from __future__ import annotations

from typing import Any

import pytest

from slurp.events import tid
from slurp.events.times import isoformat
from tests.chaos.deletion_model import DeletionModel, Deletions, Expected

NOW = 1_795_464_168_637_452
SECOND = 1_000_000
DID = "did:plc:alice"
Event = dict[str, Any]


def commit(
    operation: str, at: int, rkey: str = "self", *, rev: str | None = None, arrived: int | None = None
) -> Event:
    """Return a commit that is written `at` seconds from now, and received then or when it `arrived`."""
    body = {} if operation == "delete" else {"record": {"$type": "a.b.c", "text": f"at {at}"}, "cid": "c"}
    return {
        "did": DID,
        "time_us": NOW + (at if arrived is None else arrived) * SECOND,
        "kind": "commit",
        "commit": {
            "rev": rev or tid.from_micros(NOW + at * SECOND),
            "operation": operation,
            "collection": "a.b.c",
            "rkey": rkey,
            **body,
        },
    }


def account(at: int, status: str = "", arrived: int | None = None) -> Event:
    when = isoformat(NOW + at * SECOND)
    inner: Event = {"active": not status, "did": DID, "time": when} | ({"status": status} if status else {})
    time_us = NOW + (at if arrived is None else arrived) * SECOND
    return {"did": DID, "time_us": time_us, "kind": "account", "account": inner}


def identity(at: int) -> Event:
    inner = {"did": DID, "handle": "alice.example", "time": isoformat(NOW + at * SECOND)}
    return {"did": DID, "time_us": NOW + at * SECOND, "kind": "identity", "identity": inner}


def sync(at: int) -> Event:
    rev = tid.from_micros(NOW + at * SECOND)
    return {"did": DID, "time_us": NOW + at * SECOND, "kind": "sync", "sync": {"did": DID, "rev": rev}}


CONTENT, HIDDEN = Expected(), Expected(hidden=True)


def tombstone_of(*reasons: str) -> Expected:
    return Expected(content=False, reasons=frozenset(reasons))


def perhaps(expected: Expected, *reasons: str) -> Expected:
    return expected._replace(reasons=frozenset(reasons))


def expectations(events: list[Event], deletions: Deletions = Deletions.APPLY) -> list[Expected]:
    model = DeletionModel(deletions)
    ids = [model.add(event) for event in events]
    return [model.expected(doc_id) for doc_id in ids]


def test_a_deletion_redacts_the_earlier_versions_of_its_record_only() -> None:
    events = [commit("create", 1), commit("create", 2, "other"), commit("delete", 3), commit("create", 4)]
    assert expectations(events) == [tombstone_of("deleted"), CONTENT, CONTENT, CONTENT]
    # The order of delivery does not matter.
    assert expectations(events[::-1]) == [CONTENT, CONTENT, CONTENT, tombstone_of("deleted")]


def test_an_update_redacts_earlier_versions_and_a_create_does_not() -> None:
    events = [commit("create", 1), commit("create", 2), commit("update", 3), commit("update", 4)]
    assert expectations(events) == [tombstone_of("updated")] * 3 + [CONTENT]


def test_a_version_that_was_updated_and_deleted_later_has_either_reason() -> None:
    events = [commit("create", 1), commit("update", 2), commit("delete", 3), commit("delete", 4)]
    assert expectations(events) == [
        tombstone_of("updated", "deleted"),
        tombstone_of("deleted"),
        CONTENT,
        CONTENT,
    ]


def test_revs_are_compared_as_text() -> None:
    events = [commit("create", 1, rev="b"), commit("create", 2, rev="a-"), commit("delete", 3, rev="a")]
    assert expectations(events) == [CONTENT, CONTENT, CONTENT]
    assert expectations([*events, commit("update", 0, rev="aa")])[1] == tombstone_of("updated")


def test_a_quarantined_deletion_is_redacted_like_other_versions() -> None:
    model = DeletionModel(Deletions.APPLY)
    first = model.add(commit("delete", 1), quarantined=True)
    model.add(commit("delete", 2))
    assert model.expected(first) == tombstone_of("deleted")


def test_without_deletions_everything_keeps_its_content() -> None:
    events = [commit("create", 1), commit("delete", 2), account(3, "deleted")]
    assert expectations(events, Deletions.KEEP) == [CONTENT] * 3


# Accounts


@pytest.mark.parametrize("status", ["deactivated", "takendown", "suspended", "deleted", "desynchronized"])
def test_an_inactive_account_is_hidden_up_to_five_minutes_later(status: str) -> None:
    events = [
        *(commit("create", 1), identity(2), sync(3), commit("delete", 4, "x"), account(5, status)),
        *(commit("create", 304, "in time"), commit("create", 306, "too late")),
    ]
    assert expectations(events) == [HIDDEN] * 4 + [CONTENT, HIDDEN, CONTENT]


def test_the_latest_account_event_by_its_inner_time_decides() -> None:
    written, inactive, active = commit("create", 1), account(5, "suspended"), account(6)
    assert expectations([written, inactive, active]) == [CONTENT] * 3
    assert expectations([written, active, inactive]) == [CONTENT] * 3
    assert expectations([written, inactive, active, account(7, "takendown")])[0] == HIDDEN
    # At the same time with another content: either may have been applied last.
    assert expectations([written, account(5), inactive])[0] == Expected(hidden=None)


def test_the_time_of_a_version_is_that_of_its_rev_unless_it_is_invalid_or_in_the_future() -> None:
    year = 365 * 86_400
    events = [
        commit("create", 400, "no TID", rev="first"),
        commit("create", year, "future", arrived=400),
        commit("create", -year, "past", arrived=400),
        account(5, "deactivated"),
    ]
    assert expectations(events) == [CONTENT, CONTENT, HIDDEN, CONTENT]


# Deleted accounts without a delay

AT_ONCE = Deletions.APPLY_AT_ONCE


def test_a_deleted_account_is_redacted_with_identity_sync_and_other_account_events() -> None:
    events = [
        *(commit("create", 1), commit("delete", 2), identity(3), sync(4), account(5, "takendown")),
        *(account(6), account(7, "deleted"), commit("create", 308, "later")),
    ]
    redacted = tombstone_of("account")
    assert expectations(events, AT_ONCE) == [redacted] * 6 + [CONTENT] * 2
    # The second of two deletions keeps the DID.
    either = perhaps(CONTENT, "account")
    assert expectations([*events[:7], account(8, "deleted")], AT_ONCE) == [redacted] * 6 + [either, CONTENT]


def test_a_deleted_account_that_returns_may_have_been_redacted() -> None:
    events = [commit("create", 1), account(2, "deleted"), account(3), commit("update", 4)]
    assert expectations(events, AT_ONCE) == [
        tombstone_of("updated", "account"),
        perhaps(CONTENT, "account"),
        perhaps(CONTENT, "account"),
        perhaps(CONTENT, "account"),
    ]
    assert expectations(events, Deletions.APPLY) == [tombstone_of("updated")] + [CONTENT] * 3


def test_a_migrated_account_is_not_redacted() -> None:
    """The old host's deletion arrives after the new host's event, and is older."""
    events = [commit("create", 1), account(5), account(3, "deleted", arrived=6), commit("create", 7, "x")]
    for deletions in Deletions:
        assert expectations(events, deletions) == [CONTENT] * 4
