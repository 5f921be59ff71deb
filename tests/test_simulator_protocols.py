"""The parts of the simulator without I/O: parameters, filters, frames, the event store and faults."""

from __future__ import annotations

import random
from urllib.parse import quote

import orjson
import pytest

from slurp.simulator import protocol_v1
from slurp.simulator.deadlines import Deadlines
from slurp.simulator.encoders import text_frames
from slurp.simulator.event_store import EventStore, StoredEvent
from slurp.simulator.faults import Cut, Faults, RuleProgress
from slurp.simulator.filters import BadRequest, Filter
from slurp.simulator.handshake import HandshakeRejected, parse_head
from slurp.simulator.options import ServerOptions

HOUR = 3_600_000_000
NOW = 1_795_464_168_637_452


def subscription(query: str) -> protocol_v1.Subscription:
    return protocol_v1.parse_subscription(protocol_v1.parse_target(f"/subscribe?{query}")[1])


def stored(number: int, did: str = "did:plc:a", time_us: int = NOW, collection: str = "a.b.c") -> StoredEvent:
    frame = orjson.dumps({"did": did, "time_us": time_us, "cursor": number, "n": number})
    return StoredEvent(frame, did, collection, time_us, number)


def store_of(*events: StoredEvent, retain_bytes: int = 10**6) -> EventStore:
    store = EventStore(retain_bytes)
    store.append(events)
    return store


def test_without_parameters_a_subscription_is_live_and_unfiltered() -> None:
    parsed = subscription("")
    assert parsed.cursor is None
    assert parsed.filter.matches_all
    assert not parsed.require_hello


@pytest.mark.parametrize(
    "query",
    [
        "cursor=-1",
        "cursor=abc",
        "cursor=1.5",
        "cursor=99999999999999999999999",
        "wantedCollections=app.bsky.feed.post,app.bsky.feed.like",
        "wantedCollections=",
        "wantedCollections=*",
        "wantedCollections=app.bsky.*.post",
        "wantedCollections=app.bsky.feed*",
        "wantedCollections=post",
        "wantedDids=alice.example.com",
        "wantedDids=did:plc:",
        "maxMessageSizeBytes=-1",
        "maxMessageSizeBytes=big",
        "requireHello=perhaps",
        "compress=true",
        "&".join(f"wantedCollections=a.b.c{n}" for n in range(101)),
        "&".join(f"wantedDids=did:plc:{n}" for n in range(10_001)),
    ],
)
def test_invalid_parameters_are_rejected(query: str) -> None:
    with pytest.raises(BadRequest):
        subscription(query)


def test_the_maximum_number_of_values_is_accepted() -> None:
    parsed = subscription("&".join(f"wantedCollections=a.b.c{n}" for n in range(100)))
    assert len(parsed.filter.collections) == 100
    parsed = subscription("&".join(f"wantedDids={quote(f'did:plc:{n}', safe='')}" for n in range(10_000)))
    assert "did:plc:9999" in parsed.filter.dids


def test_a_prefix_matches_only_up_to_a_dot() -> None:
    chosen = subscription("wantedCollections=app.bsky.graph.*&wantedCollections=app.bsky.feed.post").filter
    assert chosen.matches("app.bsky.graph.follow", "did:plc:a", 1)
    assert chosen.matches("app.bsky.feed.post", "did:plc:a", 1)
    assert not chosen.matches("app.bsky.graphics", "did:plc:a", 1)
    assert not chosen.matches("app.bsky.feed.postgate", "did:plc:a", 1)


def test_account_events_pass_a_collection_filter_but_not_a_did_filter() -> None:
    assert subscription("wantedCollections=app.bsky.feed.post").filter.matches("", "did:plc:b", 1)
    assert not subscription("wantedDids=did:plc:a").filter.matches("", "did:plc:b", 1)


def test_the_size_limit_is_inclusive() -> None:
    chosen = subscription("maxMessageSizeBytes=100").filter
    assert chosen.matches("a.b.c", "did:plc:a", 100)
    assert not chosen.matches("a.b.c", "did:plc:a", 101)


