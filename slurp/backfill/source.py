"""The rows of a range of an archive, in order, from files that are downloaded some at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from slurp.archive.blocks import DamagedArchive, Row, RowKind, decompress, rows
from slurp.archive.client import ArchiveError, Client, NotFound, Unavailable
from slurp.archive.plans import Entry, Filter, Page, SegmentFile
from slurp.archive.segments import Segment
from slurp.backfill.spool import Spool
from slurp.backoff import Backoff
from slurp.events.position import FIRST_TIME_CURSOR

log = logging.getLogger(__name__)

# Downloads at a time.
_PARALLEL = 3
# Blocks of a download that is not a whole file; 5 MB on real servers.
_BLOCKS = 32
# A file may be damaged by the download, or by a compaction that is just going on.
_ATTEMPTS = 3
_POLL = 0.25
# Seconds; a server that needs more is left, and tried again later.
_MAX_PAUSE = 60.0
# Of the compressed blocks of a download.
_MAX_PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Range:
    """Events with a seq above `after`, up to `before`; and of these, those that were witnessed from
    `from_us` to `to_us` (Unix microseconds)."""

    after: int
    before: int
    from_us: int = 0
    to_us: int = 2**63 - 1


@dataclass(frozen=True)
class _Part:
    """What one download gets: a file, or some of its blocks."""

    entry: Entry
    blocks: tuple[int, ...] = ()


class Archive:
    """Reads ranges of the archive of one server. One thread calls the methods.

    Attributes:
        received: bytes of files and blocks so far.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        spool: Spool,
        wanted: Filter,
        stop: threading.Event,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """`connect` returns a new client; it stops its downloads at `stop`."""
        self.received = 0
        self._connect = connect
        self._client = connect()
        self._spool = spool
        self._wanted = wanted
        self._stop = stop
        self._heartbeat = heartbeat

    def close(self) -> None:
        self._client.close()

    def first_live(self) -> Row | None:
        """Return the first row that is not part of the server's copy of the network; None without one.

        A new server first stores a create for each record that exists, with the rev of the repository's head.
        It writes no identity or account events meanwhile, and begins a new block afterwards. Raises
        ArchiveError and DamagedArchive.
        """
        page = self._client.plan(0, filter=Filter(kinds=("identity", "account")))
        if not page.entries:
            return None
        entry = page.entries[0]
        number, first = entry.blocks[0][0] if entry.blocks else 0, None
        while first is None:
            if self._stop.is_set():
                return None
            first = self._first_live_in(entry.name, number)
            number += 1
        # The blocks before may have deletions or updates, but no event of an account.
        for before in range(number - 2, -1, -1):
            if (row := self._first_live_in(entry.name, before)) is None:
                break
            first = row
        return first

    def _first_live_in(self, name: str, number: int) -> Row | None:
        """Return the first row of a block, None if it has creates only."""
        self._heartbeat()
        found = list(rows(decompress(self._client.block(name, number))))
        return found[0] if any(row.kind != RowKind.CREATE for row in found) else None

    def range_of(self, from_us: int, to_us: int) -> tuple[Range, bool] | None:
        """Return the range of all files with events of a period, and whether a later event is sealed; None
        without such a file. Raises ArchiveError."""
        files = self._files
        found = [one for one in files if one.min_witnessed_at <= to_us and one.max_witnessed_at >= from_us]
        if not found:
            return None
        span = Range(found[0].min_seq - 1, found[-1].max_seq, from_us, to_us)
        return span, max(one.max_witnessed_at for one in files) > to_us

    def time_of(self, seq: int) -> int:
        """Return when the file with this event begins (Unix microseconds); 0 beyond the end. Raises
        ArchiveError."""
        return next((one.min_witnessed_at for one in self._files if one.max_seq >= seq), 0)

    @cached_property
    def _files(self) -> list[SegmentFile]:
        return list(self._client.files())

    def sealed_tip(self) -> int:
        """Return the last seq of the archive. Raises ArchiveError."""
        # Beyond the end a plan is empty, and both of its numbers are the end.
        return self._client.plan(FIRST_TIME_CURSOR - 1).sealed_tip

    def read(self, span: Range) -> Iterator[Row]:
        """Yield the matching rows in order, until the end or the stop.

        Raises ArchiveError, DamagedArchive, and OSError if the spool cannot be written.
        """
        parts = self._parts(span)
        first_parts = list(islice(parts, _PARALLEL))
        self._spool.prepare(part.entry.name for part in first_parts)
        downloads = deque(map(self._download, first_parts))
        try:
            while downloads:
                downloads[0].is_first = True
                while not downloads[0].done.wait(_POLL):
                    self._heartbeat()
                    if self._stop.is_set():
                        return
                yield from self._rows_of(downloads.popleft(), span)
                downloads.extend(map(self._download, islice(parts, 1)))
        finally:
            for one in downloads:
                one.cancel()

    def _download(self, part: _Part) -> _Download:
        download = _Download(part, self._connect(), self._spool, self._stop)
        download.start()
        return download

    def _rows_of(self, download: _Download, span: Range) -> Iterator[Row]:
        try:
            if download.error is not None:
                raise download.error
            for block in download.blocks() if not self._stop.is_set() else ():
                self._heartbeat()
                yield from (row for row in rows(decompress(block)) if self._matches(row, span))
        finally:
            self.received += download.received
            self._spool.remove(download.part.entry.name)

    def _matches(self, row: Row, span: Range) -> bool:
        return (
            span.after < row.seq <= span.before
            and span.from_us <= row.witnessed_at <= span.to_us
            and _is_wanted(row, self._wanted)
        )

    def _plan(self, after: int, before: int) -> Page | None:
        """Return a page of a plan, after any number of attempts; None at the stop."""
        attempts = _Attempts(lambda: not self._stop.is_set(), self._heartbeat)
        while not self._stop.is_set():
            try:
                return self._client.plan(after, before, self._wanted)
            except Unavailable as error:
                attempts.wait_after(error)
        return None

    def _parts(self, span: Range) -> Iterator[_Part]:
        after, tip = span.after, span.before
        while after < tip:
            page = self._plan(after, tip)
            if page is None:
                return
            if page.sealed_tip < tip:
                raise Unavailable("the archive has less than before")
            for entry in page.entries:
                if not entry.blocks:
                    yield _Part(entry)
                    continue
                numbers = [number for first, last in entry.blocks for number in range(first, last + 1)]
                for first in range(0, len(numbers), _BLOCKS):
                    yield _Part(entry, tuple(numbers[first : first + _BLOCKS]))
            if page.through >= tip:
                return
            if page.through <= after:
                raise ArchiveError("a plan does not get further")
            after = page.through


