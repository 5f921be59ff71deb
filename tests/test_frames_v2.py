"""Decoding of the v2 protocol: its frames become the events that v1 would have sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.documents.document import build
from slurp.events.frames import (
    MAX_FRAME_BYTES,
    BadFrame,
    Notice,
    first_position,
    is_v2_commit,
    oversized_frame,
    parse,
    parse_notice,
)
from slurp.events.identity import event_id, instant_us
from slurp.events.position import Position
from slurp.jetstream.resyncs import ResyncTracker, mark_resync
from slurp.simulator import protocol_v2
from tests.conftest import SHARED
from tests.test_identity import DID, REV_US, TIME_US, account, commit, identity

TYPE = "network.bsky.jetstream.subscribeEvents#"
REV = "3mptbypluud2a"


def sync(time_us: int = TIME_US, did: str = DID, **inner: Any) -> dict[str, Any]:
    body = {
        "blocks": {"$bytes": "OqJl"},
        "did": did,
        "rev": REV,
        "seq": 3,
        "time": "2026-07-04T14:38:07.112Z",
    }
    return {"did": did, "time_us": time_us, "kind": "sync", "sync": body | inner}


def v2(event: dict[str, Any], seq: int = 7) -> bytes:
    return protocol_v2.frame(event, seq)


def payload_with(event: dict[str, Any], **changed: Any) -> bytes:
    message = orjson.loads(v2(event))
    message["payload"] |= changed
    return orjson.dumps(message)


@pytest.fixture(scope="module")
def recorded() -> list[bytes]:
    path = SHARED / "corpus" / "jetstream-v2-simulated.jsonl"
    if not path.is_file():
        pytest.skip("the recorded events are not available")
    return path.read_bytes().splitlines()


@pytest.mark.parametrize("event", [commit(record={"a": 1}, cid="bafy"), identity(), account(), sync()])
def test_a_v2_frame_decodes_to_the_v1_event(event: dict[str, Any]) -> None:
    assert parse(v2(event)) == event | {"cursor": 7}
    assert parse(orjson.dumps(event | {"cursor": 7})) == parse(v2(event))


def test_recorded_frames_are_accepted_and_keep_all_values(recorded: list[bytes]) -> None:
    kinds = []
    for frame in recorded:
        event, payload = parse(frame), orjson.loads(frame)["payload"]
        kinds.append(event["kind"])
        assert event["cursor"] == payload["seq"]
        assert is_v2_commit(frame) == (event["kind"] == "commit")
        if event["kind"] == "commit":
            assert event["commit"].items() <= payload.items()
        else:
            assert event[event["kind"]] == payload[event["kind"]]
        assert orjson.loads(protocol_v2.frame(event, payload["seq"])) == orjson.loads(frame)
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "commit": 1988,
        "account": 4,
        "identity": 7,
        "sync": 1,
    }


def test_v1_and_v2_give_the_same_document(corpus: list[Path]) -> None:
    for path in corpus:
        for line in path.read_bytes().splitlines():
            event = orjson.loads(line) | {"cursor": 7}
            assert build(parse(v2(event)), "h", 1) == build(parse(orjson.dumps(event)), "h", 1)


@pytest.mark.parametrize(
    ("time", "micros"),
    [
        ("2026-11-23T20:02:34.614449Z", 1795464154614449),
        ("2026-11-23T20:02:34.614Z", 1795464154614000),
        ("2026-11-23T20:02:34Z", 1795464154000000),
        ("2026-11-23T21:02:34.614449+01:00", 1795464154614449),
        ("2026-11-23T20:02:34.614449123Z", 1795464154614449),
    ],
)
def test_times_of_every_precision_are_parsed(time: str, micros: int) -> None:
    assert parse(payload_with(commit(), time=time))["time_us"] == micros


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (orjson.dumps({"$type": "message"}), "neither event nor notice"),
        (orjson.dumps({"$type": ["message"], "payload": {}}), "neither event nor notice"),
        (orjson.dumps({"$type": "message", "payload": {}}), "unknown kind"),
        (payload_with(commit(), **{"$type": f"{TYPE}new"}), "unknown kind"),
        (payload_with(commit(), **{"$type": [1]}), "unknown kind"),
        (payload_with(commit(), time=7), "time is not between"),
        (payload_with(commit(), time="yesterday"), "time is not between"),
        (payload_with(commit(), time="1969-11-23T20:02:34.614449Z"), "time is not between"),
        (payload_with(commit(), time="2026-99-23T20:02:34.614449Z"), "time is not between"),
        (payload_with(commit(), did=None), "did is missing"),
        (payload_with(commit(), rev=None), "commit.rev is missing"),
        (payload_with(commit(), operation="upsert"), "commit.operation is not"),
        (payload_with(identity(), identity=None), "identity.time"),
        (payload_with(account(), account={"time": "x"}), "account.active"),
        (payload_with(sync(), sync=None), "sync.rev"),
        (payload_with(sync(), sync={"rev": 5}), "sync.rev"),
        (protocol_v2.info("OutdatedCursor", ""), "unknown kind"),
        (protocol_v2.error("ConsumerTooSlow", ""), "neither event nor notice"),
        (oversized_frame(4, "ab12", decompressed=10**9), "more than 33,554,432 bytes"),
    ],
)
def test_an_invalid_frame_raises_bad_frame_with_the_reason(frame: bytes, reason: str) -> None:
    with pytest.raises(BadFrame, match=reason):
        parse(frame)


@pytest.mark.parametrize("seq", [None, "5", -1, 10**15, True])
def test_an_invalid_sequence_number_is_none(seq: Any) -> None:
    assert first_position([payload_with(commit(), seq=seq)], "h") == Position("h", None, TIME_US)


def test_notices_are_distinguished_from_events() -> None:
    assert parse_notice(protocol_v2.info("OutdatedCursor", "late")) == Notice(
        "OutdatedCursor", "late", is_error=False
    )
    assert parse_notice(protocol_v2.error("ConsumerTooSlow", "")) == Notice(
        "ConsumerTooSlow", "", is_error=True
    )
    for frame in (v2(commit()), v2(sync()), b"garbage", b"[]", b'{"$type":"error"}', b'{"$type":"message"}'):
        assert parse_notice(frame) is None
    notice = parse_notice(orjson.dumps({"$type": "error", "error": "a\nb\x1b[31m", "message": "x" * 1000}))
    assert notice is not None
    assert str(notice) == f"a?b?[31m: {'x' * 300}", "a server cannot write lines into the log"


def test_an_oversized_frame_keeps_size_and_hash() -> None:
    assert orjson.loads(oversized_frame(4, "ab12", decompressed=10**9)) == {
        "$type": "skeetslurper.stub",
        "decompressed": 10**9,
        "received": 4,
        "blake2b": "ab12",
    }
    assert MAX_FRAME_BYTES == 33_554_432


def test_a_sync_is_a_document_without_its_blocks() -> None:
    event = parse(v2(sync()))
    # Golden values: documents with these ids exist in indices.
    assert event_id(event) == "jba2YpR57zcopAbyWfUV1Q"
    assert instant_us(event) == REV_US
    source = orjson.loads(build(event, "h", TIME_US).body)
    assert source["kind"] == "sync"
    assert source["sync"] == {"rev": REV, "seq": 3, "time": "2026-07-04T14:38:07.112Z"}
    assert "commit" not in source


def test_a_sync_without_a_time_has_the_same_id() -> None:
    without_time = parse(v2(sync(time="", seq=0)))
    assert event_id(without_time) == event_id(sync())
    assert event_id(sync(rev="3mptbypluud2b")) != event_id(sync())
    assert orjson.loads(build(without_time, "h", TIME_US).body)["sync"] == {"rev": REV, "seq": 0}


class TestResyncs:
    """Creates that follow a #sync, for every division into batches."""

    def events(self) -> list[bytes]:
        before = commit(rkey="before")
        rows = [commit(rkey=f"row{n}") for n in range(3)]
        others = [commit(rkey="other", rev="3mptbypluud2b"), commit(rkey="row0", operation="delete")]
        other_account = commit(rkey="other_account") | {"did": "did:plc:other_account"}
        events = [before, sync(), *rows, *others, other_account, identity()]
        return [v2(event, 10 + n) for n, event in enumerate(events)]

    def marked(self, frames: list[bytes], resyncs: ResyncTracker, size: int) -> list[int]:
        found = []
        for begin in range(0, len(frames), size):
            part = frames[begin : begin + size]
            announced = resyncs.observe(part, "h")
            for frame in part:
                event = parse(frame)
                mark_resync(event, announced)
                if event.get("commit", {}).get("resync"):
                    found.append(event["cursor"])
        return found

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
    def test_are_marked_for_every_batch_size(self, size: int) -> None:
        assert self.marked(self.events(), ResyncTracker(), size) == [12, 13, 14]

    def test_are_marked_again_in_a_replay(self) -> None:
        resyncs = ResyncTracker()
        assert self.marked(self.events(), resyncs, 3) == [12, 13, 14]
        assert self.marked(self.events(), resyncs, 2) == [12, 13, 14]

    @pytest.mark.parametrize("cut", range(1, 9))
    @pytest.mark.parametrize("size", [1, 3])
    def test_are_marked_after_a_restart_at_any_event(self, cut: int, size: int) -> None:
        frames, first = self.events(), ResyncTracker()
        marked = self.marked(frames[:cut], first, size)
        last = parse(frames[cut - 1])
        at = first.resume_position(last, Position("h", last["cursor"], TIME_US))
        assert at.cursor == (11 if 11 <= last["cursor"] <= 14 else last["cursor"])
        again = self.marked(
            [f for f in frames if parse(f)["cursor"] >= (at.cursor or 0)], ResyncTracker(), size
        )
        assert sorted({*marked, *again}) == [12, 13, 14]

    def test_of_another_host_are_not_kept(self) -> None:
        resyncs = ResyncTracker()
        self.marked(self.events(), resyncs, 100)
        assert resyncs.observe([], "h")
        assert not resyncs.observe([], "another")

    def test_are_kept_for_the_latest_1024_only(self) -> None:
        resyncs = ResyncTracker()
        frames = [v2(sync(did=f"did:plc:{n}"), n) for n in range(1, 5000)]
        assert len(resyncs.observe(frames, "h")) == 1024
        assert ("did:plc:4999", REV) in resyncs.observe([], "h")
