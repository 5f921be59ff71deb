"""A short chaos run, and tests of its oracle. `make chaos` is the long run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.documents.document import build, quarantined
from slurp.simulator.jetstream import Simulator
from tests.chaos.defective_worker import Defect, _skip_deletions
from tests.chaos.deletion_model import Deletions
from tests.chaos.faults import KINDS, LONG
from tests.chaos.oracle import PublishedEvents, Verdict
from tests.chaos.run import RunOptions, run
from tests.chaos.schedule import random_faults


@pytest.mark.slow
def test_a_minute_of_chaos_has_no_lost_events_and_no_duplicates(tmp_path: Path) -> None:
    kinds = [kind for kind in KINDS if kind not in LONG]
    options = RunOptions(seconds=45, seed=324082, rate=1000, kinds=kinds, least_faults=4)
    report = run(tmp_path / "chaos", options)
    print("\n".join(report.lines()))
    assert not report.failures
    assert report.published > 20_000
    # This seed has them first.
    assert {
        "responses cut short",
        "worker killed",
        "node killed",
        "refresh and search rejected",
    } <= report.faults.keys()


@pytest.mark.slow
def test_the_oracle_detects_a_worker_that_creates_duplicates(tmp_path: Path) -> None:
    kinds = ("worker killed", "stream reset")
    # A tombstone is compared by its `_id`, which this defect changes.
    options = RunOptions(
        seconds=8, seed=1, rate=500, kinds=kinds, defect=Defect.DUPLICATE, deletions=Deletions.KEEP
    )
    report = run(tmp_path / "chaos", options)
    print("\n".join(report.lines()))
    assert report.verdict.duplicates
    assert not report.verdict.lost
    assert report.failures


@pytest.mark.slow
def test_the_oracle_detects_a_worker_that_loses_events(tmp_path: Path) -> None:
    # No faults that end the worker or its connection, and no wait for deletions, in which the silent
    # connection is closed: the events that are then read again would repair the loss.
    options = RunOptions(
        seconds=8,
        seed=1,
        rate=500,
        kinds=("index blocked", "template deleted"),
        defect=Defect.LOSE,
        deletions=Deletions.KEEP,
        idle_timeout=2,
        all_kinds_share=0,
    )
    report = run(tmp_path / "chaos", options)
    print("\n".join(report.lines()))
    assert report.verdict.lost
    assert not report.verdict.duplicates
    assert report.failures


@pytest.mark.slow
def test_the_oracle_detects_a_worker_that_skips_one_deletion_in_a_thousand(tmp_path: Path) -> None:
    options = RunOptions(
        seconds=20,
        seed=1,
        rate=2000,
        # No replay, as above: after a restart the worker may skip others.
        kinds=("index blocked", "template deleted"),
        deletions=Deletions.APPLY,
        deletion_timeout=60,
        defect=Defect.SKIP_DELETION,
        all_kinds_share=0,
    )
    report = run(tmp_path / "chaos", options)
    print("\n".join(report.lines()))
    assert report.verdict.delivered
    # Three or more are skipped; one whose record was deleted again later does not show.
    assert report.verdict.pending
    assert report.failures


def test_the_defect_skips_each_thousandth_removal_whenever_it_is_read() -> None:
    frames = Simulator(seed=3).generate(3000).frames
    events = [orjson.loads(frame) for frame in frames]
    skipping = _skip_deletions(lambda event, now_us: event["did"])
    first, again = ([skipping(event, 0) is None for event in events] for _ in range(2))
    assert [number for number, skipped in enumerate(first, 1) if skipped] == [1000, 2000, 3000]
    assert all(again[number] for number in (999, 1999, 2999))
    none = _skip_deletions(lambda event, now_us: None)
    assert not any(none(event, 0) for event in events)


def test_the_same_seed_gives_the_same_faults() -> None:
    kinds = list(KINDS)
    faults = list(islice(random_faults(5, kinds), 200))
    assert faults == list(islice(random_faults(5, kinds), 200))
    assert faults != list(islice(random_faults(6, kinds), 200))
    assert {fault.kind for fault in faults[: len(kinds)]} == KINDS.keys()


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    with Simulator(seed=3) as simulator:
        return simulator.generate(500).frames


def compare(frames: list[bytes], hits: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> Verdict:
    published = PublishedEvents()
    for frame in frames:
        published.add(frame)
    return published.compare(hits)


def hits(frames: list[bytes]) -> list[dict[str, Any]]:
    documents = [build(orjson.loads(frame), "host.example", 1) for frame in frames]
    return [{"_id": one.id, "_source": orjson.loads(one.body)} for one in documents]


def test_the_oracle_passes_with_every_event_once(frames: list[bytes]) -> None:
    verdict = compare(frames, hits(frames))
    assert verdict.passed
    assert verdict == Verdict(documents=500)


def test_the_oracle_detects_a_lost_event(frames: list[bytes]) -> None:
    assert compare(frames, hits(frames[:-1])) == Verdict(documents=499, lost=1)


def test_the_oracle_detects_a_duplicate_under_another_id(frames: list[bytes]) -> None:
    found = hits(frames)
    assert compare(frames, [*found, {**found[0], "_id": "other"}]) == Verdict(
        documents=501, duplicates=1, wrong_id=1
    )


def test_the_oracle_detects_a_changed_record(frames: list[bytes]) -> None:
    found = hits(frames)
    changed = next(hit for hit in found if "app.bsky.feed.post" in hit["_source"].get("record", {}))
    changed["_source"]["record"]["app.bsky.feed.post"]["text"] += "!"
    assert compare(frames, found) == Verdict(documents=500, lost=1, unknown=1)


def test_the_oracle_detects_a_quarantine_without_a_reason(frames: list[bytes]) -> None:
    found = hits(frames)
    document = quarantined(orjson.loads(frames[0]), frames[0], "host.example", 1, "refused")
    found[0]["_source"] = orjson.loads(document.body)
    assert compare(frames, found) == Verdict(documents=500, quarantined=1, wrongly_quarantined=1)
    published = PublishedEvents()
    for number, frame in enumerate(frames):
        published.add(frame, invalid=number == 0)
    verdict = published.compare(found)
    assert verdict.passed
    assert verdict.quarantined == 1
