"""What a reader makes of servers that begin elsewhere than asked: wiped, clamped, or only quiet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from slurp.events.frames import parse
from slurp.events.position import Gap, Position
from slurp.jetstream.resume_check import Finding, Found, ResumeCheck
from slurp.jetstream.servers import host_of
from slurp.jetstream.stream_range import oldest_event
from slurp.pipeline import resume as cursors_module
from slurp.simulator.connection import Manners
from slurp.simulator.jetstream import Simulator
from tests.harness import Clock, reading, until
from tests.tiers import slow_except

QUIET = "did:plc:aquietaccount"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def short(clock: Clock) -> Iterator[Simulator]:
    """Looks back a quarter of an hour only."""
    with Simulator(port=0, seed=1, clock=clock, manners=Manners(lookback=900)) as simulator:
        yield simulator


@pytest.fixture
def long(clock: Clock) -> Iterator[Simulator]:
    with Simulator(port=0, seed=1, clock=clock) as simulator:
        yield simulator


def spoken(clock: Clock) -> dict[str, Any]:
    """An event of the quiet account."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(clock()))
    return {"did": QUIET, "kind": "identity", "identity": {"did": QUIET, "seq": 1, "time": stamp}}


def last(simulator: Simulator) -> Position:
    event = orjson.loads(simulator.frames[-1])
    return Position(host_of(simulator.url), event["cursor"], event["time_us"])


def ago(time_us: int) -> float:
    return time.time() - time_us / 1e6


# A server that counts anew


def test_a_stale_number_beyond_the_end_does_not_go_live_in_silence(long: Simulator, clock: Clock) -> None:
    long.generate(10_000, span=1000)
    with reading(long) as run:
        until(lambda: len(run.frames) == 10_000)
        long.faults.refuse(503, "booting")
        long.restart(wiped=True)
        missed = long.generate(500, span=0.1).frames
        until(lambda: len(long.connections) == 3 and run.reader.connected)
        long.generate(10, span=0.001)
        until(lambda: set(long.frames) <= set(run.frames))
    assert set(missed) <= set(run.frames)
    cursors = [one.cursor for one in long.connections if not (one.ended or "").startswith("refused")]
    assert len(cursors) == 3, "asked twice after the restart, and no more"
    assert cursors[1] is not None and 510 < cursors[1] < 10_000
    assert cursors[2] is not None and 290 < ago(cursors[2]) < 900, "by time"


