"""What is read of an archive to fill a gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurp.archive.blocks import Row
from slurp.archive.client import Client
from slurp.archive.plans import Filter
from slurp.backfill.filler import GapFiller, _Job
from slurp.backfill.recorded_gaps import RecordedGap
from slurp.backfill.source import Archive
from slurp.backfill.spool import Spool
from slurp.config import parse
from slurp.events.times import DAY_US
from slurp.pipeline.channel import Channel
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions

MINUTE_US = 60_000_000


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(seed=4, server=ServerOptions(archive_segment=200, archive_block=32)) as simulator:
        yield simulator.generate(2200, span=7200)


Job = Callable[..., _Job | None]


@pytest.fixture
def job_of(simulator: Simulator, tmp_path: Path) -> Job:
    """Return a function that returns the job for a gap between two rows."""

    def job(
        first: Row,
        last: Row,
        *options: str,
        host: str = "other.example",
        numbers: bool = False,
        fills: dict[str, int] | None = None,
        expired: Callable[[int], bool] = lambda day: False,
        room: int | None = None,
    ) -> _Job | None:
        config = parse(["--jetstream", simulator.url, "--archive-spool", str(tmp_path), *options], {})
        channel = Channel.of(config)
        indices = SimpleNamespace(is_expired=expired)
        disk = SimpleNamespace(room_before=lambda day: room)
        parts: Any = (None, config, channel, [simulator.url], indices, disk)
        filler = GapFiller(*parts)
        stop = channel.shutdown.stop
        archive = Archive(lambda: Client(simulator.url), Spool(tmp_path), Filter(), stop)
        cursors = (first.seq, last.seq) if numbers else (None, None)
        times = first.witnessed_at, last.witnessed_at
        gap = RecordedGap("id", host, times[0], times[1], cursors[0], cursors[1], fills or {}, (0, 1))
        return filler._job(gap, address_of(simulator), archive)

    return job


def address_of(simulator: Simulator) -> str:
    return f"{simulator.host}:{simulator.port}"


def test_a_gap_in_the_numbers_of_the_host_is_read_by_them(simulator: Simulator, job_of: Job) -> None:
    rows = simulator.archive.rows()
    job = job_of(rows[1000], rows[1500], host=address_of(simulator), numbers=True)
    assert job is not None
    # 8,192 events before it may have been numbered again; the first files have no event of an account.
    assert (job.span.after, job.span.before, job.is_sealed, job.unfilled) == (400, 1501, True, [])
    again = job_of(
        rows[1000], rows[1500], host=address_of(simulator), numbers=True, fills={address_of(simulator): 1234}
    )
    assert again is not None
    assert again.span.after == 1234


def test_a_gap_beyond_the_archive_is_filled_later(simulator: Simulator, job_of: Job) -> None:
    rows = simulator.archive.rows()
    late = rows[-1]._replace(seq=2150, witnessed_at=rows[-1].witnessed_at + 10 * MINUTE_US)
    by_number = job_of(rows[1000], late, host=address_of(simulator), numbers=True)
    assert by_number is not None
    assert (by_number.span.before, by_number.is_sealed) == (2000, False)
    by_time = job_of(rows[1000], late)
    assert by_time is not None
    assert not by_time.is_sealed
    later = [row._replace(witnessed_at=row.witnessed_at + DAY_US) for row in (rows[0], rows[1])]
    assert job_of(*later) is None


def test_a_gap_of_another_host_is_read_by_time_with_a_margin(simulator: Simulator, job_of: Job) -> None:
    rows = simulator.archive.rows()
    job = job_of(rows[1000], rows[1100])
    assert job is not None
    assert job.span.from_us == rows[1000].witnessed_at - 5 * MINUTE_US
    assert job.span.to_us == rows[1100].witnessed_at + 5 * MINUTE_US
    assert job.span.after < 1000
    assert job.span.before > 1101


def test_expired_days_are_not_read(simulator: Simulator, job_of: Job) -> None:
    rows = simulator.archive.rows()
    gap = rows[0]._replace(witnessed_at=rows[0].witnessed_at - 3 * DAY_US), rows[1500]
    oldest = rows[0].witnessed_at // DAY_US - 1
    job = job_of(*gap, expired=lambda day: day < oldest)
    assert job is not None
    begin = oldest * DAY_US
    # The copy of the network ends within the first file.
    [(unfilled_from, unfilled_to)] = job.unfilled
    assert unfilled_from == gap[0].witnessed_at
    assert unfilled_to >= begin
    assert job.span.from_us == begin - 5 * MINUTE_US


def test_what_does_not_fit_is_not_read(
    simulator: Simulator, job_of: Job, caplog: pytest.LogCaptureFixture
) -> None:
    rows = simulator.archive.rows()
    gap = rows[400], rows[1500]
    options = {"host": address_of(simulator), "numbers": True}
    job = job_of(*gap, **options, room=500 * 420)
    assert job is not None
    assert (job.span.after, job.span.before) == (1001, 1501)
    [(begin, end)] = job.unfilled
    assert begin == rows[400].witnessed_at
    assert rows[990].witnessed_at <= end <= rows[1001].witnessed_at
    assert "only the last 500 of 1,101 events fit into --max-disk" in caplog.text
    # Filters: the number of matching events is not known.
    filtered = job_of(*gap, "--collections", "app.bsky.feed.post", **options, room=500 * 420)
    assert filtered is not None
    assert filtered.span.after == 400
    assert job_of(*gap, **options, room=10**9) == job_of(*gap, **options)


def test_what_the_archive_does_not_have_is_missing(simulator: Simulator, job_of: Job) -> None:
    rows = simulator.archive.rows()
    job = job_of(rows[0]._replace(witnessed_at=rows[0].witnessed_at - DAY_US), rows[1500])
    assert job is not None
    assert job.missing_us >= DAY_US
    [(begin, end)] = job.unfilled
    assert end - begin == job.missing_us
    whole = job_of(rows[1000], rows[1500])
    assert whole is not None
    assert whole.missing_us == 0
