"""What a stored event costs: bytes on disk, also by field, and CPU time of the node for indexing and merging.

The documents of each store are built beforehand and sent into one index by two threads of `http.client`, so
that only the documents, their ids and the mapping differ.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench import version_0_1_0
from bench.contenders import send_bodies
from bench.environment import BenchEnvironment
from slurp.documents.document import build
from slurp.elastic.bulk import create
from slurp.elastic.features import Features
from slurp.elastic.templates import IndexOptions, Templates
from slurp.events.frames import parse
from slurp.lexicons import committed

Json = dict[str, Any]

_HOST = "jetstream1.us-west.bsky.network"
_BODY_SIZE = 2500
"""Documents in a request."""
_TIMEOUT = 600


@dataclass(frozen=True)
class Store:
    """One way to store an event."""

    index: Json
    """The body of the request that creates the index."""
    action: Callable[[str, bytes], bytes]
    """Returns the lines of a bulk request for an index name and a v1 frame."""


@dataclass(frozen=True)
class Cost:
    """What a store used for each event."""

    size: float
    """Bytes on disk in one segment."""
    indexing: float
    """CPU time of the node in µs, with the merges that it begins meanwhile."""
    merging: float
    """CPU time of the node in µs for merging all segments into one."""
    fields: dict[str, float]
    """Bytes by field, and `_source` and the like."""
    rejected: int
    """Number of documents."""

    @property
    def cpu(self) -> float:
        """CPU time of the node in µs, for indexing and merging."""
        return self.indexing + self.merging


def own() -> Store:
    """Return what the worker writes."""
    templates = Templates("bench", IndexOptions(replicas=0), Features(), committed())
    settings = templates.components["bench@settings"]["template"]["settings"]
    now = int(time.time() * 1e6)

    def action(index: str, frame: bytes) -> bytes:
        document = build(parse(frame), _HOST, now)
        return create(index, document.id, document.body) + b"\n"

    return Store({"settings": settings, "mappings": templates.mappings}, action)


def of_version_0_1_0() -> Store:
    """Return what version 0.1.0 wrote."""
    now = int(time.time() * 1e6)

    def action(index: str, frame: bytes) -> bytes:
        document = version_0_1_0.document(frame, _HOST, now)
        return create(index, document.id, document.body) + b"\n"

    return Store(version_0_1_0.index_body(), action)


def dynamic() -> Store:
    """Return what a tool without a mapping writes: the raw event, with an `_id` by Elasticsearch."""
    settings = {"number_of_replicas": 0, "mapping": {"total_fields": {"limit": 5000}}}
    return Store({"settings": {"index": settings}}, create_without_id)


def create_without_id(index: str, document: bytes) -> bytes:
    """Return the lines of a bulk request for a document whose `_id` Elasticsearch chooses."""
    return f'{{"create":{{"_index":"{index}"}}}}\n'.encode() + document + b"\n"


def bodies(store: Store, index: str, frames: Sequence[bytes]) -> list[bytes]:
    """Return the bodies of the bulk requests for all frames."""
    lines = [store.action(index, frame) for frame in frames]
    return [b"".join(lines[at : at + _BODY_SIZE]) for at in range(0, len(lines), _BODY_SIZE)]


def merge(env: BenchEnvironment, index: str) -> None:
    """Merge all segments of an index into one."""
    env.es.options(request_timeout=_TIMEOUT).indices.forcemerge(index=index, max_num_segments=1)
    # The reader that sees only the new segment replaces the one that keeps the merged ones on disk.
    env.es.indices.refresh(index=index)


def measure(
    env: BenchEnvironment, frames: Sequence[bytes], stores: dict[str, Store], rounds: int
) -> dict[str, Cost]:
    """Return the medians of `rounds` rounds, in which the stores take turns."""
    found: dict[str, list[Cost]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name, store in stores.items():
            found[name].append(_measure(env, frames, store))
    return {
        name: Cost(
            statistics.median(cost.size for cost in costs),
            statistics.median(cost.indexing for cost in costs),
            statistics.median(cost.merging for cost in costs),
            costs[-1].fields,
            costs[-1].rejected,
        )
        for name, costs in found.items()
    }


def _measure(env: BenchEnvironment, frames: Sequence[bytes], store: Store) -> Cost:
    count = len(frames)
    with env.prefix() as prefix:
        index = f"{prefix}-cost"
        requests = bodies(store, index, frames)
        env.es.indices.create(index=index, **store.index)
        node = env.node_usage()
        _, rejected = send_bodies(env, requests)
        count -= len(rejected)
        env.es.indices.refresh(index=index)
        indexing = node.cpu
        merge(env, index)
        used = node.cpu
        client = env.es.options(request_timeout=_TIMEOUT)
        usage = client.indices.disk_usage(index=index, run_expensive_tasks=True)
        size = usage[index]["store_size_in_bytes"]
        fields = {name: one["total_in_bytes"] / count for name, one in usage[index]["fields"].items()}
        return Cost(
            size / count, indexing / count * 1e6, (used - indexing) / count * 1e6, fields, len(rejected)
        )
