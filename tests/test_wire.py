from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.events.frames import BadFrame, parse, position_of
from slurp.events.position import Position
from tests.test_identity import account, commit, identity


def frame(event: Any) -> bytes:
    return orjson.dumps(event)


def test_real_events_pass(corpus: list[Path]) -> None:
    for path in corpus:
        for line in path.read_bytes().splitlines():
            assert parse(line) == orjson.loads(line)


@pytest.mark.parametrize("event", [commit(), identity(), account(), commit() | {"novel": [1]}])
def test_events_pass(event: dict[str, Any]) -> None:
    assert parse(frame(event)) == event


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"", "no JSON"),
        (b"\x00\xff", "no JSON"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "not a JSON object"),
        (frame(commit() | {"did": 5}), "no did"),
        (frame(commit() | {"time_us": "5"}), "no time_us"),
        (frame(commit() | {"time_us": True}), "no time_us"),
        (frame(commit() | {"time_us": -1}), "no time_us"),
        (frame(commit() | {"time_us": 2**63}), "no time_us"),
        (frame(commit() | {"kind": "novel"}), "unknown kind"),
        (frame(commit() | {"kind": "sync"}), "without sync.rev"),
        (frame(commit() | {"commit": None}), "without commit"),
        (frame(commit(rev=None)), "without rev"),
        (frame(commit(rkey=7)), "without rkey"),
        (frame(commit(operation="upsert")), "unknown operation"),
        (frame(identity(time=None)), "identity.time"),
        (frame(identity(handle=[])), "handle is no text"),
        (frame(account(active="yes")), "account.active"),
    ],
)
def test_what_is_no_event_says_why(garbage: bytes, reason: str) -> None:
    with pytest.raises(BadFrame, match=reason):
        parse(garbage)


def test_lone_surrogates_and_nan_do_not_cost_an_event() -> None:
    text = frame(commit(record={"text": "T", "n": 1})).replace(b'"T"', rb'"a\ud800b\ud83d\ude00"')
    event = parse(text.replace(b'"n":1', b'"n":NaN'))
    assert event["commit"]["record"] == {"text": "a\ufffdb😀", "n": None}
    assert orjson.dumps(event)


def test_the_position_is_that_of_the_first_frame_that_has_one() -> None:
    frames = [b"garbage", frame(commit(time_us=8) | {"cursor": 5}), frame(commit(time_us=9) | {"cursor": 6})]
    assert position_of(frames, "host") == Position("host", 5, 8)
    assert position_of([b"garbage"], "host") is None


@pytest.mark.parametrize("cursor", [None, "5", -1, 10**15, True])
def test_what_is_no_sequence_number_is_none(cursor: Any) -> None:
    assert position_of([frame(commit(time_us=8) | {"cursor": cursor})], "h") == Position("h", None, 8)
