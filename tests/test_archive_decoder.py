"""Files of the archive into events: the same as on the WebSocket, and no damage from any file."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbor2
import libipld
import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from slurp.archive import blocks, segments
from slurp.archive.blocks import DamagedArchive, Row, RowKind, decompress, rows
from slurp.archive.dag_cbor import InvalidCbor, cid_of, to_json
from slurp.archive.frames import frame_of
from slurp.archive.segments import Segment
from slurp.events.frames import BadFrame, parse
from slurp.events.identity import event_id
from slurp.simulator import archive_format
from slurp.simulator.jetstream import Simulator
from tests.conftest import SHARED

Json = dict[str, Any]

DATA = Path(__file__).parent / "data/archive"
RECORDED = SHARED / "archive"
# The server archives floats of 64 bits, but cannot write them as JSON.
WITHOUT_FRAME = {121, 5708, 5709, 9394, 9395}


def events(lines: Iterable[bytes]) -> dict[int, Json]:
    """Return the events in frames of the WebSocket by their seq."""
    return {event["cursor"]: event for event in map(parse, lines)}


def recorded_events(name: str) -> dict[int, Json]:
    return events(gzip.decompress((RECORDED / name).read_bytes()).splitlines())


def assert_equal(row: Row, expected: Json) -> None:
    frame = frame_of(row)
    assert frame is not None
    event = parse(frame)
    if row.kind == RowKind.RESYNC_CREATE:
        assert event["commit"].pop("resync") is True
    # `==` alone would pass 1 for True and 1.0 for 1.
    assert json.dumps(event, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert event_id(event) == event_id(expected)


def segment_rows(path: Path) -> list[Row]:
    with path.open("rb") as file:
        segment = Segment(file)
        return [row for entry in segment.blocks for row in rows(decompress(segment.read(entry)))]


def test_each_row_of_a_block_equals_its_frame() -> None:
    expected = events(lzma.decompress((DATA / "frames.jsonl.xz").read_bytes()).splitlines())
    found = list(rows(decompress((DATA / "block.zst").read_bytes())))
    assert [row.seq for row in found] == [*range(5647, 6671)]
    assert {row.kind for row in found} == set(RowKind)
    for row in found:
        if row.seq not in WITHOUT_FRAME:
            assert_equal(row, expected.pop(row.seq))
    assert not expected


def test_a_row_without_a_frame_is_an_event() -> None:
    found = {row.seq: row for row in rows(decompress((DATA / "block.zst").read_bytes()))}
    frame = frame_of(found[5708])
    assert frame is not None
    assert parse(frame)["commit"]["record"] == {
        "$type": "org.example.odd.record",
        "f": 1.5,
        "g": [-0.25, 3.0, 1e-07, 1.2345678901234568e20],
    }


def test_an_empty_block_has_no_rows() -> None:
    assert list(rows(decompress((DATA / "empty.zst").read_bytes()))) == []


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded archive is not beside the project")
def test_each_row_of_the_recorded_archive_equals_its_frame() -> None:
    expected = recorded_events("frames.jsonl.gz")
    summary = json.loads((RECORDED / "expected.json").read_bytes())
    seen = set()
    for number, path in enumerate(sorted((RECORDED / "segments").glob("*.jss"))):
        found = segment_rows(path)
        assert len(found) == summary["segments"][number]["rows"]
        for row in found:
            seen.add(row.seq)
            if row.seq not in WITHOUT_FRAME:
                assert_equal(row, expected[row.seq])
    assert seen == {*range(1, 12_040)}
    assert seen == expected.keys() | WITHOUT_FRAME
    for path in (RECORDED / "compacted").glob("*.jss"):
        for row in segment_rows(path):
            if row.seq not in WITHOUT_FRAME:
                assert_equal(row, expected[row.seq])


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded archive is not beside the project")
def test_an_imported_time_is_that_of_the_frame() -> None:
    expected = recorded_events("imported/frames.jsonl.gz")
    found = [row for row in segment_rows(RECORDED / "imported/seg_0000000001.jss") if row.indexed_at]
    assert len(found) == len(expected) == 15
    for row in found:
        assert_equal(row, expected[row.seq])


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded archive is not beside the project")
@pytest.mark.parametrize("folder", ["segments", "compacted", "imported"])
def test_the_checksum_is_that_of_the_plan(folder: str) -> None:
    table = (RECORDED / "README.md").read_text(encoding="utf-8")
    for path in (RECORDED / folder).glob("*.jss"):
        name = path.name if folder == "segments" else f"{folder}/{path.name}"
        with path.open("rb") as file:
            assert f"| {name} |" in table
            line = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
            assert f"`{Segment(file).checksum}`" in line


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded archive is not beside the project")
def test_the_simulator_writes_the_rows_of_the_recorded_archive() -> None:
    for path in sorted((RECORDED / "segments").glob("*.jss")):
        for row in segment_rows(path):
            frame = frame_of(row)
            assert frame is not None
            if row.seq not in WITHOUT_FRAME:
                again = archive_format.row_of(frame, is_resync=row.kind == RowKind.RESYNC_CREATE)
                assert again == row


@pytest.fixture(scope="module")
def simulated_frames() -> list[bytes]:
    with Simulator(seed=5) as simulator:
        return simulator.generate(300).frames


@pytest.fixture(scope="module")
def simulated(simulated_frames: list[bytes]) -> bytes:
    made = [archive_format.row_of(frame) for frame in simulated_frames]
    return archive_format.segment([made[:100], [], made[100:]])


def read_all(data: bytes) -> list[bytes | None]:
    segment = Segment(io.BytesIO(data))
    return [frame_of(row) for entry in segment.blocks for row in rows(decompress(segment.read(entry)))]


def test_a_simulated_segment_has_its_events(simulated: bytes, simulated_frames: list[bytes]) -> None:
    found = [parse(frame) for frame in read_all(simulated) if frame is not None]
    assert list(map(event_id, found)) == [event_id(parse(frame)) for frame in simulated_frames]


@given(st.data())
def test_a_changed_segment_is_damaged_or_has_valid_frames(simulated: bytes, data: st.DataObject) -> None:
    changed = bytearray(simulated)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(changed))))
    try:
        found = read_all(bytes(changed[:cut]))
    except DamagedArchive:
        return
    # Neither index nor blocks have changed: their checksums are verified.
    assert found == read_all(simulated)


@given(st.data())
def test_a_changed_block_is_damaged_or_has_frames(data: st.DataObject) -> None:
    """What a hostile server sends: a valid checksum over any content."""
    content = bytearray(decompress((DATA / "block.zst").read_bytes()))
    for _ in range(data.draw(st.integers(1, 4))):
        changed = data.draw(st.binary(min_size=1, max_size=4))
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + len(changed)] = changed
    try:
        found = [frame_of(row) for row in rows(bytes(content))]
    except DamagedArchive:
        return
    for frame in found:
        if frame is not None:
            try:
                parse(frame)
            except BadFrame as error:
                assert "bug" not in str(error)


@given(st.binary(max_size=300))
def test_any_bytes_are_damaged_or_a_block(content: bytes) -> None:
    for read in (lambda: list(rows(content)), lambda: decompress(content)):
        with suppress(DamagedArchive):
            read()
    with pytest.raises(DamagedArchive):
        Segment(io.BytesIO(content))


def test_a_block_cannot_claim_more_than_the_limit() -> None:
    million = bytes(1_000_000)
    with_size = zstandard.ZstdCompressor(level=3).compress(million * 70)
    compressor = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    without_size = compressor.compress(million * 70) + compressor.flush()
    for frame, reason in (
        (with_size, "of 70,000,000 bytes, more than 67,108,864"),
        (without_size, "cannot be decompressed"),
    ):
        assert len(frame) < 100_000
        with pytest.raises(DamagedArchive, match=reason):
            decompress(frame)


def test_a_wrong_checksum_of_a_block_is_found() -> None:
    frame = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(bytes(1000)))
    frame[-1] ^= 1
    with pytest.raises(DamagedArchive, match="cannot be decompressed"):
        decompress(bytes(frame))


def test_a_block_that_is_cut_short_is_damaged() -> None:
    frame = (DATA / "block.zst").read_bytes()
    for end in (0, 1, 10, len(frame) // 2, len(frame) - 1):
        with pytest.raises(DamagedArchive):
            decompress(frame[:end])
    with pytest.raises(DamagedArchive):
        decompress(frame + b"x")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "without its number of rows"),
        (struct.pack("<I", blocks.MAX_ROWS + 1), "262,145 rows, more than 262,144"),
        (struct.pack("<I", 1000) + bytes(1000), "1,000 rows in 1,004 bytes"),
        (struct.pack("<I", 0) + b"x", "do not add up"),
        (struct.pack("<I", 2) + bytes(68), "do not rise"),
        (struct.pack("<IQqqBBHBBI", 1, 5, 0, 0, 1, 1, 0, 0, 0, 0) + b"\xff", "not UTF-8"),
        (struct.pack("<IQqqBBHBBI", 1, 5, 0, 0, 1, 0, 0, 0, 0, 2**32 - 1), "do not add up"),
    ],
)
def test_an_invalid_block_is_damaged(content: bytes, reason: str) -> None:
    with pytest.raises(DamagedArchive, match=reason):
        rows(content)


def with_header(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"jss1", "not a segment of version 1"),
        (4, b"\0", "with the checksum"),
        (12, b"\2", "not a segment of version 1"),
        (14, struct.pack("<I", 2**32 - 1), "4,294,967,295 blocks, more than 100,000"),
        (14, struct.pack("<I", 50_000), "without room"),
        (58, struct.pack("<Q", 2**63), "without room"),
        (58, struct.pack("<Q", 0), "without room"),
    ],
)
def test_an_invalid_header_is_damaged(simulated: bytes, offset: int, value: bytes, reason: str) -> None:
    with pytest.raises(DamagedArchive, match=reason):
        Segment(io.BytesIO(with_header(simulated, offset, value)))


def test_blocks_that_are_not_where_the_index_says_are_damaged(
    simulated: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment(io.BytesIO(with_header(simulated, 256, struct.pack("<Q", 5))))
    with pytest.raises(DamagedArchive, match="block 0 has another length"):
        segment.read(segment.blocks[0])
    monkeypatch.setattr(segments, "MAX_COMPRESSED_BYTES", 100)
    with pytest.raises(DamagedArchive, match="more than 100"):
        Segment(io.BytesIO(simulated))


def test_an_unknown_kind_of_row_has_no_frame() -> None:
    assert frame_of(Row(1, 2, 0, 8, "a.b.c", "did:plc:x", "r", "v", b"")) is None


def test_a_record_that_is_no_cbor_becomes_a_dead_letter_with_its_bytes() -> None:
    frame = frame_of(Row(1, 2, 0, 1, "a.b.c", "did:plc:x", "r", "v", b"\xff"))
    assert frame is not None
    with pytest.raises(BadFrame, match="the content of a row of the archive is invalid: "):
        parse(frame)
    assert orjson.loads(frame)["row"]["payload"] == "/w=="


def test_a_row_larger_than_a_frame_may_be_becomes_a_dead_letter() -> None:
    payload = cbor2.dumps({"text": "<" * 1000, "bytes": bytes(30_000_000)}, canonical=True)
    frame = frame_of(Row(1, 2, 0, 1, "a.b.c", "did:plc:x", "r", "v", payload))
    assert frame is not None
    with pytest.raises(BadFrame, match="more than 33,554,432 bytes"):
        parse(frame)


CID = b"\x01\x71\x12\x20" + bytes(range(32))
LINK = cbor2.CBORTag(42, b"\0" + CID)
TEXT = libipld.encode_cid(CID)


def plain(data: bytes) -> Any:
    return orjson.loads(to_json(data, lambda value: value))


@pytest.mark.parametrize("padding", [0, 10_000])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([LINK], [{"$link": TEXT}]),
        ([CID], [{"$bytes": "AXESIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"}]),
        ([LINK, CID], [{"$link": TEXT}, {"$bytes": "AXESIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"}]),
        # Bytes in which the encoding of a link occurs, beside that link.
        (
            [LINK, cbor2.dumps(LINK)],
            [{"$link": TEXT}, {"$bytes": "2CpYJQABcRIgAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}],
        ),
        ([b""], [{"$bytes": ""}]),
        ([bytes(24), bytes(300)], [{"$bytes": "A" * 32}, {"$bytes": "A" * 400}]),
        ([cbor2.CBORTag(42, b"\0\x01\x55\0\x01a")], [{"$link": "bafkqaalb"}]),
    ],
)
def test_bytes_and_links_are_distinguished(value: list[Any], expected: list[Any], padding: int) -> None:
    text = "x" * padding
    assert plain(cbor2.dumps([*value, text], canonical=True)) == [*expected, text]


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**63), 2**64 - 1),
            st.text(max_size=8),
            st.binary(max_size=40),
            st.sampled_from(
                [LINK, CID, cbor2.dumps(CID), cbor2.dumps(LINK), cbor2.CBORTag(42, b"\0\x01\x55\0\x01a")]
            ),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_value_is_converted_and_back(value: Any) -> None:
    data = cbor2.dumps(value, canonical=True)
    assert archive_format.to_cbor(plain(data)) == data or "$" in repr(value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xfb\x3f\xf8\0\0\0\0\0\0", 1.5),
        (b"\xfb\x7f\xf8\0\0\0\0\0\0", None),
        (b"\xf9\x3c\0", 1.0),
        (b"\xa2\x61b\x01\x61a\x02", {"a": 2, "b": 1}),
        (b"\x01\x01", 1),
        (b"\x61\xff", "\ufffd"),
        (b"\x81" * 300 + b"\x01", None),
    ],
)
def test_what_the_official_server_accepts_is_decoded(data: bytes, expected: Any) -> None:
    value = plain(data)
    assert data.startswith(b"\x81" * 300) or value == expected


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"\x9b" + b"\xff" * 8,
            b"\xbb" + b"\x7f" * 8,
            b"\x5b" + b"\x7f" * 8 + b"x",
            b"\x7a\x7f\xff\xff\xff",
        ),
        *(b"\x81" * 300_000 + b"\1", b"\xa1\x61a" * 300_000 + b"\1"),
        # A pattern, a value that contains itself, a repeated text, a large integer, a link without a CID.
        *(b"\xd8\x23\x63a+b", b"\xd8\x1c\x81\xd8\x1d\0", b"\xd9\x01\0\x82\x63abc\xd8\x19\0", b"\xc2\x41\1"),
        *(b"\xd8\x2a\x40", b"\xd8\x2a\x41\0", b"\xd8\x2a\1"),
    ],
)
def test_hostile_cbor_is_rejected(data: bytes) -> None:
    with pytest.raises(InvalidCbor):
        to_json(data, lambda value: value)


def test_a_record_of_many_byte_strings_is_decoded_in_time_proportional_to_its_size() -> None:
    # Searched for in the whole record, each of them would take as long as the record is large.
    data = cbor2.dumps([number.to_bytes(3, "big") for number in range(200_000)])
    assert len(plain(data)) == 200_000


def test_the_cid_is_that_of_the_server() -> None:
    assert cid_of(b"\xa0") == "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"