def test_a_stale_number_in_range_leads_to_other_events(
    long: Simulator, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.ago = 3600
    long.generate(10_000)
    known = last(long)
    with reading(long) as run:
        until(lambda: len(run.frames) == 10_000)
        long.stop(clean=False)
        clock.ago = 0
        # As it comes up again it has more events than before.
        long._store.wipe()
        long.generate(20_000, span=600)
        long.start()
        until(lambda: set(long.frames) <= set(run.frames), timeout=30)
        assert len(long.connections) == 3
        (gap,) = run.gaps
    assert 0 <= known.time_us - gap.from_us < 60_000_000, "the time of what is acknowledged"
    assert 550 < ago(gap.to_us) < 650
    assert "later than what we had; reconnecting with a time as cursor" in caplog.text


def test_a_wiped_server_is_noticed_by_the_next_run(long: Simulator, clock: Clock) -> None:
    """By the times of what comes two blocks before the number of the checkpoint."""
    clock.ago = 3600
    long.generate(5000)
    known = last(long)
    long._store.wipe()
    clock.ago = 0
    long.generate(8000, span=600)
    with reading(long, known=known) as run:
        until(lambda: set(long.frames) <= set(run.frames))
        assert len(run.gaps) == 1


def test_a_server_that_was_killed_is_no_wiped_one(long: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    long.generate(10_000)
    with reading(long) as run:
        until(lambda: len(run.frames) == 10_000)
        long.restart(unclean=500)
        until(lambda: len(long.connections) == 2)
        long.generate(10, span=0.01)
        until(lambda: set(long.frames) <= set(run.frames))
        assert len(long.connections) == 2
        assert not run.gaps
    assert "with a time as cursor" not in caplog.text


def test_a_number_of_the_user_that_is_not_there_yet(long: Simulator) -> None:
    """No time is known of it, so all there is gets read, once."""
    long.generate(100)
    with reading(long, start=1_000_000) as run:
        until(lambda: run.reader.connected)
        long.generate(10, span=0.001)
        until(lambda: set(long.frames) <= set(run.frames))
        assert [one.cursor for one in long.connections] == [1_000_000, 0]


@pytest.mark.parametrize("start", [0, 5000, None])
def test_a_server_without_numbers_is_asked_by_time(start: int | None) -> None:
    with Simulator(port=0, seed=1, cursors=False) as old, reading(old, start=start) as run:
        until(lambda: run.reader.connected)
        old.generate(100, span=0.1)
        until(lambda: set(old.frames) <= set(run.frames))
        old.faults.cut_after()
        until(lambda: old.connections[-1].cursor and old.connections[-1].cursor >= 10**15)
        old.generate(100, span=0.1)
        until(lambda: set(old.frames) <= set(run.frames))
        assert len(old.connections) <= 3
        assert not run.gaps


def test_what_stays_foreign_is_taken_the_second_time(
    long: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a server does, and however wrong we are about it: no circles."""
    monkeypatch.setattr(ResumeCheck, "look", lambda *_: Finding(Found.FOREIGN, reason="is odd"))
    long.generate(1000)
    with reading(long) as run:
        until(lambda: set(long.frames) <= set(run.frames))
        assert len(long.connections) == 2


def test_a_clock_of_ours_that_is_behind_makes_no_server_a_wiped_one(
    long: Simulator, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.ago = -3600
    long.generate(10_000, span=10)
    long.faults.cut_after(9_000)
    with reading(long) as run:
        until(lambda: set(long.frames) <= set(run.frames))
        assert len(long.connections) == 2
        assert not run.gaps
    assert "with a time as cursor" not in caplog.text


@pytest.mark.slow
def test_what_a_foreign_connection_sent_does_not_move_us(long: Simulator, clock: Clock) -> None:
    """The cut comes before the first batch was full: its events must not count as our place."""
    clock.ago = 3600
    long.generate(5000)
    known = last(long)
    long._store.wipe()
    clock.ago = 0
    long.generate(8000, span=600)
    long.faults.cut_after(3)
    with reading(long, known=known, options=("--flush", "5s", "--batch", "10000")) as run:
        until(lambda: set(long.frames) <= set(run.frames))
    assert len(long.connections) == 2


# Clamped to the floor


@pytest.mark.parametrize("by", ["number", "time", "another host"])
def test_a_gap_is_told_where_the_server_does_not_go_back_so_far(
    short: Simulator, clock: Clock, by: str
) -> None:
    clock.ago = 7200
    short.generate(1000, span=1)
    known = last(short)
    clock.ago = 0
    short.generate(7000, span=7000)
    if by == "time":
        known = Position(known.host, None, known.time_us)
    elif by == "another host":
        known = Position("elsewhere.example", 5, known.time_us)
    with reading(short, known=known) as run:
        until(lambda: run.frames and run.frames[-1] == short.frames[-1])
        (gap,) = run.gaps
        assert len(run.frames) < 1500
    assert gap.host == host_of(short.url)
    assert gap.from_us == known.time_us
    assert 890 < ago(gap.to_us) < 910
    assert len(short.connections) == (2 if by == "number" else 1)


def test_what_lies_within_the_lookback_is_no_gap(short: Simulator, clock: Clock) -> None:
    clock.ago = 600
    short.generate(1000, span=1)
    known = last(short)
    clock.ago = 0
    short.generate(1000, span=590)
    elsewhere = Position("elsewhere.example", 5, known.time_us)
    for start in (known, Position(known.host, None, known.time_us), elsewhere):
        with reading(short, known=start) as run:
            until(lambda run=run: run.frames and run.frames[-1] == short.frames[-1])  # type: ignore[misc]
            assert not run.gaps
    assert len(short.connections) == 3


def test_the_beginning_is_wherever_it_is(short: Simulator, clock: Clock) -> None:
    clock.ago = 7200
    short.generate(1000)
    clock.ago = 0
    short.generate(1000)
    with reading(short, start=0) as run:
        until(lambda: len(run.frames) == 1000)
        assert not run.gaps


def test_imported_events_hide_no_gap(short: Simulator, clock: Clock) -> None:
    """Back-dated ones among the first: some tell nothing."""
    clock.ago = 7200
    short.generate(100, span=1)
    known = last(short)
    clock.ago = 300
    imported = spoken(clock) | {"time_us": known.time_us - 10**11}
    short.publish([imported, imported])
    short.generate(100, span=1)
    with reading(short, known=Position(known.host, None, known.time_us)) as run:
        until(lambda: len(run.frames) == 102)
        (gap,) = run.gaps
    assert 295 < ago(gap.to_us) < 305


# Shorter than a minute


@pytest.mark.parametrize("wire", slow_except(["v1", "v2"], "v2"))
def test_short_gaps_cover_every_missing_event(clock: Clock, wire: str) -> None:
    """A server with a short lookback, and three cuts that are a little longer."""
    manners = Manners(lookback=20)
    with Simulator(port=0, seed=1, clock=clock, manners=manners) as server:
        clock.ago = 200
        server.generate(3000, span=10)
        with reading(server, options=("--protocol", wire)) as run:
            until(lambda: len(run.frames) == 3000)
            for ago in (155, 110, 65):
                server.stop()
                clock.ago = ago
                server.generate(12_000, span=45)
                server.start()
                until(lambda: parse(run.frames[-1])["cursor"] == len(server.frames))
            gaps = list(run.gaps)
    had = {parse(frame)["cursor"] for frame in run.frames}
    missing = [event for event in map(orjson.loads, server.frames) if event["cursor"] not in had]
    assert len(missing) > 10_000
    assert len(gaps) == 3
    assert max(gap.seconds for gap in gaps) < 60
    for event in missing:
        (gap,) = (one for one in gaps if (one.from_cursor or 0) <= event["cursor"] <= (one.to_cursor or 0))
        assert gap.from_us <= event["time_us"] <= gap.to_us
    assert sum((gap.to_cursor or 0) - (gap.from_cursor or 0) + 1 for gap in gaps) == len(missing)


@pytest.mark.parametrize("wire", ["v1", "v2"])
def test_a_short_gap_behind_a_filter_is_told_where_the_server_refuses(clock: Clock, wire: str) -> None:
    with Simulator(port=0, seed=1, clock=clock, manners=Manners(lookback=20)) as server:
        clock.ago = 100
        server.generate(1000, span=1)
        known = last(server)
        clock.ago = 55
        server.generate(12_000, span=45)
        posts = ("--protocol", wire, "--collections", "app.bsky.feed.post")
        with reading(server, known=known, options=posts) as run:
            until(lambda: run.frames)
            if wire == "v2":
                until(lambda: run.gaps)
                assert run.gaps[0].from_cursor == 1001
                assert 15 < run.gaps[0].seconds < 45
            else:
                # Where nothing is refused, silence behind a filter says nothing; see docs/operations.md.
                assert not run.gaps


# Behind a filter


def filtered(simulator: Simulator, clock: Clock) -> Position:
    """A stream with two events of the quiet account, two hours apart; we were away in between."""
    clock.ago = 7200
    simulator.publish([spoken(clock)])
    simulator.generate(1000, span=1)
    clock.ago = 5400
    away = Position(host_of(simulator.url), None, int(clock() * 1e6))
    simulator.generate(1000, span=1)
    clock.ago = 800
    simulator.generate(1000, span=1)
    clock.ago = 0
    simulator.publish([spoken(clock)])
    return away


def asked_for_the_floor(simulator: Simulator) -> bool:
    return any(one.cursor == 0 and one.ended for one in simulator.connections)


def test_quiet_behind_a_filter_is_no_gap(long: Simulator, clock: Clock) -> None:
    away = filtered(long, clock)
    with reading(long, known=away, options=("--dids", QUIET)) as run:
        until(lambda: len(run.frames) == 1 and asked_for_the_floor(long))
        time.sleep(0.3)
        assert not run.gaps


def test_a_gap_behind_a_filter_is_told_by_the_floor(short: Simulator, clock: Clock) -> None:
    away = filtered(short, clock)
    with reading(short, known=away, options=("--dids", QUIET)) as run:
        until(lambda: len(run.gaps) == 1)
        assert len(run.frames) == 1
    assert run.gaps[0].from_us == away.time_us
    assert 795 < ago(run.gaps[0].to_us) < 805


@pytest.mark.parametrize("lookback", ["short", "long"])
def test_without_any_event_the_floor_is_asked_for_after_a_while(
    lookback: str, clock: Clock, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors_module, "_CHECK_SILENCE_AFTER", 0.3)
    server: Simulator = request.getfixturevalue(lookback)
    away = filtered(server, clock)
    with reading(server, known=away, options=("--dids", "did:plc:nobody")) as run:
        until(lambda: asked_for_the_floor(server))
        time.sleep(0.5)
        assert len(run.gaps) == (1 if lookback == "short" else 0)
        assert len(server.connections) == 2, "once is enough"


def test_the_floor_of_a_server_that_says_nothing(long: Simulator) -> None:
    assert oldest_event(long.url, timeout=0.3) is None
    assert oldest_event("ws://127.0.0.1:1", timeout=0.3) is None


def test_a_gap_has_a_length() -> None:
    assert Gap("a", 10**15, 10**15 + 90_000_000).seconds == 90
