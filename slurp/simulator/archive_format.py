"""Rows, blocks and segments of the archive, as the official server writes them. Pure."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import cbor2
import libipld
import xxhash
import zstandard

from slurp.archive.blocks import Row, RowKind
from slurp.events.frames import parse

_KINDS = {"create": RowKind.CREATE, "update": RowKind.UPDATE, "delete": RowKind.DELETE}
_STATUS_KINDS = {"identity": RowKind.IDENTITY, "account": RowKind.ACCOUNT, "sync": RowKind.SYNC}
_HEADER_BYTES = 256
_COMPRESSOR = zstandard.ZstdCompressor(write_checksum=True)


def row_of(frame: bytes, *, is_resync: bool = False) -> Row:
    """Return the row of an event. `is_resync` is for a create that belongs to the sync before it."""
    event = parse(frame)
    kind = event["kind"]
    inner = event[kind]
    seq, time_us, did = event["cursor"], event["time_us"], event["did"]
    if kind != "commit":
        rev = inner["rev"] if kind == "sync" else ""
        return Row(seq, time_us, 0, _STATUS_KINDS[kind], "", did, "", rev, to_cbor(inner))
    row_kind = RowKind.RESYNC_CREATE if is_resync else _KINDS[inner["operation"]]
    payload = b"" if row_kind is RowKind.DELETE else to_cbor(inner.get("record"))
    return Row(seq, time_us, 0, row_kind, inner["collection"], did, inner["rkey"], inner["rev"], payload)


def to_cbor(value: Any) -> bytes:
    """Return a JSON value as DAG-CBOR."""
    return cbor2.dumps(_unwrapped(value), canonical=True)


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$bytes"}:
        text = value["$bytes"]
        return b64decode(text + "=" * (-len(text) % 4))
    if value.keys() == {"$link"}:
        return cbor2.CBORTag(42, b"\0" + libipld.decode_multibase(value["$link"])[1])
    return {name: _unwrapped(item) for name, item in value.items()}


def block(rows: Sequence[Row]) -> bytes:
    """Return the zstd frame of a block."""
    texts = [[getattr(row, name).encode() for row in rows] for name in ("collection", "did", "rkey", "rev")]
    texts.append([row.payload for row in rows])
    count = len(rows)
    columns = [
        *((code, [getattr(row, name) for row in rows]) for name, code in _FIXED),
        *((code, list(map(len, column))) for column, code in zip(texts, "BHBBI", strict=True)),
    ]
    content = [struct.pack("<I", count)]
    content += [struct.pack(f"<{count}{code}", *values) for code, values in columns]
    content += [part for column in texts for part in column]
    return _COMPRESSOR.compress(b"".join(content))


_FIXED = (("seq", "Q"), ("witnessed_at", "q"), ("indexed_at", "q"), ("kind", "B"))


def segment(blocks: Sequence[Sequence[Row]]) -> bytes:
    """Return a segment file of these blocks, without blooms and collection index, which no client reads."""
    body, index = [], []
    offset = _HEADER_BYTES
    for rows in blocks:
        frame = block(rows)
        body.append(struct.pack("<Q", len(frame)) + frame)
        index.append(struct.pack("<QIIIQQqq", offset, len(frame), 0, len(rows), *_bounds(rows)))
        offset += len(body[-1])
    everything = [row for rows in blocks for row in rows]
    dids = len({row.did for row in everything})
    header = struct.pack(
        "<HIIIQQqqQQQQQ158x",
        1,
        len(blocks),
        len(everything),
        dids,
        *_bounds(everything),
        *(offset, offset, offset, offset, offset),
    )
    footer = b"".join(index)
    checksum = xxhash.xxh3_64_intdigest(header + footer)
    return b"jss0" + struct.pack("<Q", checksum) + header + b"".join(body) + footer


def _bounds(rows: Sequence[Row]) -> tuple[int, int, int, int]:
    if not rows:
        return 0, 0, 0, 0
    seqs, times = [row.seq for row in rows], [row.witnessed_at for row in rows]
    return min(seqs), max(seqs), min(times), max(times)
