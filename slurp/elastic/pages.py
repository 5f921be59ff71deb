"""All hits of queries, page by page, at one point in time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from elasticsearch import Elasticsearch

from slurp.elastic.client import FAILURES
from slurp.elastic.response_checks import UnexpectedResponse

Json = dict[str, Any]

# Hidden indices are written to as well.
OPEN = "open,hidden"
# A page may be used for this long before the next one is requested.
_KEEP_ALIVE = "2m"


def pages(
    client: Elasticsearch,
    index: str,
    queries: Iterable[Json],
    *,
    size: int,
    heartbeat: Callable[[], None] = lambda: None,
    **options: Any,
) -> Iterator[tuple[int, Any]]:
    """Yield the responses for pages of `size` hits at the same point in time, each with the number of
    its query.

    Hits have the sequence number for a conditional write. `heartbeat` is called before each request;
    `options` are those of a search. Raises the exceptions of the client, also if a shard did not respond.
    """
    pit = client.open_point_in_time(
        index=index, expand_wildcards=OPEN, keep_alive=_KEEP_ALIVE, ignore_unavailable=True
    )["id"]
    try:
        for number, query in enumerate(queries):
            after: list[Any] | None = None
            while True:
                heartbeat()
                response = client.search(
                    pit={"id": pit, "keep_alive": _KEEP_ALIVE},
                    query=query,
                    seq_no_primary_term=True,
                    sort=["_shard_doc"],
                    search_after=after,
                    size=size,
                    track_total_hits=False,
                    **options,
                )
                pit = response["pit_id"]
                if response["_shards"]["failed"] or response["timed_out"]:
                    raise UnexpectedResponse("a search did not reach all shards")
                yield number, response
                hits = response["hits"]["hits"]
                if len(hits) < size:
                    break
                after = hits[-1]["sort"]
    finally:
        with contextlib.suppress(*FAILURES):  # it expires by itself
            client.close_point_in_time(id=pit)
