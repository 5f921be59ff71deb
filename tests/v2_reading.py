"""Helpers for tests of the reader on the v2 protocol, against simulated servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from slurp.events.frames import parse
from slurp.simulator.jetstream import Simulator
from tests.harness import Reading

ZSTD = ("--protocol", "auto", "--compress", "on")


@contextmanager
def reading(
    *servers: Simulator, start: int | None = 0, options: tuple[str, ...] = ("--protocol", "auto")
) -> Iterator[Reading]:
    """Run a reader on the servers, from cursor `start`; None is live."""
    running = Reading([server.url for server in servers], start, *options)
    try:
        yield running
    finally:
        running.end()


def events(run: Reading) -> list[dict[str, Any]]:
    """Return the events received."""
    return [parse(frame) for frame in run.frames]


def published(jetstream: Simulator) -> list[dict[str, Any]]:
    """Return the events published by the simulator."""
    return [orjson.loads(frame) for frame in jetstream.frames]


def paths(jetstream: Simulator) -> list[str]:
    """Return the last segment of the path of each request to the simulator, in order."""
    return [record.path.rpartition(".")[2].strip("/") for record in jetstream.connections]
