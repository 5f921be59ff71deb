"""Ranges of an archive: all matching rows in order, whatever happens to the downloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from slurp.archive.blocks import DamagedArchive, RowKind
from slurp.archive.client import Client
from slurp.archive.plans import Filter
from slurp.backfill import source
from slurp.backfill.source import Archive, Range
from slurp.backfill.spool import Spool
from slurp.backoff import Backoff
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import until

OPTIONS = ServerOptions(archive_segment=200, archive_block=32)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(seed=4, server=OPTIONS) as simulator:
        yield simulator.generate(2200)


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "Backoff", lambda first, cap: Backoff(first=0.01, cap=0.05))


def archive_of(
    simulator: Simulator, folder: Path, stop: threading.Event, wanted: Filter | None = None
) -> Archive:
    connect = partial(Client, simulator.url)
    return Archive(connect, Spool(folder / "spool"), wanted or Filter(), stop)


@pytest.mark.parametrize(("after", "before"), [(0, 2000), (55, 444), (399, 400), (1999, 2000)])
def test_a_range_has_its_rows_in_order(
    simulator: Simulator, tmp_path: Path, stop: threading.Event, after: int, before: int
) -> None:
    archive = archive_of(simulator, tmp_path, stop)
    found = [row.seq for row in archive.read(Range(after, before))]
    assert found == [*range(after + 1, min(before, 2000) + 1)]
    assert archive.sealed_tip() == 2000
    assert archive.received > 0
    assert not list((tmp_path / "spool").iterdir())


def test_an_empty_range_needs_no_request(simulator: Simulator, tmp_path: Path, stop: threading.Event) -> None:
    assert not list(archive_of(simulator, tmp_path, stop).read(Range(500, 500)))
    assert not simulator.archive.requests


def test_rows_are_filtered_as_the_plan_is_coarse(
    simulator: Simulator, tmp_path: Path, stop: threading.Event
) -> None:
    rows = simulator.archive.rows()
    did, nsid = rows[100].did, "app.bsky.feed.post"
    for wanted, expected in (
        (Filter(dids=[did]), [row for row in rows if row.did == did]),
        (Filter(collections=[nsid]), [row for row in rows if row.collection in (nsid, "")]),
        (
            Filter(collections=["app.bsky.graph.*"]),
            [row for row in rows if row.collection.startswith("app.bsky.graph.") or not row.collection],
        ),
    ):
        assert list(archive_of(simulator, tmp_path, stop, wanted).read(Range(0, 2000))) == expected


def test_a_range_of_time_has_all_of_its_files(
    simulator: Simulator, tmp_path: Path, stop: threading.Event
) -> None:
    rows = simulator.archive.rows()
    archive = archive_of(simulator, tmp_path, stop)
    begin, end = rows[500].witnessed_at, rows[900].witnessed_at
    found = archive.range_of(begin, end)
    assert found is not None
    span, is_sealed = found
    assert is_sealed
    expected = [row for row in rows if begin <= row.witnessed_at <= end]
    assert list(archive.read(span)) == expected
    assert archive.range_of(rows[-1].witnessed_at, rows[-1].witnessed_at + 10**9) == (
        Range(1800, 2000, rows[-1].witnessed_at, rows[-1].witnessed_at + 10**9),
        False,
    )
    assert archive.range_of(0, 1000) is None


def test_failing_downloads_and_compaction_lose_no_row(
    simulator: Simulator, tmp_path: Path, stop: threading.Event
) -> None:
    simulator.archive.page = 3
    archive = archive_of(simulator, tmp_path, stop)
    reading = archive.read(Range(0, 2000))
    found = [next(reading)]
    simulator.archive.failures += [(503, {}, b""), (429, {"Retry-After": "0"}, b""), (500, {}, b"")]
    simulator.archive.cuts += [0, 1000, 3000, 10, 5000]
    found += [next(reading) for _ in range(100)]
    simulator.archive.compact()
    found += list(reading)
    seqs = [row.seq for row in found]
    assert seqs == sorted(set(seqs))
    # Only what later events have replaced is gone.
    assert {row.seq for row in simulator.archive.rows()} <= set(seqs)


def test_a_damaged_file_is_read_again_and_then_an_error(
    simulator: Simulator, tmp_path: Path, stop: threading.Event
) -> None:
    simulator.archive.damage(1)
    archive = archive_of(simulator, tmp_path, stop)
    found = []
    with pytest.raises(DamagedArchive):
        found += [row.seq for row in archive.read(Range(0, 2000))]
    names = [params["name"] for path, params, _ in simulator.archive.requests if path.endswith("getSegment")]
    assert names.count(["seg_0000000001.jss"]) == 3
    simulator.archive.repair()
    assert [row.seq for row in archive.read(Range(0, 2000))] == [*range(1, 2001)]


def test_reading_ends_at_the_stop(simulator: Simulator, tmp_path: Path, stop: threading.Event) -> None:
    reading = archive_of(simulator, tmp_path, stop).read(Range(0, 2000))
    next(reading)
    stop.set()
    assert len(list(reading)) < 2000
    until(lambda: not any(one.name == "archive-download" for one in threading.enumerate()))


def test_the_copy_of_the_network_ends_where_other_events_begin(tmp_path: Path, stop: threading.Event) -> None:
    with Simulator(seed=4, server=replace(OPTIONS, archive_segment=600)) as simulator:
        copy = [event for event in simulator.generate(2000).frames if b'"operation":"create"' in event]
        simulator.restart(wiped=True)
        simulator.publish(copy[:320])
        simulator.generate(1000)
        rows = simulator.archive.rows()
        first = archive_of(simulator, tmp_path, stop).first_live()
        assert first is not None
        other = next(row.seq for row in rows if row.kind not in (RowKind.CREATE, RowKind.RESYNC_CREATE))
        # A block has 32 rows.
        assert other - 32 < first.seq <= other


def test_the_spool_keeps_what_is_resumed_and_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    for name, size in (("seg_1.jss", 100), ("seg_1.etag", 5), ("seg_2.jss", 100), ("other", 1)):
        (folder / name).write_bytes(bytes(size))
    spool = Spool(folder, max_bytes=200)
    spool.prepare(["seg_1.jss"])
    assert sorted(path.name for path in folder.iterdir()) == ["seg_1.etag", "seg_1.jss"]
    assert spool.take(90, is_first=False)
    assert not spool.take(10, is_first=False)
    # The first download always gets space, or nothing would ever be freed.
    assert spool.take(10, is_first=True)
    spool.remove("seg_1.jss")
    assert spool.take(0, is_first=False)
    assert not list(folder.iterdir())
