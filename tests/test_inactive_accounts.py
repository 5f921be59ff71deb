"""Which accounts are kept in memory, and which of their documents may have to be hidden."""

from __future__ import annotations

from slurp.events import tid
from slurp.events.identity import Identity
from slurp.pipeline.inactive_accounts import InactiveAccounts

DAY = 86_400_000_000
NOW = 1_790_000_000_000_000


def version(at: int, timestamp: int | None = None) -> Identity:
    return Identity(f"{tid.from_micros(at)}-aaaaaaaaaaaaaaaaaaaaaa", at if timestamp is None else timestamp)


def affected(
    accounts: InactiveAccounts, *versions: tuple[str, Identity], time_us: int = NOW + 2 * DAY
) -> set[str]:
    identities = [identity for _, identity in versions]
    return accounts.affected([did for did, _ in versions], identities, [time_us] * len(versions))


def test_only_versions_up_to_the_time_of_the_change_are_affected() -> None:
    accounts = InactiveAccounts()
    assert affected(accounts, ("a", version(0))) == set()
    accounts.update("a", NOW)
    assert affected(accounts, ("a", version(NOW)), ("b", version(NOW))) == {"a"}
    assert affected(accounts, ("a", version(NOW + 1))) == set()
    # An old rev that was announced again today.
    assert affected(accounts, ("a", version(NOW - 9 * DAY, NOW + DAY))) == {"a"}
    # The clock in the rev is ahead of the time at which a server received the event.
    assert affected(accounts, ("a", version(NOW + DAY // 2)), time_us=NOW) == {"a"}
    # No commit: the hash of its `_id` is no rev.
    assert affected(accounts, ("a", Identity("aaaaaaaaaaaaaaaaaaaaaa", NOW))) == {"a"}
    accounts.update("a", 0)
    assert affected(accounts, ("a", version(NOW))) == set()


def test_old_versions_are_affected_if_accounts_were_forgotten() -> None:
    accounts = InactiveAccounts(limit=10)
    for number in range(21):
        accounts.update(str(number), NOW + number)
    # The oldest ones were dropped, so what they may concern must be looked up.
    assert affected(accounts, ("0", version(NOW))) == {"0"}
    assert affected(accounts, ("other", version(NOW))) == {"other"}
    assert affected(accounts, ("other", version(NOW + 12))) == set()
    assert affected(accounts, ("20", version(NOW + 20))) == {"20"}
    assert affected(accounts, ("other", version(NOW + 12)), time_us=NOW) == {"other"}


def test_an_incomplete_load_affects_old_versions() -> None:
    accounts = InactiveAccounts(limit=2)
    accounts.load({"a": NOW, "b": NOW + 5}, is_complete=False)
    assert affected(accounts, ("c", version(NOW - 1)), ("d", version(NOW + 6))) == {"c"}
    accounts.load({"a": NOW})
    assert affected(InactiveAccounts(), ("c", version(NOW - 1))) == set()
