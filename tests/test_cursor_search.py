"""For a time cursor that a server answers with hours of older events, a sequence number is searched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import orjson
import pytest
from websocket import WebSocketTimeoutException

from slurp.events import tid
from slurp.events.frames import parse
from slurp.events.position import Position
from slurp.jetstream.cursor_search import FirstEvent, find_cursor, first_event_of, search_cursor
from slurp.jetstream.servers import host_of
from slurp.pipeline import resume as resume_module
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import NetworkOptions, ServerOptions
from tests.harness import Clock, Reading, reading, until
from tests.tiers import slow_except

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND

# Maps a sequence number to a time.
Times = Callable[[int], int]


def steady(rate: float) -> Times:
    return lambda cursor: NOW + int(cursor * SECOND / rate)


class Stream:
    """A server with `count` events. Beyond its end it sends its next event, or nothing if `quiet`."""

    def __init__(self, count: int, times: Times, *, quiet: bool = False) -> None:
        self.count = count
        self.times = times
        self.quiet = quiet
        self.requested: list[int] = []

    def probe(self, cursor: int) -> FirstEvent | None:
        self.requested.append(cursor)
        if cursor <= self.count:
            return FirstEvent(cursor, self.times(cursor))
        return None if self.quiet else FirstEvent(self.count + 1, self.times(self.count + 1))

    def find(self, target_us: int) -> int:
        found = find_cursor(FirstEvent(1, self.times(1)), target_us, self.probe, lambda: True)
        assert found is not None
        return found


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize(
    ("count", "rate"), [(6_000_000, 1600.0), (6_000_000, 30.0), (400_000, 7.0), (20_000, 0.5), (9, 0.001)]
)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.9999, 1.0])
def test_at_most_twenty_probes_find_a_cursor_just_before_the_target(
    count: int, rate: float, share: float, quiet: bool
) -> None:
    stream = Stream(count, steady(rate), quiet=quiet)
    target_us = stream.times(1) + int((stream.times(count) - stream.times(1)) * share)
    found = stream.find(target_us)
    assert stream.times(found) <= target_us
    target = math.floor((target_us - NOW) / SECOND * rate)
    assert target - found <= max(8192, 10 * rate) + 1
    assert len(stream.requested) <= 20


def test_the_result_is_never_later_than_the_target_in_busy_or_quiet_hours() -> None:
    """All events of the first half in a second, then one every minute."""
    stream = Stream(
        200_000, lambda n: NOW + (n * 10 if n < 100_000 else SECOND + (n - 100_000) * 60 * SECOND)
    )
    for hours in (0.001, 1, 100, 1600):
        target_us = NOW + int(hours * 3600 * SECOND)
        found = stream.find(target_us)
        assert stream.times(found) <= target_us


def test_times_that_go_back_do_not_lead_beyond_the_target() -> None:
    """A long run of events has a very old time."""
    stream = Stream(1_000_000, steady(100))
    target_us = steady(100)(300_000)
    true_times = stream.times
    stream.times = lambda n: NOW if 600_000 < n < 600_500 else true_times(n)
    assert true_times(stream.find(target_us)) <= target_us


def test_the_number_of_probes_is_bounded_for_a_server_with_senseless_cursors() -> None:
    requested: list[int] = []

    def probe(cursor: int) -> FirstEvent:
        requested.append(cursor)
        return FirstEvent(cursor + 10**9, NOW)

    find_cursor(FirstEvent(1, NOW), NOW + 10**12, probe, lambda: True)
    assert len(requested) <= 32


def test_the_search_ends_at_its_deadline_on_request_and_on_a_connection_error() -> None:
    now = iter(range(0, 1000, 12))
    stream = Stream(6_000_000, steady(100))
    target_us = stream.times(5_000_000)
    low = FirstEvent(1, stream.times(1))
    assert find_cursor(low, target_us, stream.probe, lambda: True, clock=lambda: next(now)) is None
    assert len(stream.requested) <= 3
    assert find_cursor(low, target_us, stream.probe, lambda: False) is None

    def fail(cursor: int) -> FirstEvent | None:
        raise WebSocketTimeoutException("late")

    assert find_cursor(low, target_us, fail, lambda: True) is None


def test_an_event_close_to_the_target_needs_no_probe() -> None:
    with pytest.raises(StopIteration) as found:
        next(search_cursor(FirstEvent(77, NOW), NOW + 5 * SECOND))
    assert found.value.value == 77


def test_the_later_of_an_events_time_and_its_revs_time_counts() -> None:
    """An operator may rewrite the times of commits to earlier ones; the rev of a commit stays."""
    commit = {
        "did": "did:plc:a",
        "kind": "commit",
        "cursor": 5,
        "time_us": NOW - 10**12,
        "commit": {"rev": tid.from_micros(NOW), "collection": "c", "rkey": "r", "operation": "delete"},
    }
    assert first_event_of([commit]) == FirstEvent(5, NOW)
    # An event of a dormant account that is announced again has an old rev and belongs to today.
    assert first_event_of([{**commit, "time_us": NOW + 10**12}]) == FirstEvent(5, NOW + 10**12)
    assert first_event_of([]) is None
    assert first_event_of([{**commit, "cursor": None}]) is None


# Against a simulated server


SEGMENT = 3600.0


def since(run: Reading, simulator: Simulator, time_us: int) -> bool:
    """Return whether all events since a time were received."""
    frames = run.frames
    # The last one first: comparing the rest is slow.
    if not frames or parse(frames[-1])["cursor"] != len(simulator.frames):
        return False
    received = {parse(frame)["cursor"] for frame in frames}
    return all(
        event["cursor"] in received
        for event in map(orjson.loads, simulator.frames)
        if event["time_us"] >= time_us
    )


@pytest.mark.parametrize("protocol", slow_except(["v1", "v2"], "v2"))
@pytest.mark.parametrize("by", slow_except(["start", "another host"], "start"))
def test_an_active_segment_is_read_from_a_searched_cursor(protocol: str, by: str) -> None:
    with Simulator(port=0, seed=1, server=ServerOptions(active_segment=SEGMENT)) as jetstream:
        jetstream.generate(60_000, span=SEGMENT + 100)
        time_us = int((time.time() - 300) * 1e6)
        known = None if by == "start" else Position("elsewhere.example", 5, time_us + 300 * SECOND)
        with reading(jetstream, start=time_us, known=known, options=("--protocol", protocol)) as run:
            until(lambda: since(run, jetstream, time_us))
        # Five minutes are 4,865 events, and the search stops at two blocks.
        assert len(run.frames) < 4_865 + 1_000 + 8192 + 500
        assert not run.gaps
        assert len(jetstream.connections) < 20


@pytest.mark.slow
def test_the_search_works_for_a_filtered_stream() -> None:
    with Simulator(port=0, seed=1, server=ServerOptions(active_segment=SEGMENT)) as jetstream:
        jetstream.generate(60_000, span=SEGMENT + 100)
        time_us = int((time.time() - 300) * 1e6)
        likes = {
            event["cursor"]: event["time_us"]
            for event in map(orjson.loads, jetstream.frames)
            if event["kind"] == "commit" and event["commit"]["collection"] == "app.bsky.feed.like"
        }
        wanted = {cursor for cursor, when in likes.items() if when >= time_us}
        options = ("--protocol", "v2", "--collections", "app.bsky.feed.like")
        with reading(jetstream, start=time_us, options=options) as run:
            until(lambda: run.frames and parse(run.frames[-1])["cursor"] == max(likes))
            assert wanted <= {parse(frame)["cursor"] for frame in run.frames}
        assert len(run.frames) < len(likes) / 2


def test_if_the_search_fails_everything_is_read(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")

    def fail(*_: object) -> None:
        raise WebSocketTimeoutException("late")

    monkeypatch.setattr(resume_module, "first_events", fail)
    with Simulator(port=0, seed=1, server=ServerOptions(active_segment=SEGMENT)) as jetstream:
        jetstream.generate(20_000, span=SEGMENT)
        time_us = int((time.time() - 300) * 1e6)
        with reading(jetstream, start=time_us) as run:
            until(lambda: len(run.frames) >= 19_000 and since(run, jetstream, time_us))
        assert len(jetstream.connections) == 2
    assert "no sequence number found, reading all events that it sends" in caplog.text


def test_no_search_is_made_if_the_stream_begins_at_the_requested_time() -> None:
    with Simulator(port=0, seed=1) as jetstream:
        jetstream.generate(20_000, span=SEGMENT)
        time_us = int((time.time() - 300) * 1e6)
        with reading(jetstream, start=time_us) as run:
            until(lambda: since(run, jetstream, time_us))
        assert len(jetstream.connections) == 1


def test_no_search_is_made_on_a_server_without_sequence_numbers() -> None:
    server = ServerOptions(active_segment=SEGMENT)
    network = NetworkOptions(cursors=False)
    with Simulator(port=0, seed=1, network=network, server=server, clock=Clock()) as old:
        old.generate(20_000, span=SEGMENT)
        with reading(old, start=int((time.time() - 300) * 1e6)) as run:
            until(lambda: run.frames and run.frames[-1] == old.frames[-1])
        assert host_of(old.url) == run.reader.host
        assert len(old.connections) == 1