def test_an_update_replaces_the_whole_filter() -> None:
    update = {"type": "options_update", "payload": {"wantedDids": ["did:plc:a"]}}
    assert protocol_v1.parse_update(orjson.dumps(update)) == Filter(dids=frozenset({"did:plc:a"}))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"{", 1007),
        (b"[]", 1007),
        (b'{"type":"hello"}', 1007),
        (b'{"type":"options_update"}', 1007),
        (b'{"type":"options_update","payload":{"wantedCollections":["nonsense"]}}', 1008),
        (b'{"type":"options_update","payload":{"wantedDids":"did:plc:a"}}', 1008),
        (b'{"type":"options_update","payload":{"maxMessageSizeBytes":-3}}', 1008),
    ],
)
def test_an_invalid_update_has_a_close_code(message: bytes, code: int) -> None:
    with pytest.raises(protocol_v1.BadUpdate) as caught:
        protocol_v1.parse_update(message)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (4096, b"\x81\x7e\x10\x00"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f" + (65_536).to_bytes(8, "big")),
    ],
)
def test_text_frames_have_the_right_header(size: int, header: bytes) -> None:
    assert text_frames([b"x" * size, b"y"]) == header + b"x" * size + b"\x81\x01y"


def test_a_request_that_is_not_http_is_rejected() -> None:
    for head in (b"hello", b"GET /", b"GET / HTTP/1.1\r\nno colon"):
        with pytest.raises(HandshakeRejected) as caught:
            parse_head(head)
        assert caught.value.status == 400


class TestCursor:
    """The start position for each kind of cursor. Cursors 11 to 15, one per hour, the last one now."""

    store = store_of(*(stored(11 + n, time_us=NOW - (4 - n) * HOUR) for n in range(5)))

    def find(self, cursor: int | None, lookback: int = 36 * HOUR) -> int:
        return self.store.find(cursor, NOW, lookback)

    def test_absent_is_live(self) -> None:
        assert self.find(None) == 5

    def test_sequence_is_inclusive(self) -> None:
        assert self.find(13) == 2

    def test_zero_is_the_beginning(self) -> None:
        assert self.find(0) == 0

    def test_sequence_below_the_floor_is_clamped(self) -> None:
        assert self.find(3) == 0
        assert self.find(11, lookback=2 * HOUR) == 2

    def test_sequence_in_the_future_is_live(self) -> None:
        assert self.find(16) == 5
        assert self.find(10**14) == 5

    def test_time_is_inclusive(self) -> None:
        assert self.find(NOW - HOUR) == 3
        assert self.find(NOW - HOUR + 1) == 4

    def test_time_below_the_floor_is_clamped(self) -> None:
        assert self.find(NOW - 100 * HOUR) == 0
        assert self.find(NOW - 4 * HOUR, lookback=2 * HOUR) == 2

    def test_time_in_the_future_is_live(self) -> None:
        assert self.find(NOW + HOUR) == 5


def test_the_earliest_event_of_a_time_is_found_among_backdated_ones() -> None:
    times = [NOW - 3 * HOUR, NOW - 50 * HOUR, NOW - 2 * HOUR, NOW - 60 * HOUR, NOW]
    store = store_of(*(stored(n, time_us=time) for n, time in enumerate(times, 1)))
    assert store.find(NOW - 3 * HOUR, NOW, 36 * HOUR) == 0
    assert store.find(NOW - 2 * HOUR, NOW, 36 * HOUR) == 2
    assert store.find(NOW - HOUR, NOW, 36 * HOUR) == 4


def test_lookback_counts_from_arrival_so_that_old_files_can_be_served() -> None:
    old = stored(1, time_us=NOW - 5000 * HOUR)._replace(arrived_us=NOW)
    assert store_of(old).find(0, NOW, 36 * HOUR) == 0


def test_events_without_a_cursor_still_have_a_sequence_number() -> None:
    store = store_of(*(stored(n)._replace(cursor=None) for n in range(3)))
    assert store.find(2, NOW, HOUR) == 1
    assert store.next_cursor == 4


def test_the_store_drops_the_oldest_events_and_keeps_positions() -> None:
    store = store_of(*(stored(n) for n in range(1, 1001)), retain_bytes=20_000)
    kept = len(store)
    assert 50 < kept < 200
    assert store.end == 1000
    batch = store.read(0, 10)
    assert batch.start == 1000 - kept
    assert store.find(1, NOW, HOUR) == 1000 - kept
    assert orjson.loads(batch.frames[0])["n"] == 1001 - kept


