"""The archive of a simulated server: sealed files of its events, and the answers to requests. No I/O.

As on a real server: a file is sealed once it is full, later files have higher sequence numbers, and
compaction removes what later events have replaced.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from slurp.archive.blocks import Row, RowKind
from slurp.events.frames import BadFrame, parse
from slurp.simulator import archive_format
from slurp.simulator.event_store import EventStore
from slurp.simulator.filters import BadRequest, make_filter
from slurp.simulator.handshake import HandshakeRejected, RequestHead, file_response

Json = dict[str, Any]
Params = Mapping[str, list[str]]

_PREFIX = "/xrpc/network.bsky.jetstream."
PLAN, SEGMENT, BLOCK, LIST = (
    _PREFIX + name for name in ("planSnapshot", "getSegment", "getBlock", "listSegments")
)
_WITH_KEY = (PLAN, SEGMENT, BLOCK)
_JSON = {"Content-Type": "application/json"}
# The share of matching blocks from which a plan names the whole file.
_WHOLE = 0.75
_KINDS = {"commit": (1, 2, 3, 7), "identity": (4,), "account": (5,), "sync": (6,)}
_WRITES = (RowKind.CREATE, RowKind.UPDATE, RowKind.RESYNC_CREATE)


@dataclass
class _File:
    """A sealed file. Number and order of its blocks never change."""

    index: int
    blocks: list[list[Row]]
    min_seq: int
    max_seq: int

    def __post_init__(self) -> None:
        self.name = f"seg_{self.index:010}.jss"
        self.encode()

    def encode(self) -> None:
        self.data = archive_format.segment(self.blocks)
        self.checksum = self.data[4:12][::-1].hex()

    @property
    def times(self) -> tuple[int, int]:
        times = [row.witnessed_at for rows in self.blocks for row in rows] or [0]
        return min(times), max(times)

    def entry(self) -> Json:
        return {
            "name": self.name,
            "index": self.index,
            "checksum": self.checksum,
            "minSeq": self.min_seq,
            "maxSeq": self.max_seq,
        }


class SimulatedArchive:
    """The sealed files of a server, and its answers.

    Attributes:
        key: the API key that is wanted; '' for none.
        failures: the next requests are answered with these: HTTP status, headers and body.
        cuts: the next files are cut off after so many bytes.
        requests: the path, parameters and headers of each request so far.
        page: entries of a page of a plan.
    """

    def __init__(self, store: EventStore, segment_rows: int, block_rows: int) -> None:
        """There is no archive if `segment_rows` is 0."""
        self.key = ""
        self.failures: deque[tuple[int, dict[str, str], bytes]] = deque()
        self.cuts: deque[int] = deque()
        self.requests: list[tuple[str, Params, Mapping[str, str]]] = []
        self.page = 100_000
        self._store = store
        self._segment_rows, self._block_rows = segment_rows, block_rows
        self._files: list[_File] = []
        self._pending: list[Row] = []
        self._position = 0
        self._syncs: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    # What tests do with it.

    def compact(self) -> int:
        """Remove creates and updates that later events have replaced; return how many."""
        with self._lock:
            self._seal()
            last: dict[tuple[str, str, str], int] = {}
            for row in self._rows():
                last[row.did, row.collection, row.rkey] = row.seq
            removed = 0
            for file in self._files:
                before = sum(map(len, file.blocks))
                file.blocks = [
                    [
                        row
                        for row in rows
                        if row.kind not in _WRITES or last[row.did, row.collection, row.rkey] == row.seq
                    ]
                    for rows in file.blocks
                ]
                removed += before - sum(map(len, file.blocks))
                file.encode()
            return removed

    def damage(self, index: int = 0) -> None:
        """Change a byte in the first block of a file, as a failing disk does."""
        with self._lock:
            self._seal()
            data = bytearray(self._files[index].data)
            data[256 + 8 + 20] ^= 0xFF
            self._files[index].data = bytes(data)

    def repair(self) -> None:
        """Undo `damage`."""
        with self._lock:
            for file in self._files:
                file.encode()

    @property
    def sealed_tip(self) -> int:
        """The highest sequence number in a sealed file; 0 without one."""
        with self._lock:
            self._seal()
            return self._files[-1].max_seq if self._files else 0

    def rows(self) -> list[Row]:
        """Return all rows of the sealed files."""
        with self._lock:
            self._seal()
            return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        return (row for file in self._files for rows in file.blocks for row in rows)

    # From events to files.

    def wipe(self) -> None:
        """Begin again, as the store does."""
        with self._lock:
            self._files, self._pending, self._position = [], [], self._store.end
            self._syncs.clear()

    def collect(self) -> None:
        """Take over the new events of the store, before it drops them."""
        if self._segment_rows:
            with self._lock:
                self._seal()

    def _seal(self) -> None:
        # The newest events are in the active file, which is not served: a killed server numbers them again.
        while self._store.end - self._position >= 2 * self._segment_rows:
            batch = self._store.read(self._position, self._segment_rows - len(self._pending))
            self._pending += self._to_rows(batch.frames, batch.sequence_numbers)
            self._position = batch.end
            if len(self._pending) >= self._segment_rows:
                rows, self._pending = self._pending, []
                size = self._block_rows
                blocks = [rows[first : first + size] for first in range(0, len(rows), size)]
                self._files.append(_File(len(self._files), blocks, rows[0].seq, rows[-1].seq))

    def _to_rows(self, frames: Sequence[bytes], seqs: Sequence[int]) -> Iterator[Row]:
        for frame, seq in zip(frames, seqs, strict=True):
            try:
                event = parse(frame)
            except BadFrame:
                continue  # an injected frame is on the WebSocket only
            key = (event["did"], event[event["kind"]].get("rev", ""))
            if event["kind"] == "sync":
                self._syncs.add(key)
            is_resync = key in self._syncs and event["kind"] == "commit"
            yield archive_format.row_of(frame, is_resync=is_resync)._replace(seq=seq)

    # The answers.

    def answers(self, path: str) -> bool:
        """Return whether this path belongs to the archive."""
        return bool(self._segment_rows) and path in (PLAN, SEGMENT, BLOCK, LIST)

    def answer(self, head: RequestHead, path: str, params: Params, body: bytes) -> bytes:
        """Return the response to a request. Raises HandshakeRejected."""
        with self._lock:
            self.requests.append((path, params, dict(head.headers.raw_items())))
            if self.failures:
                status, headers, content = self.failures.popleft()
                return file_response(content, headers, status)
            if self.key and path in _WITH_KEY and head.headers.get("Authorization") != f"Bearer {self.key}":
                raise _rejected(401, "AuthRequired", "invalid or missing bearer token")
            if head.method != ("POST" if path == PLAN else "GET"):
                raise _rejected(405, "MethodNotAllowed", head.method)
            self._seal()
            if path == PLAN:
                return file_response(orjson.dumps(self._plan(_json(body))), _JSON)
            if path == LIST:
                return file_response(orjson.dumps(self._list(params)), _JSON)
            if path == BLOCK:
                return self._block(params)
            return self._segment(head, _one(params, "name"))

    def _plan(self, request: Json) -> Json:
        after, tip = int(request.get("afterSeq", 0)), self._files[-1].max_seq if self._files else 0
        before = request.get("beforeSeq")
        if before is not None and before <= after:
            raise _rejected(400, "InvalidRequest", "beforeSeq must be greater than afterSeq")
        sealed_tip = tip if before is None else min(tip, before)
        kinds = {number for kind in request.get("kinds") or _KINDS for number in _KINDS[kind]}
        names = ("collections", "dids")
        collections, dids = (request.get(name) or [] for name in names)
        try:
            wanted = make_filter(collections, dids, 0, names)
        except BadRequest as error:
            raise _rejected(400, "InvalidRequest", str(error)) from error

        def is_selected(row: Row) -> bool:
            is_within = after < row.seq <= sealed_tip and row.kind in kinds
            return is_within and wanted.matches(row.collection, row.did, 0)

        entries: list[Json] = []
        through = sealed_tip
        for file in self._files:
            if file.max_seq <= after or file.min_seq > sealed_tip:
                continue
            if len(entries) >= self.page:
                through = file.min_seq - 1
                break
            matching = [number for number, rows in enumerate(file.blocks) if any(map(is_selected, rows))]
            if len(matching) >= _WHOLE * len(file.blocks):
                entries.append(file.entry() | {"mode": "segment"})
            elif matching:
                entries.append(file.entry() | {"mode": "blocks", "blocks": _ranges(matching)})
        stats = {"segmentsExamined": len(self._files), "entries": len(entries)}
        return {
            "sealedTipSeq": sealed_tip,
            "plannedThroughSeq": through,
            "segments": entries,
            "stats": stats,
        }

    def _list(self, params: Params) -> Json:
        limit = int(params.get("limit", ["100"])[-1])
        first = int(params.get("cursor", ["0"])[-1])
        listed = []
        for file in self._files[first : first + limit]:
            begin, end = file.times
            listed.append(file.entry() | {"minWitnessedAt": begin, "maxWitnessedAt": end})
        more = {"cursor": str(first + limit)} if first + limit < len(self._files) else {}
        return {"segments": listed, **more}

    def _file(self, name: str) -> _File:
        for file in self._files:
            if file.name == name:
                return file
        raise _rejected(404, "SegmentNotFound", f"segment not found: {name[:50]}")

    def _segment(self, head: RequestHead, name: str) -> bytes:
        file = self._file(name)
        tag = f'"{file.checksum}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        data, status = file.data, 200
        requested = head.headers.get("Range", "")
        if requested and head.headers.get("If-Range", tag) == tag:
            first = int(requested.removeprefix("bytes=").removesuffix("-"))
            if first >= len(data):
                return file_response(b"", {"Content-Range": f"bytes */{len(data)}"}, 416)
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            data, status = data[first:], 206
        response = file_response(data, headers, status)
        if self.cuts:
            response = response[: len(response) - len(data) + min(self.cuts.popleft(), len(data))]
        return response

    def _block(self, params: Params) -> bytes:
        file, number = self._file(_one(params, "segment")), int(_one(params, "blockIndex"))
        if not 0 <= number < len(file.blocks):
            raise _rejected(404, "BlockNotFound", f"block {number}")
        return file_response(
            archive_format.block(file.blocks[number]), {"ETag": f'"{file.checksum}:{number}"'}
        )


def _ranges(numbers: Sequence[int]) -> list[Json]:
    groups = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    runs = [[number for _, number in group] for _, group in groups]
    return [{"first": run[0], "last": run[-1]} for run in runs]


def _json(body: bytes) -> Json:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise _rejected(400, "InvalidRequest", "the body is not a JSON object")
    return value


def _one(params: Params, name: str) -> str:
    if not params.get(name):
        raise _rejected(400, "InvalidRequest", f"{name} is missing")
    return params[name][-1]


def _rejected(status: int, error: str, message: str) -> HandshakeRejected:
    return HandshakeRejected(status, orjson.dumps({"error": error, "message": message}).decode())
