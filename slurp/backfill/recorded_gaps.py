"""The gaps in `skeetslurper-state` that are not filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elasticsearch import ConflictError, NotFoundError

from slurp.elastic.client import Elastic
from slurp.elastic.pages import pages
from slurp.elastic.templates import STATE_INDEX
from slurp.events.times import parse_time
from slurp.jetstream.subscription import Subscription

Json = dict[str, Any]

_PAGE = 1000


@dataclass
class RecordedGap:
    """A gap. Times are Unix microseconds; the numbers are those of `host`, None if it shows no gap in them.

    `fills` says for each host up to which of its numbers the gap is filled from its archive. `version` is
    that of its document: sequence number and primary term.
    """

    id: str
    host: str
    from_us: int
    to_us: int
    from_cursor: int | None
    to_cursor: int | None
    fills: dict[str, int]
    version: tuple[int, int]


class GapChanged(Exception):
    """The gap was recorded again meanwhile, and may be longer now."""


class RecordedGaps:
    """The gaps of one subscription."""

    def __init__(self, elastic: Elastic, subscription: Subscription) -> None:
        self._elastic = elastic
        self._key = subscription.key

    def unfilled(self) -> list[RecordedGap]:
        """Return the gaps that are not filled, the newest first. Raises the exceptions of the client."""
        client = self._elastic.client
        client.indices.refresh(index=STATE_INDEX)
        query = {"bool": {"filter": [{"term": {"type": "gap"}}, {"term": {"subscription": self._key}}]}}
        found = [
            gap
            for _, page in pages(client, STATE_INDEX, [query], size=_PAGE)
            for hit in page["hits"]["hits"]
            if (gap := _read(hit)) is not None
        ]
        return sorted(found, key=lambda gap: gap.to_us, reverse=True)

    def filled_until(self, gap: RecordedGap, host: str, cursor: int) -> None:
        """Record up to which number a gap is filled. Raises GapChanged, and the exceptions of the client."""
        gap.fills[host] = cursor
        self._update(gap, {"fills": gap.fills})

    def filled(self, gap: RecordedGap, host: str, unfilled: Sequence[tuple[int, int]]) -> None:
        """Record that a gap is filled, except for some periods. Raises as `filled_until`."""
        self._update(
            gap,
            {
                "filled_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "filled_from": host,
                "unfilled": [{"from": begin, "to": end} for begin, end in unfilled],
            },
        )

    def _update(self, gap: RecordedGap, fields: Json) -> None:
        number, term = gap.version
        try:
            done = self._elastic.client.update(
                index=STATE_INDEX, id=gap.id, doc=fields, if_seq_no=number, if_primary_term=term
            )
        except (ConflictError, NotFoundError):
            raise GapChanged(gap.id) from None
        gap.version = done["_seq_no"], done["_primary_term"]


def _read(hit: Json) -> RecordedGap | None:
    """Return a gap; None if it is filled, or was changed so that it is none any more."""
    source = hit["_source"]
    if source.get("filled_at"):
        return None
    begin, end = parse_time(str(source.get("from"))), parse_time(str(source.get("to")))
    host, fills = source.get("host"), source.get("fills")
    if begin is None or end is None or not isinstance(host, str):
        return None
    numbers = [source.get(name) for name in ("from_cursor", "to_cursor")]
    first, last = (one if type(one) is int else None for one in numbers)
    known = fills if isinstance(fills, dict) else {}
    return RecordedGap(
        hit["_id"],
        host,
        begin,
        end,
        first,
        last,
        {name: seq for name, seq in known.items() if type(seq) is int},
        (hit["_seq_no"], hit["_primary_term"]),
    )
