"""What happens to accounts: deactivation and its end, takedown, deletion, migration. No I/O."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from slurp.simulator.accounts import Account, Population

_MAX_INACTIVE = 1 / 20
"""Share of accounts that may be inactive at a time, for a while."""
_REACTIVATED = 0.25
_RETURNING = 0.1
"""Share of deleted accounts that return. Each of the others is replaced by a new account."""
_OLD_HOST_US = 3_000_000
"""Microseconds by which the old host's event of a migration is older than the new host's, at most."""


class AccountChange(NamedTuple):
    """An account event."""

    account: Account
    active: bool
    status: str
    """Empty for an active account."""
    time_ms: int
    """The inner time of the event."""


class AccountLife:
    """Decides about account events. An inactive account writes nothing."""

    def __init__(
        self, population: Population, rng: random.Random, active_account: Callable[[], Account]
    ) -> None:
        """`active_account` returns a random account that is active."""
        self._population = population
        self._random = rng.random
        self._active_account = active_account
        self._inactive: list[Account] = []
        # Events that follow from the previous one.
        self._queued: deque[AccountChange] = deque()

    def next_change(self, now_us: int) -> AccountChange:
        """Return the next account event."""
        if self._queued:
            return self._queued.popleft()
        is_full = len(self._inactive) >= len(self._population.accounts) * _MAX_INACTIVE
        if self._inactive and (is_full or self._random() < _REACTIVATED):
            account = self._inactive.pop(int(self._random() * len(self._inactive)))
            account.inactive = False
            return AccountChange(account, True, "", account.notice_ms(now_us))
        account, drawn = self._active_account(), self._random()
        if drawn < 0.25:
            return self._delete(account, now_us)
        if drawn < 0.4:
            return self._migrate(account, now_us)
        # With fewer than twenty accounts none is deactivated: soon none would be left to write.
        if drawn < 0.85 and len(self._inactive) + 1 <= len(self._population.accounts) * _MAX_INACTIVE:
            status = ("deactivated", "deactivated", "takendown", "suspended")[int(self._random() * 4)]
            return self._deactivate(account, status, now_us)
        return AccountChange(account, True, "", account.notice_ms(now_us))

    def _deactivate(self, account: Account, status: str, now_us: int) -> AccountChange:
        account.inactive = True
        self._inactive.append(account)
        return AccountChange(account, False, status, account.notice_ms(now_us))

    def _delete(self, account: Account, now_us: int) -> AccountChange:
        room = len(self._inactive) + 1 <= len(self._population.accounts) * _MAX_INACTIVE
        if room and self._random() < _RETURNING:
            return self._deactivate(account, "deleted", now_us)
        new = self._population.replace(account)
        self._queued.append(AccountChange(new, True, "", new.notice_ms(now_us)))
        return delete(account, now_us)

    def _migrate(self, account: Account, now_us: int) -> AccountChange:
        """Announce the account at its new host; the old host's event comes later and has an earlier time."""
        status = "deleted" if self._random() < 0.5 else "deactivated"
        previous_ms = account.notice_ms(now_us - _OLD_HOST_US)
        active_ms = account.notice_ms(now_us)
        left_ms = previous_ms + int(self._random() * (active_ms - previous_ms))
        self._queued.append(AccountChange(account, False, status, left_ms))
        return AccountChange(account, True, "", active_ms)


def delete(account: Account, now_us: int) -> AccountChange:
    """Return the deletion of an account that does not return."""
    account.inactive = True
    return AccountChange(account, False, "deleted", account.notice_ms(now_us))
