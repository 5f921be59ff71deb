"""A short chaos run, and whether its oracle sees what it ought to see. `make chaos` is the long one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.documents.document import build, quarantined
from slurp.simulator.jetstream import Simulator
from tests.chaos.__main__ import CONTROL, LOSER
from tests.chaos.faults import KINDS, LONG
from tests.chaos.oracle import ItemClass, Published
from tests.chaos.plan import orders
from tests.chaos.run import run


@pytest.mark.slow
def test_a_minute_of_chaos_loses_and_doubles_nothing(tmp_path: Path) -> None:
    kinds = [kind for kind in KINDS if kind not in LONG]
    report = run(tmp_path / "chaos", seconds=45, seed=170221, rate=1000, kinds=kinds)
    print("\n".join(report.lines()))
    assert not report.failures
    assert report.published > 20_000
    # This seed has them first, as a node may take half a minute to start on a busy machine.
    assert {"answers cut short", "worker killed", "node killed"} <= report.faults.keys()


@pytest.mark.slow
def test_the_oracle_sees_a_worker_that_doubles_events(tmp_path: Path) -> None:
    kinds = ("worker killed", "stream reset")
    report = run(tmp_path / "chaos", seconds=8, seed=1, rate=500, kinds=kinds, program=CONTROL)
    print("\n".join(report.lines()))
    assert report.verdict.double
    assert not report.verdict.lost
    assert report.failures


@pytest.mark.slow
def test_the_oracle_sees_a_worker_that_loses_events(tmp_path: Path) -> None:
    # Nothing that ends the worker or its connection: it would read some blocks again, which mends a loss.
    kinds = ("index blocked", "template deleted")
    report = run(
        tmp_path / "chaos", seconds=8, seed=1, rate=500, kinds=kinds, program=LOSER, outage_log=2, wild=0
    )
    print("\n".join(report.lines()))
    assert report.verdict.lost
    assert not report.verdict.double
    assert report.failures


def test_a_seed_is_a_plan() -> None:
    kinds = list(KINDS)
    plan = list(islice(orders(5, kinds), 200))
    assert plan == list(islice(orders(5, kinds), 200))
    assert plan != list(islice(orders(6, kinds), 200))
    assert {order.kind for order in plan[: len(kinds)]} == KINDS.keys()


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    with Simulator(seed=3) as simulator:
        return simulator.generate(500).frames


def classify(frames: list[bytes], hits: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> ItemClass:
    published = Published()
    for frame in frames:
        published.add(frame)
    return published.compare(hits)


def hits(frames: list[bytes]) -> list[dict[str, Any]]:
    documents = [build(orjson.loads(frame), "host.example", 1) for frame in frames]
    return [{"_id": one.id, "_source": orjson.loads(one.body)} for one in documents]


def test_the_oracle_is_content_with_every_event_once(frames: list[bytes]) -> None:
    verdict = classify(frames, hits(frames))
    assert verdict.holds
    assert verdict == ItemClass(documents=500)


def test_the_oracle_misses_one_event(frames: list[bytes]) -> None:
    assert classify(frames, hits(frames[:-1])) == ItemClass(documents=499, lost=1)


def test_the_oracle_sees_an_event_twice_under_another_id(frames: list[bytes]) -> None:
    found = hits(frames)
    assert classify(frames, [*found, {**found[0], "_id": "other"}]) == ItemClass(
        documents=501, double=1, misnamed=1
    )


def test_the_oracle_sees_a_changed_record(frames: list[bytes]) -> None:
    found = hits(frames)
    changed = next(hit for hit in found if "app.bsky.feed.post" in hit["_source"].get("record", {}))
    changed["_source"]["record"]["app.bsky.feed.post"]["text"] += "!"
    assert classify(frames, found) == ItemClass(documents=500, lost=1, strange=1)


def test_an_event_is_in_quarantine_for_a_reason(frames: list[bytes]) -> None:
    found = hits(frames)
    document = quarantined(orjson.loads(frames[0]), frames[0], "host.example", 1, "refused")
    found[0]["_source"] = orjson.loads(document.body)
    assert classify(frames, found) == ItemClass(documents=500, quarantined=1, wronged=1)
    published = Published()
    for number, frame in enumerate(frames):
        published.add(frame, odd=number == 0)
    verdict = published.compare(found)
    assert verdict.holds
    assert verdict.quarantined == 1
