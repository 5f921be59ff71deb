"""The short way makes what the long way makes, to the byte, or nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slurp.documents.document import build
from slurp.documents.fast_path import COLLECTIONS, FastPath
from slurp.elastic.unknown_fields import UnknownFields
from slurp.events.frames import BadFrame, parse
from slurp.lexicons import committed
from slurp.simulator.jetstream import Simulator
from slurp.simulator.wire2 import frame as v2_frame

HOST = 'jetstream"1'
ARRIVED_US = 1_783_175_889_000_000
CID = "bafyreiftot7eltsc3f6g4qktykmbv6jcmdmhcx5osscan6jpdxkpqcmcza"
URI = "at://did:plc:r2zybk6op3ymzpz6jhqpkoy5/app.bsky.feed.post/3mpsjbtci2c2o"
POINTER = {"cid": CID, "uri": URI}


def event(collection: str = "app.bsky.feed.like", time_us: int = 1783175888085434, **record: Any) -> Any:
    whole = {"$type": collection, "createdAt": "2026-07-04T14:38:07.999Z", "subject": POINTER}
    return {
        "did": "did:plc:wq4aajammjtxdomz3e23667t",
        "time_us": time_us,
        "cursor": 77,
        "kind": "commit",
        "commit": {
            "rev": "3mptbypluud2a",
            "operation": "create",
            "collection": collection,
            "rkey": "3mptbyplj5d2a",
            "record": whole | record,
            "cid": "bafyreiguce4jh7kcbmof3pmcvasifqtw24b6isakj5ve5ga2b4z4alpc4i",
        },
    }


def by_both_wires(wanted: Any) -> list[bytes]:
    return [orjson.dumps(wanted), v2_frame(wanted, wanted.get("cursor", 1))]


def long_way(frame: bytes) -> tuple[Any, ...]:
    parsed = parse(frame)
    return build(parsed, HOST, ARRIVED_US), parsed["time_us"]


@pytest.mark.parametrize("wire", ["v1", "v2"])
def test_three_of_four_simulated_events_take_it(wire: str) -> None:
    express = FastPath(is_noteworthy=UnknownFields(committed(), "x").find)
    frames = Simulator(seed=3).generate(5000, span=60).frames
    if wire == "v2":
        frames = [v2_frame(orjson.loads(frame), number) for number, frame in enumerate(frames, 1)]
    taken: Counter[str] = Counter()
    for frame in frames:
        if made := express.make(frame, HOST, ARRIVED_US):
            assert tuple(made) == long_way(frame)
            taken[parse(frame)["commit"]["collection"]] += 1
    assert taken.keys() == {*COLLECTIONS}
    assert taken.total() > 0.65 * len(frames)


@pytest.mark.parametrize("frame", by_both_wires(event()) + by_both_wires(event(via=POINTER)))
def test_a_like_takes_it(frame: bytes) -> None:
    made = FastPath().make(frame, HOST, ARRIVED_US)
    assert made is not None
    assert tuple(made) == long_way(frame)


def test_a_server_that_sends_no_cursor() -> None:
    without = event()
    del without["cursor"]
    made = FastPath().make(orjson.dumps(without), HOST, ARRIVED_US)
    assert made is not None
    assert tuple(made) == long_way(orjson.dumps(without))


def test_a_marked_one_does_not() -> None:
    marked = event()
    marked["commit"]["resync"] = True
    assert FastPath().make(orjson.dumps(marked), HOST, ARRIVED_US) is None


@pytest.mark.parametrize(
    ("inner", "record"),
    [
        ({"operation": "update"}, {}),
        ({"operation": "delete"}, {}),
        ({"rev": "kmptbypluud2a"}, {}),  # beyond the first bit
        ({"rev": "3mptbypluud21"}, {}),
        ({"rkey": 'a"b'}, {}),
        ({"rkey": "a\\b"}, {}),
        ({"rkey": "ü"}, {}),
        ({"rkey": ""}, {}),
        ({"cid": None}, {}),
        ({"collection": "app.bsky.feed.post"}, {}),
        ({}, {"$type": "app.bsky.feed.repost"}),
        ({}, {"createdAt": None}),
        ({}, {"createdAt": 'a"b'}),
        ({}, {"createdAt": "2026\u00002"}),
        ({}, {"subject": {"uri": URI}}),
        ({}, {"subject": {"cid": CID, "uri": f"{URI}/more"}}),
        ({}, {"subject": {"cid": CID, "uri": "at://alice.example/app.bsky.feed.post/3mpsjbtci2c2o"}}),
        ({}, {"subject": "at://did:plc:r2zybk6op3ymzpz6jhqpkoy5"}),
        ({}, {"more": 1}),
    ],
)
def test_whatever_is_otherwise_does_not(inner: dict[str, Any], record: dict[str, Any]) -> None:
    otherwise = event(**record)
    otherwise["commit"] |= inner
    for frame in by_both_wires(otherwise):
        assert FastPath().make(frame, HOST, ARRIVED_US) is None


# What strangers put where a like has its values: plain and odd text, times, other types.
_TEXTS = st.sampled_from(
    [
        *(
            "",
            "x",
            "did:plc:x",
            "did:",
            "at://did:plc:x/app.bsky.feed.post/1",
            "at://did:plc:x/a/b",
            "a/b",
            "~._:-",
        ),
        *("2026-07-04T14:38:08.999Z", "2999-01-01T00:00:00.000Z", "2026-07-04t14:38:08.999z", "2026-07-04"),
        *(
            " 2026-07-04T14:38:08Z ",
            "2026-07-04T14:38:08.123456+02:00",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59Z",
        ),
        *("2222222222222", "jzzzzzzzzzzzz", "3mptbypluud2a", '"', "\\", "\n", "\x7f", "é", "🌸", "\u2028"),
    ]
) | st.text(max_size=5)
_VALUES = _TEXTS | st.none() | st.booleans() | st.integers() | st.lists(_TEXTS, max_size=1)
_TIMES = st.sampled_from(
    [0, 1, 10**14, 10**15, 10**16 - 1, 10**16, 253_402_300_799_999_999, 10**18, -1, "x", 1.5]
)
_PLACES = st.sampled_from(
    [
        *(("did",), ("cursor",), ("commit", "rev"), ("commit", "rkey"), ("commit", "cid")),
        *(("commit", "record", "createdAt"), ("commit", "record", "subject"), ("commit", "record", "$type")),
        *(("commit", "record", "subject", "uri"), ("commit", "record", "subject", "cid")),
        *(
            ("commit", "record", "via", "uri"),
            ("commit", "record", "via", "cid"),
            ("commit", "record", "more"),
        ),
    ]
)


@settings(max_examples=1500, deadline=None)
@given(
    collection=st.sampled_from(COLLECTIONS),
    subject=st.sampled_from([POINTER, "did:plc:mlbpil2fwz43vfn6uuysxtqa"]),
    via=st.booleans(),
    changes=st.lists(st.tuples(_PLACES, _VALUES), max_size=2),
    time_us=st.sampled_from([1783175888085434, 1783175887514441 + 86_400_000_001]) | _TIMES,
)
@example(COLLECTIONS[0], POINTER, False, [], 10**16 - 1)
def test_equal_or_nothing(collection: str, subject: Any, via: bool, changes: Any, time_us: Any) -> None:
    changed = event(collection, subject=dict(subject) if isinstance(subject, dict) else subject)
    if via:
        changed["commit"]["record"]["via"] = dict(POINTER)
    for (*path, name), value in changes:
        place = changed
        for step in path:
            place = place.get(step) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[name] = value
    try:
        frames = [v2_frame(changed, 5), orjson.dumps(changed | {"time_us": time_us})]
    except TypeError:
        return  # an integer that needs more than 64 bits, or half of a surrogate pair
    for frame in frames:
        equal_or_nothing(frame)


@settings(max_examples=1500, deadline=None)
@given(
    wire=st.integers(0, 1),
    at=st.floats(0, 1, exclude_max=True),
    put=st.binary(max_size=3)
    | st.sampled_from([b'"', b"\\u0041", b" ", b",", b"{", b"}", b"/", b"0", b"\xc3\xa9"]),
    cut=st.integers(0, 3),
)
def test_equal_or_nothing_of_bytes(wire: int, at: float, put: bytes, cut: int) -> None:
    frame = by_both_wires(event(via=POINTER))[wire]
    place = int(at * len(frame))
    equal_or_nothing(frame[:place] + put + frame[place + cut :])


def equal_or_nothing(frame: bytes) -> None:
    made = FastPath().make(frame, HOST, ARRIVED_US)
    try:
        expected = long_way(frame)
    except BadFrame:
        assert made is None
    else:
        assert made is None or tuple(made) == expected


def test_a_shape_that_its_lexicon_does_not_know_takes_the_long_way() -> None:
    asked: list[Any] = []

    def look(event: Any) -> bool:
        asked.append(event)
        return "via" in event["commit"]["record"]

    express = FastPath(is_noteworthy=look)
    plain, odd = orjson.dumps(event()), orjson.dumps(event(via=POINTER))
    for _ in range(3):
        assert express.make(plain, HOST, ARRIVED_US) is not None
        assert express.make(odd, HOST, ARRIVED_US) is None
    assert len(asked) == 2


def test_a_collection_without_mapped_fields_takes_the_long_way() -> None:
    assert FastPath(typed=()).make(orjson.dumps(event()), HOST, ARRIVED_US) is None