def test_a_batch_of_huge_events_has_few_of_them() -> None:
    huge = stored(1)._replace(frame=b"x" * 3_000_000)
    store = store_of(*[huge] * 10, retain_bytes=10**9)
    assert len(store.read(0, 500).frames) == 1
    assert len(store_of(*map(stored, range(600))).read(0, 500).frames) == 500


def test_one_huge_event_is_kept() -> None:
    assert len(store_of(stored(1), stored(2), retain_bytes=10)) == 1


def test_renumbering_keeps_the_order_within_an_account() -> None:
    store = store_of(*(stored(n, did=f"did:plc:{'abcde'[n % 5]}") for n in range(1, 101)))
    before = [orjson.loads(frame) for frame in store.frames()]
    store.renumber(50, random.Random(1))
    after = [orjson.loads(frame) for frame in store.frames()]
    assert [event["cursor"] for event in after] == list(range(1, 101))
    assert after[:50] == before[:50]
    assert after[50:] != before[50:]
    for did in {event["did"] for event in before}:
        assert [e["n"] for e in after if e["did"] == did] == [e["n"] for e in before if e["did"] == did]


def test_a_wiped_store_restarts_its_sequence_numbers_at_one() -> None:
    store = store_of(*(stored(n) for n in range(1, 11)))
    store.wipe()
    assert (len(store), store.next_cursor, store.end) == (0, 1, 10)


def test_a_fault_counts_frames_from_its_definition_and_happens_once() -> None:
    faults = Faults()
    early, late = RuleProgress(), RuleProgress()
    faults.cut_after(10)
    assert faults.next_action(100, early) == (None, 10)
    assert faults.next_action(104, early) == (None, 6)
    assert faults.next_action(0, late) == (None, 10)
    assert faults.next_action(110, early) == (Cut(), None)
    assert faults.next_action(110, early) == (None, None)
    assert faults.next_action(50, late) == (None, None)


def test_a_permanent_fault_happens_once_per_connection() -> None:
    faults = Faults()
    faults.cut_after(0, times=None)
    for _ in range(3):
        progress = RuleProgress()
        assert faults.next_action(0, progress) == (Cut(), None)
        assert faults.next_action(0, progress) == (None, None)
    faults.clear()
    assert faults.next_action(0, RuleProgress()) == (None, None)


def test_an_invalid_close_code_raises_immediately() -> None:
    with pytest.raises(ValueError, match="1005"):
        Faults().close(1005)


class TestDeadlines:
    """Timers of a connection, with a clock set by the test."""

    @pytest.fixture
    def now(self) -> list[float]:
        return [1000.0]

    @pytest.fixture
    def deadlines(self, now: list[float]) -> Deadlines:
        deadlines = Deadlines(
            ServerOptions(ping_interval=30, pong_timeout=5, write_timeout=4), clock=lambda: now[0]
        )
        deadlines.start()
        return deadlines

    def test_the_oldest_unanswered_ping_determines_the_pong_timeout(
        self, deadlines: Deadlines, now: list[float]
    ) -> None:
        now[0] += 30
        assert deadlines.ping_is_due
        deadlines.ping_sent()
        now[0] += 4
        deadlines.ping_sent()
        assert deadlines.seconds_left(pings=True) == 1
        now[0] += 1
        assert deadlines.pong_expired
        deadlines.pong_received()
        assert not deadlines.pong_expired

    def test_a_write_expires_unless_bytes_were_sent_meanwhile(
        self, deadlines: Deadlines, now: list[float]
    ) -> None:
        deadlines.write_blocked()
        now[0] += 3
        deadlines.write_blocked()
        assert not deadlines.write_expired
        now[0] += 1
        assert deadlines.write_expired
        deadlines.write_progressed()
        assert not deadlines.write_expired

    def test_a_close_expires_after_a_second(self, deadlines: Deadlines, now: list[float]) -> None:
        assert not deadlines.closing
        deadlines.close_sent()
        assert deadlines.closing
        assert deadlines.seconds_left(pings=False) == 1
        now[0] += 1
        assert deadlines.close_expired
