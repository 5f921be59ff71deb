"""`--max-disk`: bounds what day indices take on disk. The oldest day is deleted first, today never."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from elasticsearch import ApiError, Elasticsearch, NotFoundError

from slurp.elastic.client import Elastic, describe
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.days import date_of, day_of_index
from slurp.elastic.lifecycle import ANNOUNCEMENT_PERIOD
from slurp.elastic.templates import is_managed, max_segment_size
from slurp.pipeline.batches import BatchQueue
from slurp.units import format_size

log = logging.getLogger(__name__)

_DAY = 86_400
# Segments that merges write anew, of the largest size, before the old ones are deleted.
_MERGES = 2
# Bytes a second, of Elasticsearch with all that it has: until more was seen, the fastest growth expected.
_FASTEST = 32_000_000.0
# Seconds between two measurements, at least and at most.
_OFTEN, _SELDOM = 0.5, 60.0
# Seconds over which growth is measured.
_WINDOW = 10.0
# Seconds from the measurement until a deleted index has left the disk.
_REACTION = 2.0
# The part of the budget that is kept free for that, at most.
_MOST_GROWTH = 0.2
# While reading pauses and while the cluster is in trouble.
_LATER = 5.0
# Reading resumes below this part of the budget: at the budget itself it would pause again at once.
_RESUME = 0.9


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Bytes that each of our days takes, and all that must fit into the budget: with room for merges, and
    for what comes before the next measurement has had an effect."""

    days: dict[int, int]
    used: int
    needed: int


