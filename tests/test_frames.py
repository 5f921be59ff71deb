from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.events.frames import BadFrame, first_position, parse
from slurp.events.position import Position
from tests.test_identity import account, commit, identity


def frame(event: Any) -> bytes:
    return orjson.dumps(event)


def test_recorded_events_are_accepted_unchanged(corpus: list[Path]) -> None:
    for path in corpus:
        for line in path.read_bytes().splitlines():
            assert parse(line) == orjson.loads(line)


@pytest.mark.parametrize("event", [commit(), identity(), account(), commit() | {"new": [1]}])
def test_valid_events_are_accepted_unchanged(event: dict[str, Any]) -> None:
    assert parse(frame(event)) == event


@pytest.mark.parametrize(
    ("frame_bytes", "reason"),
    [
        (b"", "invalid JSON"),
        (b"\x00\xff", "invalid JSON"),
        (b"{", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b"[]", "not a JSON object"),
        (frame(commit() | {"did": 5}), "did is missing"),
        (frame(commit() | {"time_us": "5"}), "time_us is not"),
        (frame(commit() | {"time_us": True}), "time_us is not"),
        (frame(commit() | {"time_us": -1}), "time_us is not"),
        (frame(commit() | {"time_us": 2**63}), "time_us is not"),
        (frame(commit() | {"kind": "new"}), "unknown kind"),
        (frame(commit() | {"kind": "sync"}), "sync.rev is missing"),
        (frame(commit() | {"commit": None}), "without a commit object"),
        (frame(commit(rev=None)), "commit.rev is missing"),
        (frame(commit(rkey=7)), "commit.rkey is missing"),
        (frame(commit(operation="upsert")), "commit.operation is not"),
        (frame(identity(time=None)), "identity.time"),
        (frame(identity(handle=[])), "identity.handle is not a string"),
        (frame(account(active="yes")), "account.active"),
    ],
)
def test_an_invalid_frame_raises_bad_frame_with_the_reason(frame_bytes: bytes, reason: str) -> None:
    with pytest.raises(BadFrame, match=reason):
        parse(frame_bytes)


def test_lone_surrogates_and_nan_are_replaced() -> None:
    text = frame(commit(record={"text": "T", "n": 1})).replace(b'"T"', rb'"a\ud800b\ud83d\ude00"')
    event = parse(text.replace(b'"n":1', b'"n":NaN'))
    assert event["commit"]["record"] == {"text": "a\ufffdb😀", "n": None}
    assert orjson.dumps(event)


def test_first_position_skips_invalid_frames() -> None:
    frames = [b"garbage", frame(commit(time_us=8) | {"cursor": 5}), frame(commit(time_us=9) | {"cursor": 6})]
    assert first_position(frames, "host") == Position("host", 5, 8)
    assert first_position([b"garbage"], "host") is None


@pytest.mark.parametrize("cursor", [None, "5", -1, 10**15, True])
def test_an_invalid_sequence_number_is_none(cursor: Any) -> None:
    assert first_position([frame(commit(time_us=8) | {"cursor": cursor})], "h") == Position("h", None, 8)