class _Attempts:
    """Attempts of a request, with pauses between them, until a pause would be too long."""

    def __init__(
        self, may_continue: Callable[[], bool], heartbeat: Callable[[], None] = lambda: None
    ) -> None:
        self._may_continue = may_continue
        self._heartbeat = heartbeat
        self._backoff = Backoff(first=1.0, cap=2 * _MAX_PAUSE)

    def reset(self) -> None:
        """Begin with short pauses again, after some progress."""
        self._backoff.reset()

    def wait_after(self, error: Exception) -> None:
        """Wait before the next attempt. Raises `error` if that would take too long."""
        requested = error.wait if isinstance(error, Unavailable) else 0.0
        pause = max(requested, self._backoff.next())
        if pause > _MAX_PAUSE:
            raise error
        log.debug("archive: %s; trying again in %.0f s", error, pause)
        until = time.monotonic() + pause
        while self._may_continue() and (left := until - time.monotonic()) > 0:
            self._heartbeat()
            time.sleep(min(left, _POLL))


class _Download:
    """One download on a thread of its own, repeated until it succeeds, fails for good, or the stop.

    Attributes:
        done: set at the end.
        error: why it failed.
        is_first: whether all parts before it have been read.
        received: bytes.
    """

    def __init__(self, part: _Part, client: Client, spool: Spool, stop: threading.Event) -> None:
        self.part = part
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.is_first = False
        self.received = 0
        self._client = client
        self._spool = spool
        self._stop = stop
        self._cancelled = False
        # Whether something arrived since the last failure.
        self._got = False
        self._blocks: list[bytes] = []

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="archive-download", daemon=True).start()

    def cancel(self) -> None:
        """Stop soon."""
        self._cancelled = True

    def blocks(self) -> Iterator[bytes]:
        """Yield the blocks as zstd frames, after the download. Raises DamagedArchive."""
        if self.part.blocks:
            yield from self._blocks
            return
        with self._spool.path(self.part.entry.name).open("rb") as file:
            segment = Segment(file)
            for entry in segment.blocks:
                yield segment.read(entry)

    def may_continue(self) -> bool:
        return not (self._stop.is_set() or self._cancelled)

    def _run(self) -> None:
        attempts = _Attempts(self.may_continue)
        damaged = 0
        try:
            while self.may_continue():
                try:
                    self._download()
                    return
                except Unavailable as error:
                    if self._got:
                        attempts.reset()
                        self._got = False
                    attempts.wait_after(error)
                except (DamagedArchive, NotFound) as error:
                    # A file that is being compacted, or a plan that is outdated.
                    self._spool.remove(self.part.entry.name)
                    damaged += 1
                    if damaged >= _ATTEMPTS:
                        raise
                    log.warning("archive: %s: %s; reading it again", self.part.entry.name, error)
                    attempts.wait_after(error)
        except BaseException as error:  # the thread that reads raises it
            self.error = error
        finally:
            self.received = self._client.received
            self._client.close()
            self.done.set()

    def _download(self) -> None:
        entry = self.part.entry
        if self.part.blocks:
            for number in self.part.blocks[len(self._blocks) :]:
                if not self.may_continue():
                    return
                block = self._client.block(entry.name, number)
                decompress(block)
                self._blocks.append(block)
                self._got = True
                if sum(map(len, self._blocks)) > _MAX_PART_BYTES:
                    raise DamagedArchive(f"blocks of more than {_MAX_PART_BYTES:,} bytes")
            return
        path = self._spool.path(entry.name)
        self._client.download(entry.name, path, self._wrote, self.may_continue)
        with path.open("rb") as file:
            segment = Segment(file)
            for one in segment.blocks:
                if self.may_continue():
                    decompress(segment.read(one))

    def _wrote(self, count: int) -> None:
        self._got = True
        is_free = self._spool.take(count, is_first=self.is_first)
        while not is_free and self.may_continue():
            is_free = self._spool.take(0, is_first=self.is_first)


def _is_wanted(row: Row, wanted: Filter) -> bool:
    """Return whether a row matches the filters of a subscription: collections restrict commits only."""
    if wanted.dids and row.did not in wanted.dids:
        return False
    if not (wanted.collections and row.collection):
        return True
    return any(
        row.collection.startswith(one[:-1]) if one.endswith(".*") else row.collection == one
        for one in wanted.collections
    )
