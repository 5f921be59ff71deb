"""Fill recorded gaps from the archive of a server, while live reading goes on.

The events pass through the same queue as those of the readers. Up to where a gap is filled is saved once
all events before that are acknowledged, and the deletions of what was stored are applied.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from slurp.archive.blocks import DamagedArchive, Row
from slurp.archive.client import ArchiveError, Client, KeyRequired, NotFound, Unavailable
from slurp.archive.frames import frame_of
from slurp.archive.plans import Filter
from slurp.backfill.recorded_gaps import GapChanged, RecordedGap, RecordedGaps
from slurp.backfill.source import Archive, Range
from slurp.backfill.spool import Spool
from slurp.backoff import Backoff
from slurp.config import Config
from slurp.elastic.client import Elastic
from slurp.elastic.daily_indices import DailyIndices
from slurp.events.position import REWIND_EVENTS, REWIND_OTHER_HOST_US, REWIND_US, Position
from slurp.events.times import DAY_US, format_period
from slurp.jetstream.servers import host_of
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.batcher import MAX_BATCH_BYTES
from slurp.pipeline.batches import ARCHIVE_READER, Batch
from slurp.pipeline.channel import Channel
from slurp.pipeline.disk_budget import DiskBudget
from slurp.units import format_duration

log = logging.getLogger(__name__)

_POLL, _SHORT_POLL = 0.25, 0.02
# Versions whose removals are to be looked up; the thread that applies deletions takes as many at once.
_MAX_UNAPPLIED = 20_000
_SAVE_EVERY = 5.0
# Between two searches for new gaps.
_LOOK_EVERY = 10.0
# Until a gap is tried again whose end is not sealed yet.
_AGAIN_AFTER = 300.0
# The same for a damaged file, which is 256 MB.
_DAMAGED_AFTER = 3600.0
# On disk: docs/benchmarks.md.
_BYTES_PER_EVENT = 420


@dataclass(frozen=True)
class _Job:
    """A gap to fill from an archive: the range, and whether the archive has the end of the gap."""

    gap: RecordedGap
    host: str
    span: Range
    is_sealed: bool
    unfilled: Sequence[tuple[int, int]]
    """Periods (Unix microseconds) that the archive does not have, or whose days have expired."""
    missing_us: int
    """How much of the gap the archive does not have, in microseconds."""

    @property
    def period(self) -> str:
        return f"{format_period(self.gap.from_us, self.gap.to_us)} from the archive of {self.host}"


class GapFiller:
    """Fills gaps of one subscription. One thread calls `step`.

    Attributes:
        unknown: number of rows of kinds that are not known.
        is_behind: whether there may be gaps that will be filled, now or later.
    """

    def __init__(
        self,
        elastic: Elastic,
        config: Config,
        channel: Channel,
        servers: Sequence[str],
        indices: DailyIndices,
        disk: DiskBudget,
        heartbeat: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unknown = 0
        self.is_behind = True
        self._config = config
        self._channel = channel
        self._servers = servers
        self._indices = indices
        self._disk = disk
        self._heartbeat = heartbeat
        self._clock = clock
        self._stop = channel.shutdown.stop
        subscription = Subscription.of(config)
        self._gaps = RecordedGaps(elastic, subscription)
        self._wanted = Filter(dids=subscription.dids, collections=subscription.collections)
        self._spool = Spool(config.archive_spool / f"{config.index}-{config.worker_name or 'worker'}")
        self._logged: set[str] = set()
        self._backoff = Backoff(first=5.0, cap=_AGAIN_AFTER)
        self._requested = threading.Event()
        self._has_asked = False
        self._due = clock()
        self._try_at: dict[str, float] = {}
        # By host: not before.
        self._hosts: dict[str, float] = {}
        # Gaps that will be filled later; those without an archive are not among them.
        self._waiting: set[str] = set()
        self._first_live: dict[str, Row] = {}
        self._is_closed = False

    def step(self) -> bool:
        """Fill all gaps that can be filled now; return whether there was any.

        Raises the exceptions of the client, and OSError if the spool cannot be written.
        """
        now = self._clock()
        if now < self._due and not self._requested.is_set():
            return False
        self._due = now + _LOOK_EVERY
        gaps = self._gaps.unfilled()
        due = [gap for gap in gaps if self._try_at.get(gap.id, now) <= now]
        self.is_behind |= bool(due)
        for gap in due:
            self._heartbeat()
            if self._stop.is_set():
                return True
            self._try_at[gap.id] = self._clock() + _AGAIN_AFTER
            try:
                self._fill(gap)
            except GapChanged:
                self._try_at[gap.id] = self._clock()
        if not due:
            self.is_behind = any(gap.id in self._waiting for gap in gaps)
            self._requested.clear()
        return bool(due)

    def has_finished(self) -> bool:
        """Return whether all gaps recorded before the first call are filled, or cannot be filled now.

        Another thread calls this.
        """
        if not self._has_asked:
            self._has_asked = True
            self._requested.set()
        return self._is_closed or not self._requested.is_set()

    def close(self) -> None:
        """Nothing is filled any more."""
        self._is_closed, self.is_behind = True, False

    def _fill(self, gap: RecordedGap) -> None:
        """Fill a gap from all servers that have an archive, its own host first, until nothing is missing."""
        self._waiting.discard(gap.id)
        best: _Job | None = None
        for server in sorted(self._servers, key=lambda server: host_of(server) != gap.host):
            host = host_of(server)
            if self._hosts.get(host, 0.0) > self._clock():
                self._waiting.add(gap.id)
                continue
            job = self._fill_from(gap, server, host)
            if self._stop.is_set():
                return
            if job is not None and not job.is_sealed:
                # Not from another server: it would send the same events once more.
                self._waiting.add(gap.id)
                return
            if job is not None and (best is None or job.missing_us < best.missing_us):
                best = job
            if job is not None and not job.missing_us:
                break
        # A server that is tried again later may have what the others do not.
        if best is not None and (not best.missing_us or gap.id not in self._waiting):
            self._gaps.filled(gap, best.host, best.unfilled)
            log.info("filled the gap from %s%s", best.period, "".join(map(_missing, best.unfilled)))

    def _fill_from(self, gap: RecordedGap, server: str, host: str) -> _Job | None:
        """Read what the archive of a server has of a gap; return the job if its range was read to the end."""
        archive = Archive(
            partial(self._connect, server), self._spool, self._wanted, self._stop, self._heartbeat
        )
        try:
            job = self._job(gap, host, archive)
            self._backoff.reset()
            if job is None:
                return None
            if self._run(job, archive):
                return job
            self._waiting.add(gap.id)
        except NotFound:
            log.debug("%s has no archive", host)
        except KeyRequired as error:
            self._log_once(
                host,
                f"{host} wants an API key for its archive ({error}): ask its operator for one, and name "
                "its file with --jetstream-api-key-file; the gaps stay recorded",
            )
        except (ArchiveError, DamagedArchive) as error:
            pause = _DAMAGED_AFTER
            if isinstance(error, Unavailable):
                pause = max(error.wait, self._backoff.next())
                self._hosts[host] = self._clock() + pause
            self._waiting.add(gap.id)
            self._try_at[gap.id] = self._clock() + pause
            log.warning(
                "%s: the archive cannot be read: %s; trying again in %s", host, error, format_duration(pause)
            )
        finally:
            archive.close()
        return None

    def _connect(self, server: str) -> Client:
        return Client(server, self._config.jetstream_api_key or "", self._config.jetstream_ca)

    def _log_once(self, host: str, text: str) -> None:
        if host not in self._logged:
            self._logged.add(host)
            log.warning("%s", text)

    def _job(self, gap: RecordedGap, host: str, archive: Archive) -> _Job | None:
        """Return what to read; None if nothing of the gap is sealed yet."""
        day = gap.from_us // DAY_US
        while day * DAY_US < gap.to_us and self._indices.is_expired(day):
            day += 1
        from_us = min(max(gap.from_us, day * DAY_US), gap.to_us)
        first_seq, last_seq = (gap.from_cursor, gap.to_cursor) if host == gap.host else (None, None)
        if first_seq is not None and last_seq is not None:
            tip = archive.sealed_tip()
            # A server that was killed has used the numbers of its last events again.
            after = max(0, first_seq - 1 - REWIND_EVENTS)
            lowest_us = from_us - REWIND_US if from_us > gap.from_us else 0
            span = Range(after, max(after, min(last_seq, tip)), lowest_us)
            is_sealed = tip >= last_seq
        else:
            margin_us = REWIND_US if host == gap.host else REWIND_OTHER_HOST_US
            found = archive.range_of(from_us - margin_us, gap.to_us + margin_us)
            if found is None:
                return None
            span, is_sealed = found
        if (first := self._first_live.get(host) or archive.first_live()) is None:
            return None
        self._first_live[host] = first
        expired_us = from_us - gap.from_us
        if first.seq > span.after + 1:
            # Before that there is the copy of the network with which the server began.
            span = replace(span, after=first.seq - 1)
            from_us = min(max(from_us, first.time_us), gap.to_us)
        elif first_seq is None:
            from_us = min(max(from_us, archive.time_of(span.after + 1)), gap.to_us)
        missing_us = from_us - gap.from_us - expired_us
        room = self._room(gap)
        if room is not None and span.before - span.after > room:
            log.warning(
                "only the last %s of %s events fit into --max-disk; a larger one has more history",
                f"{room:,}",
                f"{span.before - span.after:,}",
            )
            span = replace(span, after=span.before - room)
            from_us = min(max(from_us, archive.time_of(span.after + 1)), gap.to_us)
        unfilled = [(gap.from_us, from_us)] if from_us > gap.from_us else []
        after = max(span.after, gap.fills.get(host, 0))
        return _Job(gap, host, replace(span, after=after), is_sealed, unfilled, missing_us)

    def _room(self, gap: RecordedGap) -> int | None:
        """Return how many events of a gap would be kept; None if that is not limited, or not known."""
        room = self._disk.room_before(gap.to_us // DAY_US)
        return None if room is None or self._wanted.body() else room // _BYTES_PER_EVENT

    def _run(self, job: _Job, archive: Archive) -> bool:
        """Read the range of a job, and record up to where its events are acknowledged; return whether all
        are."""
        most = max(0, job.span.before - job.span.after)
        log.info("filling the gap from %s: at most %s events", job.period, f"{most:,}")
        # Of an earlier job that ended with an error.
        if not self._is_idle():
            return False
        self._channel.counters.begin_archive()
        is_read = self._read(job, archive) and self._is_idle()
        self._save(job)
        if not is_read:
            return False
        self._gaps.filled_until(job.gap, job.host, max(job.span.before, job.gap.fills.get(job.host, 0)))
        if not job.is_sealed:
            log.info("the end of the gap is not in the archive of %s yet", job.host)
        return True

    def _read(self, job: _Job, archive: Archive) -> bool:
        """Queue the events of a range; return False if the stop came before its end."""
        numbers = count(1)
        saved_at, frames, size, position = self._clock(), list[bytes](), 0, None
        for row in archive.read(job.span):
            if (frame := frame_of(row)) is None:
                self.unknown += 1
                continue
            frames.append(frame)
            size += len(frame)
            position = Position(job.host, row.seq, row.time_us)
            if len(frames) >= self._config.batch or size >= MAX_BATCH_BYTES:
                if not self._queue(Batch(next(numbers), job.host, frames, size, position)):
                    return False
                frames, size = [], 0
            if self._clock() >= saved_at + _SAVE_EVERY:
                self._save(job)
                saved_at = self._clock()
        if self._stop.is_set():
            return False
        return not frames or self._queue(Batch(next(numbers), job.host, frames, size, position))

    def _queue(self, batch: Batch) -> bool:
        """Put a batch into the queue once that is half empty, so that live events come first; return False
        at the stop."""
        channel = self._channel
        batch.reader = ARCHIVE_READER
        while not (
            channel.counters.unapplied_of_archive < _MAX_UNAPPLIED
            and channel.queue.wait_until_half_empty(_POLL)
            and channel.queue.reserve(batch, _POLL)
        ):
            self._heartbeat()
            if self._stop.wait(_SHORT_POLL):
                return False
        batch.arrived_at, batch.arrived_monotonic = time.time(), time.monotonic()
        channel.put(batch)
        return True

    def _is_idle(self) -> bool:
        """Wait until everything that was queued is acknowledged and applied; return False at the stop."""
        while not self._channel.counters.is_archive_idle:
            self._heartbeat()
            if self._stop.wait(_POLL):
                return False
        return True

    def _save(self, job: _Job) -> None:
        """Record up to where a gap is filled."""
        position = self._channel.counters.archive_position
        if position is not None and position.cursor is not None and position.host == job.host:
            done = max(job.gap.fills.get(job.host, 0), position.cursor)
            self._gaps.filled_until(job.gap, job.host, done)


def _missing(period: tuple[int, int]) -> str:
    return f"; what is missing from {format_period(*period)} has expired, or is in no archive"
