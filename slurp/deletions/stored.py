"""Apply the deletions, updates and account events that are stored, whatever was applied before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from slurp.deletions.accounts import Accounts
from slurp.deletions.records import IS_REMOVAL, Redaction, earlier_versions, redact, removal_pages
from slurp.deletions.versions import Versions, text_in
from slurp.events.removals import AccountChange

Json = dict[str, Any]

_INACTIVE: Json = {"bool": {"filter": [{"term": {"kind": "account"}}, {"term": {"account.active": False}}]}}
# A page of hits in the index, for progress.
Advance = Callable[[int], None]


class StoredDeletions:
    """Compares all versions in the daily indices with the stored deletions, and applies what was missed.

    All methods raise the exceptions of the client.
    """

    def __init__(self, versions: Versions, accounts: Accounts) -> None:
        self._versions = versions
        self._accounts = accounts

    def count(self) -> int:
        """Return the number of stored events to compare with."""
        return self._versions.count({"bool": {"should": [IS_REMOVAL, _INACTIVE]}})

    def find(self, advance: Advance) -> Iterator[Json]:
        """Yield the versions that should not have their content, or should be hidden or shown."""
        for count, removals in removal_pages(self._versions, [IS_REMOVAL]):
            for found in earlier_versions(self._versions, removals):
                yield from found
            advance(count)
        for hits in self._versions.search(_INACTIVE, ["did"]):
            yield from self._accounts.unexpected(_accounts_in(hits))
            advance(len(hits))

    def apply(self, advance: Advance) -> Redaction:
        """Redact and hide these versions; `failed` of the result also has accounts."""
        result = Redaction()
        for count, removals in removal_pages(self._versions, [IS_REMOVAL]):
            result.add(redact(self._versions, removals))
            advance(count)
        for hits in self._versions.search(_INACTIVE, ["did"]):
            dids = _accounts_in(hits)
            while not self._accounts.record(map(AccountChange, dids), with_history=True):
                pass  # a worker has changed one of them meanwhile
            result.failed |= self._accounts.settle(dids)
            advance(len(hits))
        return result


def _accounts_in(hits: Iterable[Json]) -> set[str]:
    return {did for hit in hits if (did := text_in(hit, "did"))}
