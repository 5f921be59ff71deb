"""The five queries of JSONBench on a daily index of the worker and on the index of the textbook script.

https://github.com/ClickHouse/JSONBench
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import orjson

from bench import cost, textbook
from bench.contenders import send_bodies
from bench.environment import BenchEnvironment

Json = dict[str, Any]

_WARM_UPS, _RUNS = 15, 21


def textbook_store() -> cost.Store:
    """Return what the textbook script writes: dynamic mapping, an `_id` by Elasticsearch."""

    def action(index: str, frame: bytes) -> bytes:
        return cost.create_without_id(index, orjson.dumps(textbook.document(orjson.loads(frame))))

    return cost.Store({"settings": {"index": {"number_of_replicas": 0}}}, action)


def queries(suffix: str) -> dict[str, Json]:
    """Return the bodies by title; `suffix` is what dynamic mapping adds to the name of a keyword."""
    did, collection = f"did{suffix}", f"commit.collection{suffix}"
    created: list[Json] = [
        {"term": {f"kind{suffix}": "commit"}},
        {"term": {f"commit.operation{suffix}": "create"}},
    ]
    posts = [*created, {"term": {collection: "app.bsky.feed.post"}}]
    people = [
        *created,
        {"terms": {collection: ["app.bsky.feed.post", "app.bsky.feed.repost", "app.bsky.feed.like"]}},
    ]
    by_collection = {"terms": {"field": collection, "size": 100}}
    # Of a day one has the hour as a field; the textbook has the time.
    by_hour: Json = (
        {"date_histogram": {"field": "@timestamp", "fixed_interval": "1h"}}
        if suffix
        else {"terms": {"field": "event.hour", "size": 24}}
    )
    first, last = {"min": {"field": "@timestamp"}}, {"max": {"field": "@timestamp"}}
    return {
        "events by collection": _body([], {"by": by_collection}),
        "with distinct users": _body(
            created, {"by": {**by_collection, "aggs": {"users": {"cardinality": {"field": did}}}}}
        ),
        "by hour": _body(people, {"by": {**by_collection, "aggs": {"hour": by_hour}}}),
        "first posters": _body(
            posts,
            {"by": {"terms": {"field": did, "size": 3, "order": {"first": "asc"}}, "aggs": {"first": first}}},
        ),
        # The difference is computed by the client: the embedded node has no scripts.
        "longest activity": _body(
            posts,
            {"by": {"terms": {"field": did, "size": 1000}, "aggs": {"first": first, "last": last}}},
        ),
    }


def measure(env: BenchEnvironment, frames: Sequence[bytes]) -> dict[str, tuple[float, float]]:
    """Return the median milliseconds of each query, on a daily index and on that of the textbook script."""
    with env.prefix() as prefix:
        names = {"own": f"{prefix}-own", "textbook": f"{prefix}-textbook"}
        for name, store in (("own", cost.own()), ("textbook", textbook_store())):
            env.es.indices.create(index=names[name], **store.index)
            _, rejected = send_bodies(env, cost.bodies(store, names[name], frames))
            if name == "own" and rejected:
                raise RuntimeError(f"Elasticsearch rejected {rejected[0]}")
            cost.merge(env, names[name])
        ours, theirs = queries(""), queries(".keyword")
        return {
            title: _medians(env, (names["own"], ours[title]), (names["textbook"], theirs[title]))
            for title in ours
        }


def _body(filters: list[Json], aggregations: Json) -> Json:
    return {"size": 0, "query": {"bool": {"filter": filters}}, "aggs": aggregations}


def _medians(env: BenchEnvironment, own: tuple[str, Json], other: tuple[str, Json]) -> tuple[float, float]:
    """Return the medians of two queries in turns: the first runs of a query compile it for both."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(_WARM_UPS + _RUNS):
        for (index, body), taken in zip((own, other), times, strict=True):
            began = time.perf_counter()
            response = env.es.search(index=index, request_cache=False, **body)
            if not response["aggregations"]["by"]["buckets"]:
                raise RuntimeError(f"no result on {index}: {body}")
            if number >= _WARM_UPS:
                taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])
