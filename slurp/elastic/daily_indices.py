"""One index a day: named by the event, created before its first document."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from elasticsearch import AuthorizationException, Elasticsearch, NotFoundError

from slurp.elastic.client import Elastic, describe
from slurp.elastic.lowest_day import LowestDay
from slurp.elastic.setup import create_index, has_our_template
from slurp.elastic.templates import DAY_AT_LEAST, is_of_our_template, winner_for
from slurp.errors import Fatal
from slurp.events.times import day_of
from slurp.replay_command import ReplayCommand

log = logging.getLogger(__name__)

_DAY = 86_400
_AHEAD = 3600
# Seconds until a day that was found in order is looked at again: somebody may delete it while we write.
_TRUST = 60.0
# Seconds between two beats of a thread that waits while another one looks.
_BEAT_EVERY = 1.0


class DailyIndices:
    """Names, creates and expires day indices. Days count from 1970-01-01, UTC."""

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        retention_days: int | None,
        put_templates: Callable[[Elasticsearch], None],
        clock: Callable[[], float] = time.time,
        earliest: Callable[[], float | None] = time.time,
        *,
        fill: ReplayCommand | None = None,
    ) -> None:
        """`clock` tells the time (Unix seconds) and `earliest` the time that it is at least, by which days
        expire; None while nothing is known of that."""
        self.lowest = LowestDay(elastic, index)
        self._elastic = elastic
        self.index = index
        self._retention = retention_days
        self._put_templates = put_templates
        self._clock = clock
        self._earliest = earliest
        self._fill = fill or ReplayCommand()
        self._lock = threading.Lock()
        self._seen: dict[int, float] = {}
        # How many looks have failed, and the last one that did: its day and error.
        self._failures = 0
        self._failed: tuple[int, Exception] | None = None
        # What tells an index from a later one of the same name.
        self._uuids: dict[int, str] = {}

    def name(self, day: int) -> str:
        return f"{self.index}-{day_of(day)}"

    def is_expired(self, day: int, seen_us: int | None = None) -> bool:
        """A replay must not bring back a day that retention, or --max-disk, has deleted.

        While it is not known how late it is at least, `seen_us`, the time of an event of the same batch, has
        to do; then the clock.
        """
        if self.is_cut(day):
            return True
        if self._retention is None:
            return False
        now = self._earliest()
        if now is None:
            now = self._clock() if seen_us is None else min(self._clock(), seen_us / 1e6)
        return day < int(now) // _DAY - self._retention

    def is_cut(self, day: int) -> bool:
        """Return whether `day` was deleted for --max-disk, or lies before one that was."""
        return day < self.lowest.day

    def ensure(self, day: int, beat: Callable[[], None] = lambda: None) -> None:
        """Create the index of `day` unless it is there, and look once a minute whether it still is.

        An index born without our template would take any field for ever, so nothing is written to one.
        `beat` is called before each request, and each second while another thread makes them. What that
        thread fails with is raised here as well: one after the other would each wait for a silent cluster.

        Raises what the client raises, and Fatal for an index that is not ours.
        """
        if self._is_trusted(day):
            return
        if day in self._seen:
            # Whoever comes while another thread looks again goes on with what was seen a minute ago.
            if not self._lock.acquire(blocking=False):
                return
            failures = self._failures
        else:
            failures = self._failures
            while not self._lock.acquire(timeout=_BEAT_EVERY):
                beat()
        try:
            if self._is_trusted(day):
                return
            if self._failures != failures and (failed := self._failed) is not None and failed[0] == day:
                raise failed[1]
            try:
                self._look(day, beat)
            except Exception as error:
                self._failures, self._failed = self._failures + 1, (day, error)
                raise
            self._seen[day], self._failed = time.monotonic(), None
        finally:
            self._lock.release()

    def _is_trusted(self, day: int) -> bool:
        seen = self._seen.get(day)
        return seen is not None and time.monotonic() - seen < _TRUST

    def _look(self, day: int, beat: Callable[[], None]) -> None:
        name, client = self.name(day), self._elastic.client.options(request_timeout=30)
        beat()
        uuid, mark = _uuid_and_mark(client, name)
        beat()
        self._keep_template(client, needed=uuid is None)
        if uuid is None:
            beat()
            made = create_index(client, name, mappings=DAY_AT_LEAST)
            beat()
            # If not, another worker was quicker.
            uuid, mark = _uuid_and_mark(client, name)
            if uuid is None:
                return  # deleted again just now, as the next write will tell
            if made:
                beat()
                self._check_birth(client, name, mark)
                log.info("created index %s", name)
        self._compare(day, uuid)
        if not is_of_our_template(mark):
            raise Fatal(
                f"index {name} exists and was not made by us, or without our template: "
                "delete it or choose another --index"
            )

    def _compare(self, day: int, uuid: str) -> None:
        """Say so when this is not the index that we have written to."""
        if self._uuids.setdefault(day, uuid) != uuid:
            log.warning(
                "index %s was deleted while we ran: what it held is gone, and it begins anew. What servers "
                "still have can be had again: %s",
                self.name(day),
                self._fill.advice(day * _DAY * 1_000_000),
            )
            self._uuids[day] = uuid

    def _keep_template(self, client: Elasticsearch, needed: bool) -> None:
        """Put our index template if it is gone. A day that is there can be filled without one."""
        if has_our_template(client, self.index):
            return
        log.warning("index template %r is gone, putting it again", self.index)
        try:
            self._put_templates(client)
            if not has_our_template(client, self.index):
                raise Fatal(
                    f"index template {self.index!r} is missing, and the component templates are of a newer "
                    "version, which we leave alone: run that version with --setup-only, or delete "
                    f"{self.index}@settings, {self.index}@mappings and {self.index}@lexicons"
                )
        except (Fatal, AuthorizationException) as error:
            if needed:
                raise
            log.warning("no new day can be made: %s", describe(error))

    def _check_birth(self, client: Elasticsearch, name: str, mark: Any) -> None:
        """Take back an index that another template went into."""
        if is_of_our_template(mark):
            return
        try:
            client.indices.delete(index=name)
        except AuthorizationException:
            log.warning("index %s is not what we need and we may not delete it: delete it", name)
        winner = winner_for(client, name)
        raise Fatal(
            f"index {name} was made without our template {self.index!r}: template {winner!r} has a higher "
            f"priority, so narrow its index_patterns or lower it"
        )

    def ensure_tomorrow(self) -> None:
        """Create tomorrow's index in the last hour of today: at midnight everybody is in a hurry."""
        now = int(self._clock())
        if _DAY - now % _DAY <= _AHEAD:
            self.ensure(now // _DAY + 1)

    def forget(self, day: int) -> None:
        """The index of `day` is missing after all: look again before the next write."""
        # Without the lock: whoever holds it may wait for a silent cluster.
        self._seen.pop(day, None)


def _uuid_and_mark(client: Elasticsearch, name: str) -> tuple[str | None, Any]:
    """What tells an index from others of its name, and the `_meta` of its mapping. None: there is none."""
    wanted = "*.settings.index.uuid,*.mappings._meta"
    try:
        answer = client.indices.get(index=name, filter_path=wanted)
    except NotFoundError:
        return None, None
    # Under another name where a day was shrunk or mounted, and its own is an alias.
    found = next(iter(answer.values()), None)
    if found is None:
        return None, None
    return found["settings"]["index"]["uuid"], found.get("mappings", {}).get("_meta")
