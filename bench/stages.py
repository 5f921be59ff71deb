"""What each stage of an event costs by itself, in µs of CPU: the least of several passes, on one thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import websocket

from bench.rig import Rig
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


def receiving(rig: Rig, count: int, passes: int = 3) -> dict[str, float]:
    """From socket to frame, by wire."""
    ways = {"v1 plain": ("v1", "off"), "v2 plain": ("v2", "off"), "v2 zstd": ("v2", "on")}
    with rig.jetstream(count) as url:
        return {
            name: min(_receive(url, protocol, compress, count) for _ in range(passes))
            for name, (protocol, compress) in ways.items()
        }


def _receive(url: str, protocol: str, compress: str, count: int) -> float:
    config = parse_options(["--jetstream", url, "--protocol", protocol, "--compress", compress], {})
    line = Dialer(config, Subscription.of(config)).connect(url, 0, None)
    line.connection.settimeout(10)
    unpack, received = line.unpack, 0
    frames: list[bytes] = []
    began = time.thread_time()
    while received < count:
        for opcode, data in line.connection.receive():
            if opcode == websocket.ABNF.OPCODE_TEXT or opcode == websocket.ABNF.OPCODE_BINARY:
                frames.append(unpack(data))
        if len(frames) >= _BATCH or received + len(frames) >= count:
            line.portion(frames, "127.0.0.1")
            received += len(frames)
            frames = []
    used = time.thread_time() - began
    line.connection.shutdown()
    return used / count * 1e6


def making(frames: list[bytes]) -> dict[str, float]:
    """From frame to action. The short way, of the frames that take it, replaces the three before it."""
    events = [parse(frame) for frame in frames]
    now = int(time.time() * 1e6)
    documents = [build(event, "127.0.0.1", now) for event in events]
    unknown_fields = UnknownFields(committed(), "bench")
    express = FastPath(is_noteworthy=unknown_fields.find)
    short = [frame for frame in frames if express.make(frame, "127.0.0.1", now)]
    return {
        "parse": _least(parse, frames),
        "document": _least(lambda event: build(event, "127.0.0.1", now), events),
        "drift": _least(unknown_fields.find, events),
        "short way instead": _least(lambda frame: express.make(frame, "127.0.0.1", now), short),
        "action": _least(lambda one: create(f"bench-{day_of(one.day)}", one.id, one.body), documents),
    }


def sending(rig: Rig, frames: list[bytes]) -> float:
    """Bulk requests and their answers, the client's side of it; all threads of this process."""
    config = parse_options(["--es", rig.node.url], {})
    elastic = Elastic(config, Secrets(()))
    with rig.prefix() as prefix:
        now = int(time.time() * 1e6)
        documents = [build(parse(frame), "127.0.0.1", now) for frame in frames]
        rig.make_indices(prefix, {one.day for one in documents})
        actions = [create(f"{prefix}-{day_of(one.day)}", one.id, one.body) for one in documents]
        # The pool and the node have something to warm up to.
        list(send(elastic.client, actions[:_BATCH]))
        began = time.process_time()
        for at in range(_BATCH, len(actions), _BATCH):
            if any(item.status >= 300 for item in send(elastic.client, actions[at : at + _BATCH])):
                raise RuntimeError("Elasticsearch refused some of the documents")
        used = time.process_time() - began
    elastic.close()
    return used / (len(frames) - _BATCH) * 1e6


def _least(work: Callable[[T], object], inputs: Iterable[T]) -> float:
    """What comes of it is not kept: a heap of results would cost the collector more than the work."""
    inputs = list(inputs)

    def once() -> float:
        began = time.thread_time()
        deque(map(work, inputs), maxlen=0)
        return time.thread_time() - began

    return min(once() for _ in range(_PASSES)) / len(inputs) * 1e6


def repeated(frames: list[bytes], least: int) -> list[bytes]:
    """A small corpus, often enough to be measured."""
    return frames * (least // len(frames) + 1)


def corpora(folder: Path) -> Iterable[tuple[str, Path]]:
    """Recorded events, where they are beside the project."""
    for name in ("real", "simulated"):
        path = folder / f"jetstream-v1-{name}.jsonl"
        if path.is_file():
            yield name, path
