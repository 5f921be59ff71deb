"""Deletions in large numbers: an account with many records; all of them, or the account, are deleted."""

from __future__ import annotations

from slurp.simulator import account_life
from slurp.simulator.account_life import AccountChange
from slurp.simulator.event_generator import LIKE, POST, REPOST, Change, EventGenerator

_COLLECTIONS = (LIKE, LIKE, LIKE, POST, REPOST)


class BurstAccount:
    """An account that writes only on request. The other accounts do not refer to its records."""

    def __init__(self, generator: EventGenerator) -> None:
        self._generator = generator
        self._account = generator.population.create()
        self._records: list[tuple[str, str]] = []
        self._written = 0

    @property
    def did(self) -> str:
        """The DID of the account."""
        return self._account.did

    def __len__(self) -> int:
        """Return the number of records that exist."""
        return len(self._records)

    def write(self) -> Change:
        """Create a record: mostly likes, some posts and reposts."""
        if self._account.inactive:
            raise ValueError(f"account {self.did} is deleted")
        collection = _COLLECTIONS[self._written % len(_COLLECTIONS)]
        self._written += 1
        change = self._generator.new_record(self._account, collection)
        self._records.append((collection, change.rkey))
        return change

    def delete_record(self) -> Change:
        """Delete the newest record. Raises IndexError if there is none."""
        collection, rkey = self._records.pop()
        return Change(self._account, "delete", collection, rkey)

    def delete(self) -> AccountChange:
        """Delete the account."""
        self._records.clear()
        return account_life.delete(self._account, self._generator.now_us)
