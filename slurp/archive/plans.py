"""What the archive of a server has: plans of files and blocks, and the list of its files. Pure.

https://github.com/bluesky-social/jetstream: network.bsky.jetstream.planSnapshot and listSegments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from slurp.archive.segments import MAX_BLOCKS
from slurp.events.position import FIRST_TIME_CURSOR

Json = Mapping[str, Any]

# The name becomes a file name of the spool.
_NAME = re.compile(r"seg_[0-9]{1,20}\.jss")
_CHECKSUM = re.compile(r"[0-9a-f]{16}")
# Entries of a page; the official server's limit.
MAX_ENTRIES = 100_000


class InvalidPlan(ValueError):
    """A response that is not a plan or a list of files; the text says what is wrong."""


class Entry(NamedTuple):
    """A file of a plan, or some of its blocks. It may have rows that do not match: the plan is coarse."""

    name: str
    checksum: str
    min_seq: int
    max_seq: int
    blocks: tuple[tuple[int, int], ...] = ()
    """Ranges of block numbers, with both ends; empty for the whole file."""


class Page(NamedTuple):
    """A page of a plan."""

    sealed_tip: int
    """The highest seq of the archive; events after it are on the WebSocket only."""
    through: int
    """The seq up to which this page goes."""
    entries: tuple[Entry, ...]


class SegmentFile(NamedTuple):
    """A sealed file. Times are Unix microseconds."""

    name: str
    min_seq: int
    max_seq: int
    min_witnessed_at: int
    max_witnessed_at: int


@dataclass(frozen=True)
class Filter:
    """What a plan is restricted to; empty for everything. `collections` restrict commits only."""

    kinds: Sequence[str] = ()
    dids: Sequence[str] = ()
    collections: Sequence[str] = ()

    def body(self) -> dict[str, list[str]]:
        """Return the fields of a request."""
        fields = {"kinds": self.kinds, "dids": self.dids, "collections": self.collections}
        return {name: list(values) for name, values in fields.items() if values}


def page_of(answer: Any) -> Page:
    """Return the page in a response of planSnapshot. Raises InvalidPlan."""
    segments = _list(answer, "segments", MAX_ENTRIES)
    tip, through = _seq(answer, "sealedTipSeq"), _seq(answer, "plannedThroughSeq")
    entries = tuple(map(_entry, segments))
    if sum(len(entry.blocks) for entry in entries) > MAX_ENTRIES:
        raise InvalidPlan(f"a plan of more than {MAX_ENTRIES:,} ranges of blocks")
    lasts = [0, *(entry.max_seq for entry in entries)]
    if lasts != sorted(lasts):
        raise InvalidPlan("the files of a plan are not in the order of their events")
    return Page(tip, through, entries)


def files_of(answer: Any) -> tuple[list[SegmentFile], str]:
    """Return the files in a response of listSegments, and the cursor of the next page, '' at the end.

    Raises InvalidPlan.
    """
    files = [
        SegmentFile(
            _name(one),
            *(_seq(one, key) for key in ("minSeq", "maxSeq")),
            *(_integer(one, key) for key in ("minWitnessedAt", "maxWitnessedAt")),
        )
        for one in _list(answer, "segments", MAX_ENTRIES)
    ]
    cursor = answer.get("cursor", "")
    if not isinstance(cursor, str):
        raise InvalidPlan("cursor is not a string")
    return files, cursor


def _entry(value: Any) -> Entry:
    name = _name(value)
    checksum = value.get("checksum")
    if not isinstance(checksum, str) or not _CHECKSUM.fullmatch(checksum):
        raise InvalidPlan(f"{name} has no valid checksum")
    first, last = _seq(value, "minSeq"), _seq(value, "maxSeq")
    mode = value.get("mode")
    if mode == "segment":
        return Entry(name, checksum, first, last)
    if mode != "blocks":
        raise InvalidPlan(f"{name} has an unknown mode")
    ranges = tuple(
        (_integer(one, "first"), _integer(one, "last")) for one in _list(value, "blocks", MAX_BLOCKS)
    )
    ends = [number for pair in ranges for number in pair]
    if not ranges or ends != sorted(ends) or ends[-1] >= MAX_BLOCKS:
        raise InvalidPlan(f"{name} has no valid ranges of blocks")
    return Entry(name, checksum, first, last, ranges)


def _name(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidPlan("a file without a valid name")
    return name


def _list(value: Any, key: str, limit: int) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list) or len(found) > limit:
        raise InvalidPlan(f"{key} is not a list of at most {limit:,}")
    return found


def _integer(value: Any, key: str) -> int:
    found = value.get(key) if isinstance(value, dict) else None
    if type(found) is not int or not 0 <= found < 2**63:
        raise InvalidPlan(f"{key} is not a valid number")
    return found


def _seq(value: Any, key: str) -> int:
    if (found := _integer(value, key)) >= FIRST_TIME_CURSOR:
        raise InvalidPlan(f"{key} is not a sequence number")
    return found
