"""A segment file of the archive: its header, its index of blocks, and its blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import xxhash

from slurp.archive.blocks import DamagedArchive

_MAGIC = b"jss0"
_VERSION = 1
_HEADER_BYTES = 256
# Magic, checksum, version, blocks, events, DIDs, min_seq, max_seq, min_witnessed_at, max_witnessed_at, and
# the offsets of the footer and of its four parts.
_HEADER = struct.Struct("<4s8sHIIIQQqqQQQQQ")
# Offset, compressed and uncompressed bytes, events, min_seq, max_seq, min_witnessed_at, max_witnessed_at.
_ENTRY = struct.Struct("<QIIIQQqq")
_LENGTH = struct.Struct("<Q")
_CHECKSUM_FROM = 12
_CHUNK = 1 << 20
# The largest that the official client accepts.
MAX_SEGMENT_BYTES = 2**30
MAX_COMPRESSED_BYTES = 64 * 2**20
# A segment of 256 MB has about 2,000.
MAX_BLOCKS = 100_000


class BlockEntry(NamedTuple):
    """One block of a segment, by the index of the file. After compaction there may be fewer rows."""

    number: int
    offset: int
    """Of the frame in the file."""
    compressed: int
    events: int
    min_seq: int
    max_seq: int


class Segment:
    """An open segment file.

    Attributes:
        checksum: as in the plan and the ETag, in hexadecimal.
        blocks: the index, in the order of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the header and the index, and verify their checksum. Raises DamagedArchive."""
        self._file = file
        size = file.seek(0, 2)
        file.seek(0)
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            raise DamagedArchive(f"a segment of {size:,} bytes, less than its header")
        magic, checksum, version, count, *_, footer, _, _, _, _ = _HEADER.unpack_from(header)
        if magic != _MAGIC or version != _VERSION:
            raise DamagedArchive(f"not a segment of version {_VERSION}: it begins with {header[:14].hex()}")
        if count > MAX_BLOCKS:
            raise DamagedArchive(f"a segment of {count:,} blocks, more than {MAX_BLOCKS:,}")
        if not _HEADER_BYTES <= footer <= size - count * _ENTRY.size:
            raise DamagedArchive(f"a segment of {size:,} bytes without room for its {count:,} blocks")
        self._footer = footer
        # xxh3 is written with its highest byte first, the header with the lowest.
        self.checksum = checksum[::-1].hex()
        file.seek(footer)
        index = file.read(count * _ENTRY.size)
        digest = xxhash.xxh3_64(header[_CHECKSUM_FROM:])
        digest.update(index)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        if digest.hexdigest() != self.checksum:
            raise DamagedArchive(
                f"a segment with the checksum {digest.hexdigest()} instead of {self.checksum}"
            )
        self.blocks = list(self._entries(index))

    def _entries(self, index: bytes) -> Iterator[BlockEntry]:
        end = _HEADER_BYTES
        for number, entry in enumerate(_ENTRY.iter_unpack(index)):
            offset, compressed, _, events, min_seq, max_seq, _, _ = entry
            if compressed > MAX_COMPRESSED_BYTES:
                raise DamagedArchive(
                    f"block {number} of {compressed:,} bytes, more than {MAX_COMPRESSED_BYTES:,}"
                )
            at = offset + _LENGTH.size
            if offset < end or at + compressed > self._footer:
                raise DamagedArchive(f"block {number} is not where the index says")
            end = at + compressed
            yield BlockEntry(number, at, compressed, events, min_seq, max_seq)

    def read(self, entry: BlockEntry) -> bytes:
        """Return the zstd frame of a block. Raises DamagedArchive."""
        self._file.seek(entry.offset - _LENGTH.size)
        data = self._file.read(_LENGTH.size + entry.compressed)
        if len(data) < _LENGTH.size + entry.compressed or _LENGTH.unpack_from(data) != (entry.compressed,):
            raise DamagedArchive(f"block {entry.number} has another length than the index says")
        return data[_LENGTH.size :]
