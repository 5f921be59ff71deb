"""The fast path renders exactly the bytes of the general path, or nothing."""

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
from slurp.events.removals import version_uri
from slurp.lexicons import committed
from slurp.simulator.jetstream import Simulator
from slurp.simulator.protocol_v2 import frame as v2_frame
from tests.harness import commit

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


def on_both_protocols(wanted: Any) -> list[bytes]:
    return [orjson.dumps(wanted), v2_frame(wanted, wanted.get("cursor", 1))]


def general_path(frame: bytes) -> tuple[Any, ...]:
    parsed = parse(frame)
    return build(parsed, HOST, ARRIVED_US), parsed["time_us"], parsed["did"], version_uri(parsed)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_most_simulated_events_use_the_fast_path(protocol: str) -> None:
    fast_path = FastPath(has_unknown_fields=UnknownFields(committed(), "x").find)
    frames = Simulator(seed=3).generate(5000, span=60).frames
    if protocol == "v2":
        frames = [v2_frame(orjson.loads(frame), number) for number, frame in enumerate(frames, 1)]
    collections: Counter[str] = Counter()
    for frame in frames:
        if rendered := fast_path.render(frame, HOST, ARRIVED_US):
            assert tuple(rendered) == general_path(frame)
            collections[parse(frame)["commit"]["collection"]] += 1
    assert collections.keys() == {*COLLECTIONS}
    assert collections.total() > 0.65 * len(frames)


@pytest.mark.parametrize("frame", on_both_protocols(event()) + on_both_protocols(event(via=POINTER)))
def test_a_like_uses_the_fast_path(frame: bytes) -> None:
    rendered = FastPath().render(frame, HOST, ARRIVED_US)
    assert rendered is not None
    assert tuple(rendered) == general_path(frame)


def test_an_event_without_a_cursor_uses_the_fast_path() -> None:
    without = event()
    del without["cursor"]
    rendered = FastPath().render(orjson.dumps(without), HOST, ARRIVED_US)
    assert rendered is not None
    assert tuple(rendered) == general_path(orjson.dumps(without))


def test_a_marked_event_does_not_use_the_fast_path() -> None:
    marked = event()
    marked["commit"]["resync"] = True
    assert FastPath().render(orjson.dumps(marked), HOST, ARRIVED_US) is None


@pytest.mark.parametrize(
    ("inner", "record"),
    [
        ({"operation": "update"}, {}),
        ({"operation": "delete"}, {}),
        ({"rev": "kmptbypluud2a"}, {}),  # more than 64 bits
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
def test_events_of_any_other_format_do_not_use_the_fast_path(
    inner: dict[str, Any], record: dict[str, Any]
) -> None:
    other = event(**record)
    other["commit"] |= inner
    for frame in on_both_protocols(other):
        assert FastPath().render(frame, HOST, ARRIVED_US) is None


# User-written values in place of those of a like: plain and odd text, times, other types.
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
_PATHS = st.sampled_from(
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


@settings(max_examples=15 * settings().max_examples, deadline=None)
@given(
    collection=st.sampled_from(COLLECTIONS),
    subject=st.sampled_from([POINTER, "did:plc:mlbpil2fwz43vfn6uuysxtqa"]),
    via=st.booleans(),
    changes=st.lists(st.tuples(_PATHS, _VALUES), max_size=2),
    time_us=st.sampled_from([1783175888085434, 1783175887514441 + 86_400_000_001]) | _TIMES,
)
@example(COLLECTIONS[0], POINTER, False, [], 10**16 - 1)
def test_changed_values_give_an_equal_document_or_none(
    collection: str, subject: Any, via: bool, changes: Any, time_us: Any
) -> None:
    changed = event(collection, subject=dict(subject) if isinstance(subject, dict) else subject)
    if via:
        changed["commit"]["record"]["via"] = dict(POINTER)
    for (*path, name), value in changes:
        node = changed
        for step in path:
            node = node.get(step) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[name] = value
    try:
        frames = [v2_frame(changed, 5), orjson.dumps(changed | {"time_us": time_us})]
    except TypeError:
        return  # an integer that needs more than 64 bits, or half of a surrogate pair
    for frame in frames:
        check_equal_or_none(frame)


@settings(max_examples=15 * settings().max_examples, deadline=None)
@given(
    protocol=st.integers(0, 1),
    at=st.floats(0, 1, exclude_max=True),
    put=st.binary(max_size=3)
    | st.sampled_from([b'"', b"\\u0041", b" ", b",", b"{", b"}", b"/", b"0", b"\xc3\xa9"]),
    cut=st.integers(0, 3),
)
def test_changed_bytes_give_an_equal_document_or_none(protocol: int, at: float, put: bytes, cut: int) -> None:
    frame = on_both_protocols(event(via=POINTER))[protocol]
    index = int(at * len(frame))
    check_equal_or_none(frame[:index] + put + frame[index + cut :])


def check_equal_or_none(frame: bytes) -> None:
    rendered = FastPath().render(frame, HOST, ARRIVED_US)
    try:
        expected = general_path(frame)
    except BadFrame:
        assert rendered is None
    else:
        assert rendered is None or tuple(rendered) == expected


def test_a_shape_with_unknown_fields_uses_the_general_path() -> None:
    checked: list[Any] = []

    def look(event: Any) -> bool:
        checked.append(event)
        return "via" in event["commit"]["record"]

    fast_path = FastPath(has_unknown_fields=look)
    plain, odd = orjson.dumps(event()), orjson.dumps(event(via=POINTER))
    for _ in range(3):
        assert fast_path.render(plain, HOST, ARRIVED_US) is not None
        assert fast_path.render(odd, HOST, ARRIVED_US) is None
    assert len(checked) == 2


def test_a_collection_without_mapped_fields_uses_the_general_path() -> None:
    assert FastPath(types=()).render(orjson.dumps(event()), HOST, ARRIVED_US) is None


@pytest.mark.parametrize(
    "did",
    ["did:plc:abc", "did:plc:abc:", "did:PLC:abc", "did:web:a%3A1", "did:plc:~", f"did:{'a' * 2043}:b"]
    + [f"did:{'a' * method}:{'b' * rest}" for method, rest in ((60, 1000), (70, 1100), (1100, 1000))],
)
def test_a_did_is_one_in_both_paths(did: str) -> None:
    record = {"$type": "app.bsky.graph.follow", "createdAt": "2026-07-04T14:38:07.396Z", "subject": did}
    frame = commit(1, record, "app.bsky.graph.follow")
    if rendered := FastPath().render(frame, HOST, ARRIVED_US):
        assert tuple(rendered) == general_path(frame)


def test_the_usual_did_takes_the_fast_path() -> None:
    subject = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
    record = {"$type": "app.bsky.graph.follow", "createdAt": "2026-07-04T14:38:07.396Z", "subject": subject}
    assert FastPath().render(commit(1, record, "app.bsky.graph.follow", rkey="3l6"), HOST, ARRIVED_US)
