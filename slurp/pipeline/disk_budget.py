"""`--max-disk`: bound the disk space of the daily indices. The oldest day is deleted first, today never."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from elasticsearch import ApiError, Elasticsearch, NotFoundError

from slurp.elastic.client import Elastic, describe
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import SECONDS_PER_DAY, Clocks, date_of, day_of_index
from slurp.elastic.lifecycle import ANNOUNCEMENT_PERIOD
from slurp.elastic.templates import is_managed, max_segment_size
from slurp.pipeline.channel import Channel
from slurp.units import format_size

log = logging.getLogger(__name__)

# Segments of the largest size that merges write before the old ones are deleted.
_MERGES = 2
# Bytes per second that Elasticsearch writes at most: the expected growth until a faster one is measured.
_FASTEST = 32_000_000.0
# Seconds between two measurements.
_MIN_WAIT, _MAX_WAIT = 0.5, 60.0
# Seconds over which growth is measured.
_WINDOW = 10.0
# Seconds from the measurement until a deleted index has left the disk.
_REACTION = 2.0
# Maximum share of the budget that is kept free for growth.
_MAX_GROWTH = 0.2
# Seconds between two measurements while reading is paused, and after an error.
_RETRY = 5.0
# Reading resumes below this share of the budget: at the budget itself it would pause again immediately.
_RESUME = 0.9


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Bytes of each of our days, and of all that must fit into the budget.

    `needed` includes space for merges, and for growth until the next measurement has an effect.
    """

    days: dict[int, int]
    used: int
    needed: int


@dataclass(frozen=True)
class BudgetClock(Clocks):
    """Clocks of the disk budget. While `earliest` returns None, no day is deleted."""

    update: Callable[[], bool] = lambda: False
    """Raises `earliest` by the newest event of a server; returns whether it did."""


