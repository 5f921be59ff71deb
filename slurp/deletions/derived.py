"""Content outside the daily indices that comes from their documents: it is removed or hidden with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from slurp.deletions.examples import remove_examples
from slurp.elastic.actor_documents import ActorDocuments
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.error_classes import Item
from slurp.elastic.trend_rows import TrendRows


class DerivedContent:
    """Rows of trends, names of accounts, and examples of unknown fields.

    The documents themselves are to be refreshed, and states of accounts stored, before: then a row that is
    written afterwards is checked against them by its writer. All methods raise the exceptions of the client.
    """

    def __init__(self, elastic: Elastic, index: str) -> None:
        self._elastic = elastic
        self._rows = TrendRows(elastic, index)
        self._actors = ActorDocuments(elastic)

    def remove_records(self, uris: Collection[str]) -> None:
        """Remove what shows these records."""
        if uris:
            self._rows.refresh()
            self._rows.remove_records(uris)

    def hide(self, accounts: Mapping[str, bool]) -> None:
        """Hide what shows these accounts (True), or show it again."""
        if not accounts:
            return
        self._rows.refresh()
        for hidden in (True, False):
            if dids := [did for did, is_hidden in accounts.items() if is_hidden is hidden]:
                self._rows.hide(dids, hidden=hidden)
                self._actors.hide(dids, hidden=hidden)

    def remove_accounts(self, dids: Collection[str]) -> dict[str, Item]:
        """Remove what shows these accounts; return the errors of those of which something is left."""
        if not dids:
            return {}
        self._rows.refresh()
        self._rows.remove_accounts(dids)
        self._actors.remove(dids)
        try:
            return remove_examples(self._elastic, list(dids))
        except FAILURES as error:
            # Other accounts must not wait for that index.
            return dict.fromkeys(dids, Item(0, "examples", describe(error)))
