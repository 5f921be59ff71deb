"""CPU time of each stage of an event by itself, in µs: the minimum of several passes on one thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import websocket

from bench.environment import BenchEnvironment
from slurp.config import parse as parse_options
from slurp.documents.document import build
from slurp.documents.fast_path import FastPath
from slurp.elastic.bulk import create, send
from slurp.elastic.client import Elastic
from slurp.elastic.unknown_fields import UnknownFields
from slurp.events.frames import parse
from slurp.events.times import day_of
from slurp.jetstream.dialer import Dialer
from slurp.jetstream.subscription import Subscription
from slurp.lexicons import committed
from slurp.logs import Secrets

T = TypeVar("T")

_PASSES = 5
_BATCH = 2000


def receiving(env: BenchEnvironment, count: int, passes: int = 3) -> dict[str, float]:
    """Measure the way from socket to frame, by protocol."""
    protocols = {"v1 plain": ("v1", "off"), "v2 plain": ("v2", "off"), "v2 zstd": ("v2", "on")}
    with env.jetstream(count) as url:
        return {
            name: min(_receive(url, protocol, compress, count) for _ in range(passes))
            for name, (protocol, compress) in protocols.items()
        }


def _receive(url: str, protocol: str, compress: str, count: int) -> float:
    config = parse_options(["--jetstream", url, "--protocol", protocol, "--compress", compress], {})
    stream = Dialer(config, Subscription.of(config)).connect(url, 0, None)
    stream.connection.settimeout(10)
    decompress, received = stream.decompress, 0
    frames: list[bytes] = []
    began = time.thread_time()
    while received < count:
        for opcode, data in stream.connection.receive():
            if opcode == websocket.ABNF.OPCODE_TEXT or opcode == websocket.ABNF.OPCODE_BINARY:
                frames.append(decompress(data))
        if len(frames) >= _BATCH or received + len(frames) >= count:
            stream.decode(frames, "127.0.0.1")
            received += len(frames)
            frames = []
    used = time.thread_time() - began
    stream.connection.shutdown()
    return used / count * 1e6


def rendering(frames: list[bytes]) -> dict[str, float]:
    """Measure the way from frame to bulk action. The fast path replaces the first three stages."""
    events = [parse(frame) for frame in frames]
    now = int(time.time() * 1e6)
    documents = [build(event, "127.0.0.1", now) for event in events]
    unknown_fields = UnknownFields(committed(), "bench")
    fast_path = FastPath(has_unknown_fields=unknown_fields.find)
    eligible = [frame for frame in frames if fast_path.render(frame, "127.0.0.1", now)]
    return {
        "parse": _minimum(parse, frames),
        "document": _minimum(lambda event: build(event, "127.0.0.1", now), events),
        "unknown fields": _minimum(unknown_fields.find, events),
        "fast path instead": _minimum(lambda frame: fast_path.render(frame, "127.0.0.1", now), eligible),
        "action": _minimum(lambda one: create(f"bench-{day_of(one.day)}", one.id, one.body), documents),
    }


def sending(env: BenchEnvironment, frames: list[bytes]) -> float:
    """Measure bulk requests and responses on the client side, with all threads of this process."""
    config = parse_options(["--es", env.node.url], {})
    elastic = Elastic(config, Secrets(()))
    with env.prefix() as prefix:
        now = int(time.time() * 1e6)
        documents = [build(parse(frame), "127.0.0.1", now) for frame in frames]
        env.create_indices(prefix, {one.day for one in documents})
        actions = [create(f"{prefix}-{day_of(one.day)}", one.id, one.body) for one in documents]
        # Warm up the connection pool and the node.
        list(send(elastic.client, actions[:_BATCH]))
        began = time.process_time()
        for at in range(_BATCH, len(actions), _BATCH):
            if any(item.status >= 300 for item in send(elastic.client, actions[at : at + _BATCH])):
                raise RuntimeError("Elasticsearch rejected some of the documents")
        used = time.process_time() - began
    elastic.close()
    return used / (len(frames) - _BATCH) * 1e6


def _minimum(work: Callable[[T], object], inputs: Iterable[T]) -> float:
    """Return the µs per input of the fastest pass. Results are dropped, to avoid garbage collection."""
    inputs = list(inputs)

    def once() -> float:
        began = time.thread_time()
        deque(map(work, inputs), maxlen=0)
        return time.thread_time() - began

    return min(once() for _ in range(_PASSES)) / len(inputs) * 1e6


def repeated(frames: list[bytes], least: int) -> list[bytes]:
    """Repeat a small corpus until it has at least `least` frames."""
    return frames * (least // len(frames) + 1)


def corpora(folder: Path) -> Iterable[tuple[str, Path]]:
    """Yield name and path of the recorded corpora, if they exist."""
    for name in ("real", "simulated"):
        path = folder / f"jetstream-v1-{name}.jsonl"
        if path.is_file():
            yield name, path