class DiskBudget:
    """Measures the daily indices and deletes the oldest ones.

    The lowest day to keep is saved before the index below it is deleted, so that neither a crash nor a replay
    brings a deleted day back. An index that a crash left below it is deleted by the next `step`.

    Attributes:
        limit: bytes; None without a limit.
        used: bytes of the days at the last measurement; None before the first.
        sizes: bytes of each day then, by its number since 1970-01-01.
        error: why reading is paused, '' while it is not.
    """

    def __init__(
        self,
        elastic: Elastic,
        indices: DailyIndices,
        limit: int | None,
        channel: Channel,
        clock: BudgetClock | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`limit` is in bytes. With None or 0 no day is deleted, but days that other workers have deleted
        expire all the same. While today alone exceeds the limit, the queue of `channel` is paused.
        """
        self.limit = limit or None
        self.used: int | None = None
        self.sizes: Mapping[int, int] = {}
        self.error = ""
        clock = clock or BudgetClock()
        self._elastic = elastic
        self._index = indices.index
        self._days = indices
        self._queue = channel.queue
        self._stop = channel.shutdown.stop
        self._earliest = clock.earliest
        self._monotonic = clock.monotonic
        self._update_clock = clock.update
        self._beat = beat
        self._due = self._update_due = -1e18
        # By name of a daily index: whether it has our mark.
        self._marked: dict[str, bool] = {}
        # Times, and bytes written until then, including those deleted since.
        self._samples: deque[tuple[float, int]] = deque()
        self._deleted = 0
        self._growth = 0.0
        self._fastest = _FASTEST
        # Names of indices whose deletion was rejected.
        self._rejected: set[str] = set()
        # Whether the budget of this run is saved.
        self._budget_saved = False
        # Until when deletions for a smaller budget are only announced; None before the first measurement.
        self._announced_until: float | None = None

    @property
    def lowest_day(self) -> int | None:
        """Lowest day that is indexed, in days since 1970-01-01; None when no day was deleted."""
        return self._days.disk_state.oldest_day or None

    def room_before(self, day: int) -> int | None:
        """Return how many bytes of this day and older ones would be kept; None without a limit."""
        if self.limit is None:
            return None
        newer = sum(size for number, size in self.sizes.items() if number > day)
        return max(0, round(self.limit * (1 - _MAX_GROWTH) * _RESUME) - newer)

    def step(self) -> bool:
        """Measure if that is due, and delete days that exceed the budget; return whether it was due.

        Raises the exceptions of the client.
        """
        now = self._monotonic()
        if now < self._due:
            return False
        self._due = now + _RETRY
        self._days.disk_state.load()
        if self.limit is None:
            self._due = now + _MAX_WAIT
            return True
        client = self._elastic.client.options(request_timeout=30)
        sizes = self._delete_oldest(client)
        if self._must_pause(sizes):
            self._queue.pause()
            self._beat()
            # The stream may be a day behind, or the machine was asleep: then this day is not today.
            if now >= self._update_due:
                self._update_due = now + _MAX_WAIT
                if self._update_clock():
                    sizes = self._delete_oldest(client)
        self._save_budget()
        self._pause_or_resume(sizes)
        self._due = self._monotonic() + self._wait(sizes)
        return True

    def _delete_oldest(self, client: Elasticsearch) -> _Sizes:
        """Delete days one by one until the rest fits, or no other may be deleted; return the sizes."""
        sizes = self._measure(client)
        while not self._stop.is_set() and (day := self._next_to_delete(sizes)) is not None:
            if self._only_announce(sizes, day):
                break
            self._beat()  # there may be many days, and a slow cluster is not a hung thread
            if not self._delete(client, day, sizes):
                break
            sizes = self._measure(client)
        return sizes

    def _measure(self, client: Elasticsearch) -> _Sizes:
        assert self.limit is not None  # noqa: S101
        found = client.indices.stats(
            index=f"{self._index}-*",
            metric="store,translog",
            filter_path="indices.*.total.store.size_in_bytes,indices.*.total.translog.size_in_bytes",
        ).body.get("indices", {})
        ours = self._ours(client, [name for name in found if day_of_index(self._index, name) is not None])
        # Of all copies: replicas need space as well.
        sizes = {name: found[name].get("total", {}) for name in ours}
        days = {
            day_of_index(self._index, name) or 0: sum(part["size_in_bytes"] for part in total.values())
            for name, total in sizes.items()
        }
        used = sum(days.values())
        self._note_growth(used)
        # Merging adds at most the size of the index, as each segment is in one merge at a time.
        merges = min(max(days.values(), default=0), _MERGES * max_segment_size(self.limit))
        grows = min(self._growth * _REACTION, self.limit * _MAX_GROWTH)
        self.used, self.sizes = used, days
        return _Sizes(days, used, round(used + merges + grows))

    def _ours(self, client: Elasticsearch, names: Iterable[str]) -> list[str]:
        names = sorted(names)
        if any(name not in self._marked for name in names):
            marks = _marks(client, f"{self._index}-*")
            self._marked = {name: marks.get(name, False) for name in names}
        return [name for name in names if self._marked[name]]

    def _note_growth(self, used: int) -> None:
        """Update the growth rate, over some seconds: the size grows in steps, with each refresh."""
        now, written = self._monotonic(), used + self._deleted
        self._samples.append((now, written))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        began, before = self._samples[0]
        self._growth = max(0.0, written - before) / max(now - began, _WINDOW / 2)
        self._fastest = max(self._fastest, self._growth)

    def _wait(self, sizes: _Sizes) -> float:
        """Return the seconds until growth as fast as expected could reach the budget, within bounds."""
        assert self.limit is not None  # noqa: S101
        if self._is_over(sizes):
            return _RETRY
        return min(max((self.limit - sizes.needed) / self._fastest, _MIN_WAIT), _MAX_WAIT)

    def _next_to_delete(self, sizes: _Sizes) -> int | None:
        """Return the day to delete next, None for no day."""
        lowest = min(sizes.days, default=None)
        if lowest is None or self._days.is_deleted_for_disk(lowest):
            return lowest
        today = self._today()
        if today is None or lowest >= today or not self._is_over(sizes):
            return None
        return lowest

    def _today(self) -> int | None:
        now = self._earliest()
        return None if now is None else int(now) // SECONDS_PER_DAY

    def _is_over(self, sizes: _Sizes) -> bool:
        assert self.limit is not None  # noqa: S101
        return sizes.needed > self.limit * (_RESUME if self._queue.paused else 1.0)

    def _only_announce(self, sizes: _Sizes, day: int) -> bool:
        """Return whether deletions must wait: a new budget, or one below the last, may be a mistake."""
        assert self.limit is not None  # noqa: S101
        if self._days.is_deleted_for_disk(day):
            return False
        now, before = self._monotonic(), self._days.disk_state.budget
        if self._announced_until is None:
            self._announced_until = now
            if before is None or self.limit < before:
                self._announced_until = now + ANNOUNCEMENT_PERIOD
                log.warning(
                    "--max-disk changed from %s to %s: in %.0f minutes the oldest of %d day(s) with %s "
                    "will be deleted, starting with %s",
                    "off" if before is None else format_size(before),
                    format_size(self.limit),
                    ANNOUNCEMENT_PERIOD / 60,
                    len(sizes.days),
                    format_size(sizes.used),
                    self._days.name(day),
                )
        return now < self._announced_until

    def _delete(self, client: Elasticsearch, day: int, sizes: _Sizes) -> bool:
        """Save that `day` has expired, then delete its index; return False when that was rejected."""
        assert self.limit is not None  # noqa: S101
        name, leftover = self._days.name(day), self._days.is_deleted_for_disk(day)
        self._days.disk_state.save(day + 1)
        try:
            # Checked again: another program may have created a new index of that name.
            if not _marks(client, name).get(name):
                self._marked[name] = False
                return True
            client.indices.delete(index=name)
        except NotFoundError:
            return True  # another worker deleted it
        except ApiError as error:
            # No privilege, or a snapshot of it is in progress. If the days exceed the budget, reading is
            # paused meanwhile.
            if name not in self._rejected:
                log.error("cannot delete %s for --max-disk: %s", name, describe(error))
            self._rejected.add(name)
            return False
        self._deleted += sizes.days[day]
        log.info(
            "deleted %s (%s): %s",
            name,
            format_size(sizes.days[day]),
            f"days before {date_of(self._days.disk_state.oldest_day)} have expired because of --max-disk"
            if leftover
            else f"the daily indices use {format_size(sizes.used)}, with space for merges more than "
            f"--max-disk {format_size(self.limit)}; events before {date_of(day + 1)} expire from now on",
        )
        return True

    @property
    def _announcing(self) -> bool:
        return self._announced_until is not None and self._monotonic() < self._announced_until

    def _must_pause(self, sizes: _Sizes) -> bool:
        """Return whether the days that must stay exceed the budget, or the others cannot be deleted."""
        return self._today() is not None and not self._announcing and self._is_over(sizes)

    def _save_budget(self) -> None:
        """Save the budget once it is enforced."""
        assert self.limit is not None  # noqa: S101
        if self._budget_saved or self._announcing or self._today() is None:
            return
        if self._days.disk_state.budget != self.limit:
            self._days.disk_state.save_budget(self.limit)
        self._budget_saved = True

    def _pause_or_resume(self, sizes: _Sizes) -> None:
        assert self.limit is not None  # noqa: S101
        if not self._must_pause(sizes):
            if self.error:
                log.info("the daily indices use %s: reading resumes", format_size(sizes.used))
            self._queue.resume()
            self.error = ""
            return
        first = min(sizes.days)
        name = self._days.name(first)
        what = f"{name} uses" if len(sizes.days) == 1 else f"{name} and later days use"
        reason = (
            f"{what} {format_size(sizes.used)}, with space for merges more than --max-disk "
            f"{format_size(self.limit)}"
        )
        when = "after midnight (UTC), when" if first >= (self._today() or 0) else "once"
        until = f"{when} that day is deleted"
        if not self.error:
            log.error(
                "%s; reading is paused and resumes %s. To resume now, restart with a larger --max-disk",
                reason,
                until,
            )
        self.error = f"reading is paused: {reason}; it resumes {until}"
        self._queue.pause()


def _marks(client: Elasticsearch, pattern: str) -> dict[str, bool]:
    """Return by name whether each index that matches `pattern` has our mark."""
    found = client.indices.get_mapping(
        index=pattern, ignore_unavailable=True, filter_path="*.mappings._meta"
    ).body
    return {name: is_managed(body.get("mappings", {}).get("_meta")) for name, body in found.items()}
