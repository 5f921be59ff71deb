"""Which accounts are not active, so that later documents of theirs are hidden as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from slurp.events import tid
from slurp.events.identity import Identity
from slurp.events.removals import version_us
from slurp.events.times import MAX_TIME_US

_REV = 13
_NO_REV = ""


class InactiveAccounts:
    """The accounts with documents to hide, by the time of the last version that is hidden.

    Holds the latest `limit` to twice as many of them. Whether an older version belongs to another one must be
    looked up. One thread calls `update` and `load`; any thread may call `affected`.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self.limit = limit
        self._until_us: dict[str, int] = {}
        # Versions up to this time may belong to an account that is not in memory.
        self._forgotten_us = 0
        self._forgotten_rev = _NO_REV

    def load(self, until_us: Mapping[str, int], *, is_complete: bool = True) -> None:
        """Take the accounts with the latest times; not `is_complete` if there are more."""
        self._until_us = dict(until_us)
        if not is_complete:
            self._forget_until(min(until_us.values(), default=MAX_TIME_US))

    def update(self, did: str, until_us: int) -> None:
        """Record that versions of an account up to a time (Unix microseconds) are hidden; 0 for none."""
        if not until_us:
            self._until_us.pop(did, None)
            return
        self._until_us[did] = until_us
        if len(self._until_us) > 2 * self.limit:
            newest = sorted(self._until_us.items(), key=lambda item: item[1])[self.limit :]
            self._until_us = dict(newest)
            self._forget_until(newest[0][1])

    def affected(
        self, dids: Iterable[str], identities: Iterable[Identity], times_us: Iterable[int]
    ) -> set[str]:
        """Return which accounts of these documents may have documents to hide.

        `times_us` are the times at which a server received their events (Unix microseconds).
        """
        until, forgotten, rev = self._until_us, self._forgotten_us, self._forgotten_rev
        if not (until or forgotten):
            return set()
        return {
            did
            for did, identity, time_us in zip(dids, identities, times_us, strict=True)
            if identity.id < rev
            or identity.instant_us < forgotten
            or time_us < forgotten
            or (did in until and _written_us(identity, time_us) <= until.get(did, 0))
        }

    def _forget_until(self, time_us: int) -> None:
        self._forgotten_us = max(self._forgotten_us, time_us)
        self._forgotten_rev = tid.from_micros(min(self._forgotten_us, 2**53 - 1))


def _written_us(identity: Identity, time_us: int) -> int:
    # The `_id` of a commit starts with its rev.
    return version_us(identity.id[:_REV], identity.instant_us, time_us)
