"""The rows of `skeetslurper-trends`: one for each value of a list, hour or day.

Rows have deterministic ids, so an hour that is computed again replaces its rows. Each computation has a
generation, a number that grows: a row is never replaced by one of an older generation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson

from slurp.elastic.bulk import Action, chunks, delete_hit, send, update_hit
from slurp.elastic.client import Elastic
from slurp.elastic.error_classes import ItemClass, classify
from slurp.elastic.pages import pages
from slurp.elastic.response_checks import UnexpectedResponse
from slurp.elastic.templates import TRENDS_INDEX

Json = dict[str, Any]

_PAGE = 1000
# Searches for rows that another program has changed since the search before.
_ATTEMPTS = 10


class TrendRows:
    """The rows of one `--index`. All methods raise the exceptions of the client."""

    def __init__(self, elastic: Elastic, index: str) -> None:
        self._elastic = elastic
        self._index = index

    def write(self, rows: Sequence[Mapping[str, Any]], generation: int) -> None:
        """Write rows, without `index` and `generation`; they replace those of older generations."""
        for some in chunks(rows):
            self._send([self._action(row, generation) for row in some])

    def refresh(self) -> None:
        """Make all rows that were written visible to searches."""
        self._elastic.client.indices.refresh(index=TRENDS_INDEX, ignore_unavailable=True)

    def remove_older(self, interval: str, start: str, generation: int) -> None:
        """Remove the rows of an hour or day that a later generation does not have."""
        conditions: list[Json] = [
            {"term": {"interval": interval}},
            {"term": {"@timestamp": start}},
            {"range": {"generation": {"lt": generation}}},
        ]
        self._change([self._query(*conditions)], delete_hit)

    def remove_before(self, interval: str, start: str) -> None:
        """Remove the rows of all hours or days before a time."""
        before = {"range": {"@timestamp": {"lt": start}}}
        self._change([self._query({"term": {"interval": interval}}, before)], delete_hit)

    def remove_records(self, uris: Iterable[str]) -> None:
        """Remove the rows that show these posts."""
        self._change([self._query({"terms": {"uri": chunk}}) for chunk in chunks(sorted(uris))], delete_hit)

    def remove_accounts(self, dids: Iterable[str]) -> None:
        """Remove the rows that show these accounts or their posts."""
        self._change([self._query({"terms": {"did": chunk}}) for chunk in chunks(sorted(dids))], delete_hit)

    def hide(self, dids: Iterable[str], *, hidden: bool) -> None:
        """Hide the rows that show these accounts or their posts, or show them again."""
        is_hidden = {"term": {"hidden": True}}
        wrong = {"bool": {"must_not": [is_hidden]}} if hidden else is_hidden
        queries = [self._query({"terms": {"did": chunk}}, wrong) for chunk in chunks(sorted(dids))]
        self._change(queries, lambda hit: update_hit(hit, {"hidden": True if hidden else None}))

    def _query(self, *conditions: Json) -> Json:
        return {"bool": {"filter": [{"term": {"index": self._index}}, *conditions]}}

    def _change(self, queries: Sequence[Json], action: Callable[[Json], Action]) -> None:
        """Change all rows that these queries find, also those that others change meanwhile."""
        client = self._elastic.client
        for _ in range(_ATTEMPTS):
            conflicts = False
            for _, response in pages(client, TRENDS_INDEX, queries, size=_PAGE, source=False):
                if hits := response["hits"]["hits"]:
                    conflicts |= self._send([action(hit) for hit in hits])
            if not conflicts:
                return
            self.refresh()
        raise UnexpectedResponse("rows of trends change too often")

    def _send(self, actions: Sequence[Action]) -> bool:
        """Return whether another program has changed one of the rows."""
        conflicts = False
        for item in send(self._elastic.client, actions):
            if item.status in (404, 409):
                conflicts |= item.status == 409
            elif classify(item) is not ItemClass.INDEXED:
                raise UnexpectedResponse(f"a row of trends cannot be written: {item}")
        return conflicts

    def _action(self, row: Mapping[str, Any], generation: int) -> Action:
        names = (self._index, row["interval"], row["@timestamp"], row["measure"], row["key"])
        target = {
            "_index": TRENDS_INDEX,
            "_id": blake2b("\0".join(names).encode(), digest_size=16).hexdigest(),
            "version": generation,
            "version_type": "external_gte",
        }
        document = {**row, "index": self._index, "generation": generation}
        return b"%b\n%b" % (orjson.dumps({"index": target}), orjson.dumps(document))