class DiskBudget:
    """Measures the days of one `--index` and deletes the oldest ones. `step` is one look.

    Order matters: the lowest kept day is saved before the index below it is deleted, so that no crash and no
    replay brings a deleted day back. An index that a crash left below it is deleted at the next look.
    """

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        limit: int | None,
        days: DailyIndices,
        buffer: BatchQueue,
        clock: Callable[[], float | None] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        learn_time: Callable[[], bool] = lambda: False,
        stop: threading.Event | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`limit` is in bytes; with None or 0 no day is deleted, and what other workers have deleted is
        respected all the same. `clock` is the time (Unix seconds) that it is at least: nothing is deleted
        before that is known. While today alone takes too much, `buffer` is paused; `learn_time` may then
        find out whether it is later, and tells whether it did.
        """
        self.limit = limit or None
        # What the days took when they were last measured, in bytes; None before that.
        self.used: int | None = None
        # Why reading pauses, '' while it does not.
        self.trouble = ""
        self._elastic = elastic
        self._index = index
        self._days = days
        self._queue = buffer
        self._clock = clock
        self._monotonic = monotonic
        self._learn_time = learn_time
        self._stop = stop or threading.Event()
        self._beat = beat
        self._due = self._learn_due = -1e18
        # Names of day indices, and whether they are ours by their mark.
        self._marked: dict[str, bool] = {}
        # Times, and bytes written until then: what was deleted is included.
        self._samples: deque[tuple[float, int]] = deque()
        self._deleted = 0
        self._growth = 0.0
        self._fastest = _FASTEST
        # Names of indices whose deletion was rejected.
        self._rejected: set[str] = set()
        # Whether the budget of this run is the one that is remembered.
        self._settled = False
        # Until when a budget smaller than the last one only announces; None before the first look.
        self._announced_until: float | None = None

    @property
    def lowest_day(self) -> int | None:
        """The lowest day that is indexed, from 1970-01-01; None where none was deleted."""
        return self._days.disk_state.oldest_day or None

    def step(self) -> bool:
        """Cheap until it is time; whether it looked. Raises what the client raises for a cluster in
        trouble."""
        now = self._monotonic()
        if now < self._due:
            return False
        self._due = now + _LATER
        self._days.disk_state.load()
        if self.limit is None:
            self._due = now + _SELDOM
            return True
        client = self._elastic.client.options(request_timeout=30)
        sizes = self._delete_oldest(client)
        if self._is_stuck(sizes):
            self._queue.pause()
            self._beat()
            # The stream may be a day behind, or the machine was asleep: then this day is not today.
            if now >= self._learn_due:
                self._learn_due = now + _SELDOM
                if self._learn_time():
                    sizes = self._delete_oldest(client)
        self._settle()
        self._pause_or_resume(sizes)
        self._due = self._monotonic() + self._wait(sizes)
        return True

    def _delete_oldest(self, client: Elasticsearch) -> _Sizes:
        """Delete days one by one until the others fit, or none may be deleted. Return their sizes."""
        sizes = self._measure(client)
        while not self._stop.is_set() and (victim := self._victim(sizes)) is not None:
            if self._announces(sizes, victim):
                break
            self._beat()  # there may be many, and a slow cluster is not a hung thread
            if not self._delete(client, victim, sizes):
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
        # Of all copies: replicas take space as well.
        sizes = {name: found[name].get("total", {}) for name in ours}
        days = {
            day_of_index(self._index, name) or 0: sum(part["size_in_bytes"] for part in total.values())
            for name, total in sizes.items()
        }
        used = sum(days.values())
        self._note_growth(used)
        # No index grows by more than its own size, as each segment is in one merge at a time.
        merges = min(max(days.values(), default=0), _MERGES * max_segment_size(self.limit))
        grows = min(self._growth * _REACTION, self.limit * _MOST_GROWTH)
        self.used = used
        return _Sizes(days, used, round(used + merges + grows))

    def _ours(self, client: Elasticsearch, names: Iterable[str]) -> list[str]:
        names = sorted(names)
        if any(name not in self._marked for name in names):
            marks = _marks(client, f"{self._index}-*")
            self._marked = {name: marks.get(name, False) for name in names}
        return [name for name in names if self._marked[name]]

    def _note_growth(self, used: int) -> None:
        """Measure over some seconds: the size grows in steps, with each refresh."""
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
            return _LATER
        return min(max((self.limit - sizes.needed) / self._fastest, _OFTEN), _SELDOM)

    def _victim(self, sizes: _Sizes) -> int | None:
        """Return the day to delete next, if any."""
        lowest = min(sizes.days, default=None)
        if lowest is None or self._days.is_deleted_for_disk(lowest):
            return lowest
        today = self._today()
        if today is None or lowest >= today or not self._is_over(sizes):
            return None
        return lowest

    def _today(self) -> int | None:
        now = self._clock()
        return None if now is None else int(now) // _DAY

    def _is_over(self, sizes: _Sizes) -> bool:
        assert self.limit is not None  # noqa: S101
        return sizes.needed > self.limit * (_RESUME if self._queue.paused else 1.0)

    def _announces(self, sizes: _Sizes, victim: int) -> bool:
        """Tell whether deletions wait: a new budget, or one below the last, may be a mistake."""
        assert self.limit is not None  # noqa: S101
        if self._days.is_deleted_for_disk(victim):
            return False
        now, before = self._monotonic(), self._days.disk_state.budget
        if self._announced_until is None:
            self._announced_until = now
            if before is None or self.limit < before:
                self._announced_until = now + ANNOUNCEMENT_PERIOD
                log.warning(
                    "--max-disk is %s now, it was %s: in %.0f minutes the oldest of %d day(s), which take "
                    "%s, will be deleted, %s first",
                    format_size(self.limit),
                    "off" if before is None else format_size(before),
                    ANNOUNCEMENT_PERIOD / 60,
                    len(sizes.days),
                    format_size(sizes.used),
                    self._days.name(victim),
                )
        return now < self._announced_until

    def _delete(self, client: Elasticsearch, day: int, sizes: _Sizes) -> bool:
        """Save that nothing of `day` is indexed any more, then delete it; False when we may not."""
        assert self.limit is not None  # noqa: S101
        name, leftover = self._days.name(day), self._days.is_deleted_for_disk(day)
        self._days.disk_state.save(day + 1)
        try:
            # Checked again: another program may have created it anew.
            if not _marks(client, name).get(name):
                self._marked[name] = False
                return True
            client.indices.delete(index=name)
        except NotFoundError:
            return True  # another worker was quicker
        except ApiError as error:
            # We lack the privilege, or a snapshot of it is being taken, say. Where the days take too much,
            # reading pauses meanwhile.
            if name not in self._rejected:
                log.error("%s can't be deleted for --max-disk: %s", name, describe(error))
            self._rejected.add(name)
            return False
        self._deleted += sizes.days[day]
        log.info(
            "deleted %s (%s): %s",
            name,
            format_size(sizes.days[day]),
            f"it lies before {date_of(self._days.disk_state.oldest_day)}, and --max-disk has deleted these "
            "days"
            if leftover
            else f"the days took {format_size(sizes.used)}, which with room for merges is more than "
            f"--max-disk {format_size(self.limit)}; events before {date_of(day + 1)} expire from now on",
        )
        return True

    @property
    def _announcing(self) -> bool:
        return self._announced_until is not None and self._monotonic() < self._announced_until

    def _is_stuck(self, sizes: _Sizes) -> bool:
        """Tell whether the days that must stay take too much, or the others can't be deleted."""
        return self._today() is not None and not self._announcing and self._is_over(sizes)

    def _settle(self) -> None:
        """Remember the budget once it is enforced."""
        assert self.limit is not None  # noqa: S101
        if self._settled or self._announcing or self._today() is None:
            return
        if self._days.disk_state.budget != self.limit:
            self._days.disk_state.save_budget(self.limit)
        self._settled = True

    def _pause_or_resume(self, sizes: _Sizes) -> None:
        assert self.limit is not None  # noqa: S101
        if not self._is_stuck(sizes):
            if self.trouble:
                log.info("the days take %s: reading resumes", format_size(sizes.used))
            self._queue.resume()
            self.trouble = ""
            return
        first = min(sizes.days)
        name = self._days.name(first)
        what = f"{name} takes" if len(sizes.days) == 1 else f"{name} and later days take"
        reason = (
            f"{what} {format_size(sizes.used)}, which with room for merges is more than --max-disk "
            f"{format_size(self.limit)}"
        )
        when = "after midnight (UTC), when" if first >= (self._today() or 0) else "once"
        until = f"{when} that day is deleted"
        if not self.trouble:
            log.error(
                "%s; reading is paused and resumes %s. To read on now, restart with a larger --max-disk",
                reason,
                until,
            )
        self.trouble = f"reading is paused: {reason}; it resumes {until}"
        self._queue.pause()


def _marks(client: Elasticsearch, pattern: str) -> dict[str, bool]:
    """Whether each index of that name or pattern is ours by its mark."""
    found = client.indices.get_mapping(
        index=pattern, ignore_unavailable=True, filter_path="*.mappings._meta"
    ).body
    return {name: is_managed(body.get("mappings", {}).get("_meta")) for name, body in found.items()}
