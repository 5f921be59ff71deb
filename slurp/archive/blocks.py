"""Blocks of the archive: compressed columns into rows. Pure.

A block is one zstd frame with its own checksum. Decompressed it is the number of rows n, then n times each
column of fixed width, then the texts and payloads of all rows, one column after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from operator import lt
from typing import NamedTuple

import zstandard

# The official server writes 4,096 rows into a block and refuses more than 262,144.
MAX_ROWS = 262_144
# A block of 4,096 rows has some megabytes; a record at most one.
MAX_BLOCK_BYTES = 64 * 2**20

_COUNT = struct.Struct("<I")
# Width in bytes and format of each column, in their order: seq, witnessed_at, indexed_at, kind, and the
# lengths of collection, DID, rkey, rev and payload.
_COLUMNS = "QqqBBHBBI"
_ROW_BYTES = struct.calcsize("<" + _COLUMNS)


class DamagedArchive(ValueError):
    """Bytes that are not what the format prescribes; the text says what is wrong."""


class RowKind(IntEnum):
    """The known kinds of rows."""

    CREATE = 1
    UPDATE = 2
    DELETE = 3
    IDENTITY = 4
    ACCOUNT = 5
    SYNC = 6
    RESYNC_CREATE = 7
    """A create behind a sync: a record that is announced again."""


class Row(NamedTuple):
    """One event of the archive. Times are Unix microseconds."""

    seq: int
    witnessed_at: int
    indexed_at: int
    """0 unless an operator imported a display time."""
    kind: int
    """A RowKind, or the number of a kind that is not known."""
    collection: str
    did: str
    rkey: str
    rev: str
    payload: bytes
    """DAG-CBOR: the record of a create or update, or the event of the relay; empty for a delete."""

    @property
    def time_us(self) -> int:
        """The `time_us` of the same event on the WebSocket."""
        return self.indexed_at or self.witnessed_at


def decompress(frame: bytes) -> bytes:
    """Return the content of a block. Raises DamagedArchive, also if it would exceed MAX_BLOCK_BYTES."""
    try:
        declared = zstandard.frame_content_size(frame)
        if declared > MAX_BLOCK_BYTES:
            raise DamagedArchive(f"a block of {declared:,} bytes, more than {MAX_BLOCK_BYTES:,}")
        # Not every frame has its size: an empty block has none.
        return zstandard.ZstdDecompressor().decompress(
            frame, max_output_size=MAX_BLOCK_BYTES, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise DamagedArchive(f"a block cannot be decompressed: {error}") from None


def rows(block: bytes) -> Iterator[Row]:
    """Yield the rows of a decompressed block. Raises DamagedArchive before the first one is yielded."""
    if len(block) < _COUNT.size:
        raise DamagedArchive("a block without its number of rows")
    (count,) = _COUNT.unpack_from(block)
    if count > MAX_ROWS:
        raise DamagedArchive(f"a block of {count:,} rows, more than {MAX_ROWS:,}")
    at = _COUNT.size
    if len(block) - at < count * _ROW_BYTES:
        raise DamagedArchive(f"a block of {count:,} rows in {len(block):,} bytes")
    columns = []
    for code in _COLUMNS:
        column = struct.Struct(f"<{count}{code}")
        columns.append(column.unpack_from(block, at))
        at += column.size
    seqs, witnessed, indexed, kinds, *lengths = columns
    if not all(map(lt, seqs, seqs[1:])):
        raise DamagedArchive("a block whose sequence numbers do not rise")
    if at + sum(map(sum, lengths)) != len(block):
        raise DamagedArchive("a block whose lengths do not add up")
    texts = []
    for column_lengths in lengths[:-1]:
        end = at + sum(column_lengths)
        texts.append(_texts(block[at:end], column_lengths))
        at = end
    payloads = _slices(block, lengths[-1], at)
    return map(Row, seqs, witnessed, indexed, kinds, *texts, payloads)


def _texts(column: bytes, lengths: Sequence[int]) -> Sequence[str]:
    if column.isascii():
        joined = column.decode("ascii")
        return [joined[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]
    try:
        return [part.decode() for part in _slices(column, lengths)]
    except UnicodeDecodeError as error:
        raise DamagedArchive(f"a block with a text that is not UTF-8: {error}") from None


def _slices(data: bytes, lengths: Sequence[int], at: int = 0) -> Iterator[bytes]:
    return (data[start:end] for start, end in pairwise(accumulate(lengths, initial=at)))
